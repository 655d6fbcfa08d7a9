"""Pushing values to InfluxDB 2, Redis, MySQL and TDengine, each through its own client, in mapper-framework's tables.

Passwords come from the environment as there: TOKEN (InfluxDB), PASSWORD (Redis, MySQL), USERNAME and PASSWORD
(TDengine). A client that blocks runs in a thread, one call at a time, with time limits of its own.
"""

import asyncio
import json
import os
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import urlsplit

from edgehive.kit.errors import EdgehiveError, Unreachable
from edgehive.mapper.model import Device, PushTarget
from edgehive.mapper.push_clients import Sender, Unsupported, data_model, json_model
from edgehive.mapper.worker import Reading

if TYPE_CHECKING:
    from influxdb_client import Point
    from pymysql.connections import Connection
    from taosrest import TaosRestConnection

T = TypeVar("T")

_SECONDS = 5
_HISTORY = "%Y-%m-%d %H:%M:%S.%f"


def make_database(target: PushTarget) -> Sender:
    """The sender to a database.

    Raises:
        Unsupported: it is not fully described, or its client is not installed.
    """
    makers: Mapping[str, Callable[[PushTarget], Sender]] = {
        "influxdb2": InfluxSender,
        "redis": RedisSender,
        "mysql": MysqlSender,
        "tdengine": TdengineSender,
    }
    return makers[target.kind](target)


def _missing(method: str, client: str, extra: str) -> Unsupported:
    return Unsupported(f"pushMethod.dbMethod.{method} needs {client}: pip install 'edgehive[{extra}]'")


def _address(method: str, text: str, port: int) -> tuple[str, int]:
    try:
        parts = urlsplit(f"//{text}")
        found = parts.hostname, parts.port or port
    except ValueError as exc:
        raise Unsupported(f"pushMethod.dbMethod.{method}.addr {text[:80]!r} is not host:port") from exc
    if not found[0]:
        raise Unsupported(f"pushMethod.dbMethod.{method} has no addr")
    return found[0], found[1]


class InfluxSender:
    """InfluxDB 2; a point with the property's value in the field `fieldKey`, by default the property's name."""

    def __init__(self, target: PushTarget) -> None:
        try:
            from influxdb_client.client.influxdb_client_async import InfluxDBClientAsync
        except ImportError as exc:
            raise _missing("influxdb2", "influxdb-client", "mapper-influxdb") from exc
        config = target.options.get("influxdb2ClientConfig", {})
        if not config.get("url") or not config.get("bucket"):
            raise Unsupported("pushMethod.dbMethod.influxdb2 needs a url and a bucket")
        self._config = config
        self._data = target.options.get("influxdb2DataConfig", {})
        self._make = InfluxDBClientAsync
        self._client: InfluxDBClientAsync | None = None

    def point(self, reading: Reading) -> "Point":
        """The value as a point."""
        from influxdb_client import Point, WritePrecision

        point = Point(self._data.get("measurement") or "devices")
        for name, value in sorted(self._data.get("tag", {}).items()):
            if name and value:
                point.tag(name, value)
        value = reading.text if isinstance(reading.value, bytes) else reading.value
        point.field(self._data.get("fieldKey") or reading.prop.name, value)
        return point.time(int(reading.at * 1000), WritePrecision.MS)

    async def send(self, reading: Reading) -> None:
        import aiohttp
        from influxdb_client.rest import ApiException

        try:
            if self._client is None:
                self._client = self._make(
                    self._config["url"],
                    token=os.environ.get("TOKEN", ""),
                    org=self._config.get("org", ""),
                    timeout=_SECONDS * 1000,
                )
            await self._client.write_api().write(self._config["bucket"], record=self.point(reading))
        except ApiException as exc:
            text = f"InfluxDB answers {exc.status}: {exc.message or exc.reason}"[:300]
            if exc.status is None or exc.status >= 500 or exc.status == 429:
                raise Unreachable(text) from exc
            raise EdgehiveError(text) from exc
        except (aiohttp.ClientError, OSError, TimeoutError) as exc:
            raise Unreachable(f"InfluxDB: {type(exc).__name__}: {exc}") from exc
        except ValueError as exc:
            raise EdgehiveError(f"InfluxDB: {exc}") from exc

    async def close(self) -> None:
        """Disconnect."""
        client, self._client = self._client, None
        if client is not None:
            await client.close()


class RedisSender:
    """A sorted set under the device's name, scored by time; members are mapper-framework's DataModel in JSON."""

    def __init__(self, target: PushTarget) -> None:
        try:
            import redis.asyncio
            import redis.exceptions
            from redis.asyncio.retry import Retry
            from redis.backoff import NoBackoff
        except ImportError as exc:
            raise _missing("redis", "redis", "mapper-redis") from exc
        config = target.options.get("redisClientConfig", {})
        host, port = _address("redis", str(config.get("addr", "")), 6379)
        self._errors = redis.exceptions
        self._client = redis.asyncio.Redis(
            host=host,
            port=port,
            db=int(config.get("db", 0)),
            password=os.environ.get("PASSWORD") or None,
            socket_timeout=_SECONDS,
            socket_connect_timeout=_SECONDS,
            retry=Retry(NoBackoff(), 0),  # the receiver tries again
            max_connections=int(config.get("poolsize", 0)) or None,
        )

    async def send(self, reading: Reading) -> None:
        member = json.dumps(json_model(reading))
        await self._do(lambda c: c.zadd(reading.device.name, {member: int(reading.at * 1000)}))

    async def history(self, device: Device, prop: str, limit: int) -> list[dict[str, Any]]:
        """The newest values; members of other properties and of namesakes elsewhere are passed over."""
        members = await self._do(lambda c: c.zrevrange(device.name, 0, 50 * limit))
        found = []
        for member in members:
            try:
                row = json.loads(member)
            except (ValueError, RecursionError):
                continue
            if isinstance(row, dict) and (row.get("Namespace"), row.get("PropertyName")) == (
                device.namespace,
                prop,
            ):
                found.append(row)
        return found[:limit]

    async def _do(self, command: Callable[[Any], Any]) -> Any:
        try:
            return await command(self._client)
        except self._errors.ResponseError as exc:
            raise EdgehiveError(f"Redis: {exc}") from exc
        except (self._errors.RedisError, OSError) as exc:
            raise Unreachable(f"Redis: {exc}") from exc

    async def close(self) -> None:
        """Disconnect."""
        await self._client.aclose()


class _Blocking:
    """A client that blocks: in a thread, one call at a time."""

    def __init__(self) -> None:
        self._lock = asyncio.Lock()

    async def _in_thread(self, work: Callable[..., T], *arguments: Any) -> T:
        async with self._lock:
            return await asyncio.to_thread(work, *arguments)


class MysqlSender(_Blocking):
    """MySQL and MariaDB: a table ``<namespace>/<device>/<property>`` (id, ts, field) for each property; UTC."""

    def __init__(self, target: PushTarget) -> None:
        super().__init__()
        try:
            import pymysql
        except ImportError as exc:
            raise _missing("mysql", "pymysql", "mapper-mysql") from exc
        config = target.options.get("mysqlClientConfig", {})
        self._where = _address("mysql", str(config.get("addr", "")), 3306)
        self._user = str(config.get("userName", "")) or "root"
        self._database = str(config.get("database", ""))
        if not self._database:
            raise Unsupported("pushMethod.dbMethod.mysql has no database")
        self._mysql = pymysql
        self._connection: Connection[Any] | None = None
        self._made: set[str] = set()

    async def send(self, reading: Reading) -> None:
        await self._in_thread(self._guarded, self._insert, reading)

    async def history(self, device: Device, prop: str, limit: int) -> list[dict[str, Any]]:
        """The newest values."""
        rows = await self._in_thread(self._guarded, self._select, _table(device, prop), limit)
        return [
            data_model(device, prop, str(field), "string", int(ts.replace(tzinfo=UTC).timestamp() * 1000))
            for ts, field in rows
        ]

    async def close(self) -> None:
        """Disconnect."""
        await self._in_thread(self._drop)

    def _guarded(self, work: Callable[..., T], *arguments: Any) -> T:
        errors = self._mysql.err
        try:
            return work(*arguments)
        except (errors.OperationalError, errors.InterfaceError, OSError) as exc:
            self._drop()
            raise Unreachable(f"MySQL: {exc}") from exc
        except errors.MySQLError as exc:
            raise EdgehiveError(f"MySQL: {exc}") from exc

    def _cursor(self) -> Any:
        if self._connection is None:
            host, port = self._where
            self._connection = self._mysql.connect(
                host=host,
                port=port,
                user=self._user,
                password=os.environ.get("PASSWORD", ""),
                database=self._database,
                charset="utf8mb4",
                autocommit=True,
                connect_timeout=_SECONDS,
                read_timeout=_SECONDS,
                write_timeout=_SECONDS,
            )
        return self._connection.cursor()

    def _insert(self, reading: Reading) -> None:
        table = _table(reading.device, reading.prop.name)
        with self._cursor() as cursor:
            if table not in self._made:
                cursor.execute(
                    f"CREATE TABLE IF NOT EXISTS {table} "
                    "(id INT AUTO_INCREMENT PRIMARY KEY, ts DATETIME(3) NOT NULL, field TEXT)"
                )
                self._made.add(table)
            at = datetime.fromtimestamp(reading.at, UTC).strftime(_HISTORY)
            statement = f"INSERT INTO {table.replace('%', '%%')} (ts, field) VALUES (%s, %s)"  # noqa: S608 - _table quotes
            cursor.execute(statement, (at, reading.text))

    def _select(self, table: str, limit: int) -> list[tuple[datetime, str]]:
        with self._cursor() as cursor:
            statement = f"SELECT ts, field FROM {table.replace('%', '%%')} ORDER BY id DESC LIMIT %s"  # noqa: S608
            cursor.execute(statement, (limit,))
            return list(cursor.fetchall())

    def _drop(self) -> None:
        connection, self._connection = self._connection, None
        self._made.clear()
        if connection is not None and connection.open:
            try:
                connection.close()
            except (self._mysql.err.MySQLError, OSError):
                return


class TdengineSender(_Blocking):
    """TDengine over its REST interface: a super table for each device, a table in it for each property."""

    def __init__(self, target: PushTarget) -> None:
        super().__init__()
        try:
            import taosrest
        except ImportError as exc:
            raise _missing("TDengine", "taospy", "mapper-tdengine") from exc
        config = target.options.get("tdEngineClientConfig", {})
        host, port = _address("TDengine", str(config.get("addr", "")), 6041)
        self._errors = (taosrest.errors.Error, taosrest.errors.HTTPError)
        self._connection: TaosRestConnection = taosrest.connect(
            url=f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}",
            user=os.environ.get("USERNAME") or "root",
            password=os.environ.get("PASSWORD") or "taosdata",
            database=str(config.get("dbname", "")) or None,
            timeout=_SECONDS,
            timezone="UTC",
        )
        self._made: set[str] = set()

    async def send(self, reading: Reading) -> None:
        await self._in_thread(self._insert, reading)

    async def history(self, device: Device, prop: str, limit: int) -> list[dict[str, Any]]:
        """The newest values."""
        statement = f"SELECT ts, data, type FROM {_table(device, prop)} ORDER BY ts DESC LIMIT {limit:d}"  # noqa: S608
        result = await self._in_thread(self._ask, statement)
        return [
            data_model(device, prop, str(text), str(kind), int(ts.timestamp() * 1000))
            for ts, text, kind in result["data"]
        ]

    async def close(self) -> None:
        """Nothing is kept."""

    def _insert(self, reading: Reading) -> None:
        family = _quoted(reading.device.id)
        if family not in self._made:
            self._ask(
                f"CREATE STABLE IF NOT EXISTS {family} (ts TIMESTAMP, deviceid BINARY(256), "
                "propertyname BINARY(256), data BINARY(2048), type BINARY(64)) TAGS (location BINARY(256))"
            )
            self._made.add(family)
        name = reading.prop.name
        values = ", ".join(map(_text, (reading.device.id, name, reading.text, reading.prop.type.lower())))
        self._ask(
            f"INSERT INTO {_table(reading.device, name)} USING {family} TAGS ({_text(name)}) "  # noqa: S608
            f"VALUES ({int(reading.at * 1000)}, {values})"
        )

    def _ask(self, statement: str) -> dict[str, Any]:
        import requests

        try:
            result = self._connection.query(statement)
        except requests.RequestException as exc:
            raise Unreachable(f"TDengine: {exc}") from exc
        except self._errors as exc:
            if getattr(exc, "status_code", 0) >= 500:
                raise Unreachable(f"TDengine: {exc}") from exc
            raise EdgehiveError(f"TDengine: {exc}") from exc
        except (ValueError, KeyError, TypeError) as exc:
            raise EdgehiveError(f"TDengine does not answer as it should: {exc}") from exc
        return {"data": result.data}


def _quoted(name: str) -> str:
    """An identifier of SQL, whatever characters it has."""
    return "`" + name.replace("`", "``") + "`"


def _text(value: str) -> str:
    """A string of TDengine's SQL."""
    return "'" + value.replace("\\", "\\\\").replace("'", "\\'") + "'"


def _table(device: Device, prop: str) -> str:
    return _quoted(f"{device.id}/{prop}")
