"""A cloud for the edge's tests: real TLS, real WebSocket (the `websockets` library), real certificates."""

import asyncio
import datetime
import json
import ssl
import time
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from websockets.asyncio.server import Server, ServerConnection, serve
from websockets.exceptions import ConnectionClosed

from edgehive.aio import pki
from edgehive.aio.http import HttpServer, Request, Response
from edgehive.edge.app import new_id
from edgehive.edge.config import EdgeCoreConfig
from edgehive.edge.config_load import parse_config
from edgehive.wire.held import HOLDINGS_HEADER
from edgehive.wire.message import Message, decode_message, encode_message
from edgehive.wire.token import check_authorization, make_token

NODE = "edge-1"


def wrapped(obj: Any, error: dict[str, Any] | None = None) -> bytes:
    """An ObjectResp."""
    return json.dumps({"Object": obj, "Err": {"ErrStatus": error} if error else None}).encode()


def error(code: int, reason: str, message: str = "no") -> dict[str, Any]:
    """A metav1.Status."""
    return {"metadata": {}, "status": "Failure", "message": message, "reason": reason, "code": code}


class FakeCloud:
    """Accepts edges, records what they send, answers what KubeEdge's cloudcore would answer."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.now = datetime.datetime.now(datetime.UTC)
        self.ca = pki.create_ca("KubeEdge", self.now)
        self.server_pair = pki.issue(
            self.ca,
            common_name="KubeEdge",
            organizations=["KubeEdge"],
            now=self.now,
            server=True,
            addresses=["127.0.0.1"],
        )
        self.received: list[Message] = []
        self.connections: list[ServerConnection] = []
        self.answers: list[Callable[[Message], bytes | None]] = []
        self.objects: dict[str, dict[str, Any]] = {}
        self.version = 100
        self.silent = False
        self.wants_holdings = False
        self.port = 0
        self.https_port = 0
        self.issued = 0
        self._changed = asyncio.Condition()
        self._server: Server | None = None
        directory.mkdir(exist_ok=True)
        (directory / "ca.pem").write_bytes(self.ca.cert_pem)
        (directory / "server.pem").write_bytes(self.server_pair.cert_pem + self.server_pair.key_pem)

    # certificates

    def token(self, *, expires: float | None = None) -> str:
        return make_token(
            ca_der=self.ca.cert_der,
            ca_key_der=self.ca.key_der,
            expires=int(expires or time.time() + 3600),
        )

    def install(self, config: EdgeCoreConfig, *, node: str = NODE, days: int = 365) -> None:
        """Put a valid identity where `config` expects it."""
        pair = pki.issue(
            self.ca,
            common_name=f"system:node:{node}",
            organizations=["system:nodes"],
            now=self.now,
            client=True,
            days=days,
        )
        hub = config.modules.edge_hub
        for path, data in (
            (hub.tls_ca_file, self.ca.cert_pem),
            (hub.tls_cert_file, pair.cert_pem),
            (hub.tls_private_key_file, pair.key_pem),
        ):
            Path(path).parent.mkdir(parents=True, exist_ok=True)
            Path(path).write_bytes(data)

    def config(self, modules: dict[str, Any] | None = None, **more: Any) -> EdgeCoreConfig:
        """An edgecore.yaml that points here; `modules` in place of what is off by default."""
        home = self.directory / "edge"
        data: dict[str, Any] = {
            "database": {"dataSource": str(home / "edgecore.db")},
            "modules": {
                "edgeHub": {
                    "httpServer": f"https://127.0.0.1:{self.https_port}",
                    "tlsCaFile": str(home / "ca/rootCA.crt"),
                    "tlsCertFile": str(home / "certs/server.crt"),
                    "tlsPrivateKeyFile": str(home / "certs/server.key"),
                    "websocket": {"server": f"127.0.0.1:{self.port or 1}"},
                    **more,
                },
                "edged": {
                    "hostnameOverride": NODE,
                    "rootDirectory": str(home / "root"),
                    "tailoredKubeletConfig": {"containerRuntimeEndpoint": "process://", "readOnlyPort": 0},
                },
                "deviceTwin": {"enable": False},
                "eventBus": {"enable": False},
                **(modules or {}),
            },
        }
        return parse_config(json.dumps(data)).config

    # HTTPS

    async def handle_https(self, request: Request) -> Response:
        if request.path == "/ca.crt":
            return Response(200, self.ca.cert_der)
        if request.path != "/edge.crt":
            return Response(404, b"404: Page Not Found")
        if request.peer_cert is None:
            try:
                check_authorization(
                    request.headers.get("authorization"), ca_key_der=self.ca.key_der, now=time.time()
                )
            except Exception as exc:
                return Response(401, str(exc).encode())
        csr = pki.parse_csr(await request.body())
        certificate = pki.sign_public_key(
            self.ca,
            csr.public_key,
            common_name=csr.common_name,
            organizations=csr.organizations,
            now=datetime.datetime.now(datetime.UTC),
            server=False,
            client=True,
        )
        self.issued += 1
        return Response(200, certificate.public_bytes(pki.serialization.Encoding.DER))

    def https_context(self) -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(self.directory / "server.pem")
        context.load_verify_locations(self.directory / "ca.pem")
        context.verify_mode = ssl.CERT_OPTIONAL
        return context

    # WebSocket

    async def start(self) -> None:
        context = self.https_context()
        context.verify_mode = ssl.CERT_REQUIRED
        self._server = await serve(
            self._serve,
            "127.0.0.1",
            self.port or None,
            ssl=context,
            compression=None,
            ping_interval=None,
            max_size=None,
            close_timeout=0.2,
            process_response=self._invite,
        )
        self.port = self._server.sockets[0].getsockname()[1]

    async def stop(self) -> None:
        if self._server is not None:
            for connection in self.connections:
                connection.transport.abort()
            self._server.close()
            await self._server.wait_closed()
            self._server = None

    def cut(self) -> None:
        """Drop the newest connection as a Go cloud does: without a close frame."""
        self.connections[-1].transport.abort()

    def _invite(self, _connection: Any, request: Any, response: Any) -> None:
        assert request.headers[HOLDINGS_HEADER] == "1"
        if self.wants_holdings:
            response.headers[HOLDINGS_HEADER] = "1"

    async def _serve(self, connection: ServerConnection) -> None:
        assert connection.request is not None
        assert connection.request.path.endswith(f"/{connection.request.headers['Node_id']}/events")
        assert connection.request.headers["Connectionuse"] == "msg"
        assert "Origin" not in connection.request.headers
        self.connections.append(connection)
        await self._notify()
        with suppress(ConnectionClosed):
            async for data in connection:
                assert isinstance(data, str), "the edge sends TEXT"
                message = decode_message(data.encode())
                self.received.append(message)
                content = None if self.silent else self._answer(message)
                if content is not None:
                    await connection.send(
                        encode_message(
                            Message(
                                id=new_id(),
                                timestamp=int(time.time() * 1000),
                                operation="response",
                                resource=message.resource,
                                content=content,
                                parent_id=message.id,
                                source="edgecontroller",
                                group="resource",
                            )
                        ).decode()
                    )
                await self._notify()

    def _answer(self, message: Message) -> bytes | None:
        for answer in self.answers:
            content = answer(message)
            if content is not None:
                return content
        return self._kubeedge(message) if message.group == "meta" else None

    def _kubeedge(self, message: Message) -> bytes | None:
        parts = message.resource.split("/")
        scope, kind, name = parts if len(parts) == 3 else (*parts, "")
        key = f"{scope}/{kind}/{name}"
        self.version += 1
        if kind in ("node", "lease") and message.operation in ("insert", "update"):
            obj = json.loads(message.content)
            if message.operation == "insert" and key in self.objects:
                return wrapped({}, error(409, "AlreadyExists"))
            if message.operation == "update" and key not in self.objects:
                return wrapped(None, error(404, "NotFound"))
            obj["metadata"] |= {
                "resourceVersion": str(self.version),
                "uid": obj["metadata"].get("uid") or new_id(),
            }
            self.objects[key] = obj
            return wrapped(obj)
        if message.operation == "query":
            obj = self.objects.get(key)
            if kind == "lease":
                return wrapped(obj, None if obj else error(404, "NotFound"))
            return json.dumps(obj or {"ErrStatus": error(404, "NotFound")}).encode()
        if kind in ("nodepatch", "podpatch"):
            target = self.objects.get(f"{scope}/{kind.removesuffix('patch')}/{name}")
            if target is None:
                return wrapped(None, error(404, "NotFound"))
            _merge(target, json.loads(json.loads(message.content)))
            target["metadata"]["resourceVersion"] = str(self.version)
            return wrapped(target)
        if kind == "pod" and message.operation == "delete":
            return b'"OK"'
        return None

    async def push(
        self, operation: str, resource: str, content: Any, *, version: int | None = None, **more: str
    ) -> str:
        """Send one message to the edge; return its id."""
        message = Message(
            id=more.pop("id", new_id()),
            timestamp=int(time.time() * 1000),
            operation=operation,
            resource=resource,
            content=json.dumps(content).encode(),
            resource_version=str(version) if version else "",
            source=more.pop("source", "edgecontroller"),
            group=more.pop("group", "resource"),
            parent_id=more.pop("parent_id", ""),
        )
        await self.connections[-1].send(encode_message(message).decode())
        return message.id

    # waiting

    async def _notify(self) -> None:
        async with self._changed:
            self._changed.notify_all()

    async def until(self, met: Callable[[], Any], timeout: float = 10.0) -> Any:
        """Wait until `met` returns something true, and return that."""
        async with asyncio.timeout(timeout), self._changed:
            await self._changed.wait_for(met)
        return met()

    def find(self, operation: str, resource: str) -> list[Message]:
        return [m for m in self.received if (m.operation, m.resource) == (operation, resource)]

    async def message(self, operation: str, resource: str, count: int = 1) -> Message:
        """The `count`-th message of that kind, waiting for it."""
        await self.until(lambda: len(self.find(operation, resource)) >= count)
        return self.find(operation, resource)[count - 1]

    async def ack_of(self, message_id: str) -> Message:
        """The answer to a message that was pushed."""
        await self.until(lambda: [m for m in self.received if m.parent_id == message_id])
        return next(m for m in self.received if m.parent_id == message_id)


def _merge(target: dict[str, Any], patch: dict[str, Any]) -> None:
    for key, value in patch.items():
        if key.startswith("$"):
            continue
        if isinstance(value, dict) and isinstance(target.get(key), dict):
            _merge(target[key], value)
        elif key == "conditions":
            known = {c["type"]: c for c in target.get(key) or []}
            for condition in value:
                known.setdefault(condition["type"], {}).update(condition)
            target[key] = list(known.values())
        elif isinstance(value, list):
            target[key] = [v for v in value if not (isinstance(v, dict) and "$patch" in v)]
        else:
            target[key] = value


@pytest.fixture
async def cloud(tmp_path: Path) -> AsyncIterator[FakeCloud]:
    """A cloud that listens for edges."""
    fake = FakeCloud(tmp_path / "cloud")
    await fake.start()
    yield fake
    await fake.stop()


@pytest.fixture
async def https_cloud(cloud: FakeCloud) -> AsyncIterator[FakeCloud]:
    """The same with its enrolment port open."""
    server = HttpServer(cloud.handle_https, name="enrol", tls=cloud.https_context(), drain_timeout=0.1)
    cloud.https_port = await server.listen("127.0.0.1", 0)
    async with asyncio.TaskGroup() as group:
        task = group.create_task(server.run())
        yield cloud
        task.cancel()


@pytest.fixture
def config(cloud: Any) -> EdgeCoreConfig:
    """The configuration of an edge that has its certificate."""
    made: EdgeCoreConfig = cloud.config()
    cloud.install(made)
    return made
