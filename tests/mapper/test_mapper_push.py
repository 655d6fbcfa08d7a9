"""Push methods against real servers where Debian has one (mosquitto, Redis, MariaDB), and else against the protocol.

InfluxDB 2, TDengine and an OpenTelemetry collector are played by HTTP servers that check what their documented
interfaces ask for; OTLP is decoded by OpenTelemetry's own protobuf classes.
"""

import argparse
import asyncio
import base64
import contextlib
import json
import re
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address

import aiohttp
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from edgehive.aio import dmi_messages as dmi
from edgehive.aio.http import HttpServer, Response
from edgehive.aio.tls import trusting
from edgehive.kit.errors import EdgehiveError, Unreachable, UserError
from edgehive.mapper.config import add_arguments, read_arguments
from edgehive.mapper.model import Device, Property, PushTarget
from edgehive.mapper.push import PushHub
from edgehive.mapper.push_clients import Unsupported, make_sender
from edgehive.mapper.rest import RestApi
from edgehive.mapper.virtual import VirtualDriver
from edgehive.mapper.worker import Reading
from tests.mapper.test_mapper_sdk import device, mapper
from tests.support import servers

DEVICE = Device("default", "d-1")
PROP = Property("temp", type="FLOAT", unit="C", description="room")
AT = 1_700_000_000.5


def reading(value, at=AT, prop=PROP, target=None):
    if target is not None:
        prop = Property(prop.name, type=prop.type, push=(target,))
    return Reading(DEVICE, prop, value, at)


@contextlib.asynccontextmanager
async def sender(kind, options):
    async with aiohttp.ClientSession() as session:
        made = make_sender(PushTarget(kind, options), session)
        try:
            yield made
        finally:
            await made.close()


@contextlib.asynccontextmanager
async def running(*coroutines):
    tasks = [asyncio.get_running_loop().create_task(c) for c in coroutines]
    try:
        yield
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)


@contextlib.asynccontextmanager
async def http_server(answer):
    server = HttpServer(answer, name="receiver")
    port = await server.listen("127.0.0.1", 0)
    async with running(server.run()):
        yield port


@pytest.mark.real
async def test_redis_keeps_values_by_time_and_gives_them_back(tmp_path, monkeypatch):
    pytest.importorskip("redis")
    monkeypatch.setenv("PASSWORD", "s3cret")
    with servers.redis(tmp_path, password="s3cret") as port:
        options = {"redisClientConfig": {"addr": f"127.0.0.1:{port}", "db": 2, "poolsize": 3}}
        async with sender("redis", options) as made:
            for n in range(3):
                await made.send(reading(20.5 + n, AT + n))
            await made.send(reading(1.0, AT + 9, Property("other", type="FLOAT")))
            rows = await made.history(DEVICE, "temp", 2)
        assert [(row["Value"], row["TimeStamp"]) for row in rows] == [
            ("22.5", 1700000002500),
            ("21.5", 1700000001500),
        ]
        assert rows[0]["DeviceName"] == "d-1"
        monkeypatch.setenv("PASSWORD", "wrong")
        async with sender("redis", options) as made:
            with pytest.raises(Unreachable, match="Redis"):
                await made.send(reading(1.0))
    async with sender("redis", options) as made:
        with pytest.raises(Unreachable, match="Redis"):
            await made.send(reading(1.0))


@pytest.mark.real
@pytest.mark.timeout(90)
async def test_mysql_gets_a_table_for_each_property_whatever_its_name(tmp_path, monkeypatch):
    pytest.importorskip("pymysql")
    monkeypatch.setenv("PASSWORD", "s3cret")
    with servers.mariadb(tmp_path, database="things", user="edge", password="s3cret") as port:
        client = {"addr": f"127.0.0.1:{port}", "database": "things", "userName": "edge"}
        odd = Property("a`; DROP DATABASE things; -- 100%s")
        async with sender("mysql", {"mysqlClientConfig": client}) as made:
            for n in range(3):
                await made.send(reading(20.5 + n, AT + n))
            await made.send(reading('it\'s "quoted" %s', AT, odd))
            rows = await made.history(DEVICE, "temp", 2)
            assert [(row["Value"], row["TimeStamp"]) for row in rows] == [
                ("22.5", 1700000002500),
                ("21.5", 1700000001500),
            ]
            assert [row["Value"] for row in await made.history(DEVICE, odd.name, 5)] == ['it\'s "quoted" %s']
            with pytest.raises(EdgehiveError, match="MySQL") as caught:  # a name MySQL has no room for
                await made.send(reading(1.0, AT, Property("x" * 100)))
            assert not isinstance(caught.value, Unreachable)
            await made.send(reading(1.0))
        import pymysql

        with (
            contextlib.closing(
                pymysql.connect(
                    host="127.0.0.1", port=port, user="edge", password="s3cret", database="things"
                )
            ) as connection,
            connection.cursor() as cursor,
        ):
            cursor.execute("SHOW TABLES LIKE 'default/d-1/temp'")
            assert cursor.fetchall() == (("default/d-1/temp",),)
        monkeypatch.setenv("PASSWORD", "wrong")
        async with sender("mysql", {"mysqlClientConfig": client}) as made:
            with pytest.raises(Unreachable, match="denied"):
                await made.send(reading(1.0))
    async with sender("mysql", {"mysqlClientConfig": client}) as made:
        with pytest.raises(Unreachable, match="MySQL"):
            await made.send(reading(1.0))


async def test_influxdb_gets_points_in_its_line_protocol(monkeypatch):
    pytest.importorskip("influxdb_client")
    monkeypatch.setenv("TOKEN", "t0ken")
    seen, status = [], 204

    async def answer(request):
        seen.append((request.method, request.path, request.query, request.headers.get("authorization")))
        seen.append((await request.body()).decode())
        body = b"" if status == 204 else b'{"code":"invalid","message":"no"}'
        return Response(status, body, {"content-type": "application/json"})

    async with http_server(answer) as port:
        options = {
            "influxdb2ClientConfig": {"url": f"http://127.0.0.1:{port}", "org": "o", "bucket": "b"},
            "influxdb2DataConfig": {"measurement": "my room", "tag": {"a": "x,y"}, "fieldKey": "f"},
        }
        async with sender("influxdb2", options) as made:
            await made.send(reading(21.5))
            assert seen[0][:2] == ("POST", "/api/v2/write")
            assert seen[0][2] == {"org": ["o"], "bucket": ["b"], "precision": ["ms"]}
            assert seen[0][3] == "Token t0ken"
            assert seen[1] == "my\\ room,a=x\\,y f=21.5 1700000000500"
            await made.send(reading('say "hi"'))
            assert seen[3] == 'my\\ room,a=x\\,y f="say \\"hi\\"" 1700000000500'
            status = 422
            with pytest.raises(EdgehiveError, match="422") as caught:
                await made.send(reading(1.0))
            assert not isinstance(caught.value, Unreachable)
            status = 503
            with pytest.raises(Unreachable, match="503"):
                await made.send(reading(1.0))
    async with sender("influxdb2", options) as made:
        with pytest.raises(Unreachable):
            await made.send(reading(1.0))


async def test_tdengine_gets_a_super_table_for_each_device(monkeypatch):
    pytest.importorskip("taosrest")
    monkeypatch.setenv("USERNAME", "edge")
    monkeypatch.setenv("PASSWORD", "s3cret")
    said, rows, code = [], [], 0

    async def answer(request):
        assert (request.method, request.path) == ("POST", "/rest/sql/things")
        assert base64.b64decode(request.headers["authorization"].removeprefix("Basic ")) == b"edge:s3cret"
        statement = (await request.body()).decode()
        said.append(statement)
        meta, data = [["affected_rows", "INT", 4]], [[1]]
        if statement.startswith("SELECT"):
            meta = [["ts", "TIMESTAMP", 8], ["data", "VARCHAR", 64], ["type", "VARCHAR", 64]]
            data = rows
        body = {"code": code, "desc": "no", "column_meta": meta, "data": data, "rows": len(data)}
        return Response(200, json.dumps(body).encode(), {"content-type": "application/json"})

    async with http_server(answer) as port:
        options = {"tdEngineClientConfig": {"addr": f"127.0.0.1:{port}", "dbname": "things"}}
        async with sender("tdengine", options) as made:
            await made.send(reading(21.5))
            await made.send(reading("it's \\ so", AT + 1, Property("o`dd")))
            assert re.fullmatch(
                r"CREATE STABLE IF NOT EXISTS `default/d-1` \(ts TIMESTAMP, .*\) TAGS .*", said[0]
            )
            assert said[1] == (
                "INSERT INTO `default/d-1/temp` USING `default/d-1` TAGS ('temp') "
                "VALUES (1700000000500, 'default/d-1', 'temp', '21.5', 'float')"
            )
            assert len(said) == 3
            assert "`default/d-1/o``dd`" in said[2]
            assert r"'it\'s \\ so'" in said[2]
            rows.append(["2023-11-14T22:13:20.500Z", "21.5", "float"])
            (row,) = await made.history(DEVICE, "temp", 5)
            assert (row["Value"], row["Type"], row["TimeStamp"]) == ("21.5", "float", 1700000000500)
            code = 9826
            with pytest.raises(EdgehiveError, match="TDengine") as caught:
                await made.send(reading(1.0))
            assert not isinstance(caught.value, Unreachable)
    async with sender("tdengine", options) as made:
        with pytest.raises(Unreachable):
            await made.send(reading(1.0))


async def test_a_collector_gets_gauges_of_the_device():
    pytest.importorskip("opentelemetry.exporter.otlp.proto.http.metric_exporter")
    from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest

    seen, status = [], 200

    async def answer(request):
        assert (request.path, request.headers["content-type"]) == ("/v1/metrics", "application/x-protobuf")
        seen.append(ExportMetricsServiceRequest.FromString(await request.body()))
        return Response(status, b"", {"content-type": "application/x-protobuf"})

    async with (
        http_server(answer) as port,
        sender("otel", {"endpointURL": f"http://127.0.0.1:{port}/v1/metrics"}) as made,
    ):
        await made.send(reading(21.5))
        await made.send(reading(True))
        with pytest.raises(EdgehiveError, match="no number"):
            await made.send(reading("warm"))
        status = 400
        with pytest.raises(Unreachable):
            await made.send(reading(1.0))
    (resource,) = seen[0].resource_metrics
    assert {a.key: a.value.string_value for a in resource.resource.attributes}["device.id"] == "default/d-1"
    (metric,) = resource.scope_metrics[0].metrics
    assert (metric.name, metric.unit) == ("temp", "C")
    (point,) = metric.gauge.data_points
    assert (point.as_double, point.time_unix_nano) == (21.5, 1_700_000_000_500_000_000)
    (again,) = seen[1].resource_metrics[0].scope_metrics[0].metrics[0].gauge.data_points
    assert again.as_int == 1


@pytest.mark.parametrize(
    ("kind", "options"),
    [
        ("http", {}),
        ("mqtt", {"topic": "t"}),
        ("mqtt", {"address": "x"}),
        ("influxdb2", {}),
        ("redis", {}),
        ("redis", {"redisClientConfig": {"addr": "h:port"}}),
        ("mysql", {"mysqlClientConfig": {"addr": "h"}}),
        ("tdengine", {"tdEngineClientConfig": {}}),
        ("otel", {"endpointURL": "grpc://x"}),
        ("fax", {}),
    ],
)
async def test_a_method_that_is_not_fully_described_says_what_is_missing(kind, options):
    with pytest.raises(Unsupported):
        async with sender(kind, options):
            pass


async def test_a_receiver_that_is_away_costs_only_its_own_oldest_values():
    got, gone = asyncio.Queue(), asyncio.Event()

    async def answer(request):
        if request.path == "/dead":
            gone.set()
            return Response(503, b"", {})
        await got.put((await request.body()).decode())
        return Response(200, b"", {})

    async with http_server(answer) as port:

        def target(path):
            return PushTarget("http", {"hostname": "127.0.0.1", "port": port, "requestpath": path})

        hub = PushHub()
        async with running(hub.run()):
            await asyncio.sleep(0)
            hub.push(reading(0, target=target("/dead")))
            await gone.wait()
            for n in range(300):
                hub.push(reading(n, target=target("/dead")))
            for n in range(3):
                hub.push(reading(n, target=target("/live")))
                async with asyncio.timeout(5):
                    assert (await got.get()).startswith(f"temp={n}")
            sent, failed, dropped = hub.counts()["http"]
            assert (sent >= 2, failed >= 1, dropped) == (True, True, 301 - 256)


@pytest.mark.real
async def test_the_rest_api_gives_what_a_database_was_sent(tmp_path, monkeypatch):
    pytest.importorskip("redis")
    monkeypatch.setenv("PASSWORD", "s3cret")
    with servers.redis(tmp_path, password="s3cret") as port:
        push = {"dbMethod": {"redis": {"redisClientConfig": {"addr": f"127.0.0.1:{port}"}}}}
        push["anomalyDetection"] = {"data": dmi.pack({"threshold": 3})}
        hub = PushHub()
        pushing, plain = device("v", desired="42", push=push), device("w")
        async with (
            running(hub.run()),
            mapper(tmp_path, VirtualDriver, pushing, plain, pusher=hub) as (edgecore, service),
            http_server(RestApi(service, pushes=hub).handle) as rest,
            aiohttp.ClientSession(f"http://127.0.0.1:{rest}") as client,
        ):

            async def get(path):
                async with client.get(path) as answer:
                    return answer.status, await answer.text()

            async with asyncio.timeout(10):
                while '"42"' not in (await get("/api/v1/database/default/v"))[1]:
                    await asyncio.sleep(0.05)
            status, text = await get("/api/v1/database/default/v")
            row = json.loads(text)["Data"][0]
            assert (status, row["DeviceName"], row["PropertyName"], row["Value"]) == (200, "v", "level", "42")
            assert (await get("/api/v1/database/default/w"))[0] == 503
            assert (await get("/api/v1/database/default/nobody"))[0] == 404
            metrics = (await get("/metrics"))[1]
            assert 'mapper_pushes_total{method="redis",result="sent"}' in metrics
            assert service.worker("default", "v").device.properties["level"].anomaly == {"threshold": 3}


async def test_the_rest_api_asks_its_clients_for_a_certificate_if_told_to(tmp_path):
    authority = certificate(tmp_path, "ca", None)
    certificate(tmp_path, "server", authority)
    certificate(tmp_path, "client", authority)
    options = ["--tls-cert-file", str(tmp_path / "server.crt"), "--tls-private-key-file"]
    options += [str(tmp_path / "server.key"), "--tls-ca-file", str(tmp_path / "ca.crt")]
    parser = argparse.ArgumentParser()
    add_arguments(parser)
    config = read_arguments(parser, options, protocol="virtual")
    ours = trusting(cafile=str(tmp_path / "ca.crt"))
    async with mapper(tmp_path, VirtualDriver) as (_, service):
        server = HttpServer(RestApi(service).handle, name="rest", tls=config.tls())
        port = await server.listen("127.0.0.1", 0)
        async with running(server.run()), aiohttp.ClientSession() as client:
            url = f"https://127.0.0.1:{port}/api/v1/ping"
            with pytest.raises(aiohttp.ClientError):
                await client.get(url, ssl=ours)
            ours.load_cert_chain(tmp_path / "client.crt", tmp_path / "client.key")
            async with client.get(url, ssl=ours) as answer:
                assert answer.status == 200
    with pytest.raises(UserError, match="certificate"):
        read_arguments(parser, ["--tls-cert-file", "/nowhere"], protocol="x").tls()


def certificate(directory, name, authority):
    """Write a key and a certificate for 127.0.0.1; without an authority it is one."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    issuer, signer = (subject, key) if authority is None else authority
    now = datetime.now(UTC)
    builder = (
        x509.CertificateBuilder(issuer, subject, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - timedelta(hours=1))
        .not_valid_after(now + timedelta(hours=1))
        .add_extension(x509.BasicConstraints(ca=authority is None, path_length=None), critical=True)
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ip_address("127.0.0.1"))]), critical=False)
    )
    signed = builder.sign(signer, hashes.SHA256())
    (directory / f"{name}.crt").write_bytes(signed.public_bytes(serialization.Encoding.PEM))
    (directory / f"{name}.key").write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
    )
    return subject, key
