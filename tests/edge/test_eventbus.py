"""EventBus in a whole edgecore: the embedded broker, a real mosquitto, uploads that are not lost."""

import asyncio
import contextlib
import json
import logging
import sqlite3
import sys
import tempfile
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiomqtt
import msgspec
import pytest
from websockets.frames import Opcode

from edgehive.aio import pki
from edgehive.edge.app import EdgeCore
from edgehive.edge.config import EdgeCoreConfig, EventBus
from edgehive.edge.eventbus_config import settings_of
from edgehive.kit.errors import UserError
from edgehive.wire.message import Message
from tests.support.mqtt import HAVE_MOSQUITTO, free_port, mosquitto, mosquitto_pub, mosquitto_sub

pytestmark = [pytest.mark.real, pytest.mark.skipif(not HAVE_MOSQUITTO, reason="no mosquitto on PATH")]

DEVICE = "$hw/events/device/default/sensor1"


@pytest.fixture(autouse=True)
def _short_paths(cloud: Any) -> Iterator[None]:
    """A place whose path is short enough for sockets."""
    with tempfile.TemporaryDirectory(prefix="bus-", dir="/tmp") as directory:
        cloud.sockets = directory
        yield


def with_bus(cloud: Any, *, http: int = 0, **keys: Any) -> EdgeCoreConfig:
    """The configuration of an edge with MQTT and twin; its identity is installed."""
    config: EdgeCoreConfig = cloud.config(
        modules={
            "eventBus": {"enable": True, **keys},
            "deviceTwin": {"enable": True, "dmiSockPath": cloud.sockets},
        }
    )
    cloud.install(config)
    if not http:
        return config
    modules = config.modules
    kubelet = msgspec.structs.replace(modules.edged.tailored_kubelet_config, read_only_port=http)
    edged = msgspec.structs.replace(modules.edged, tailored_kubelet_config=kubelet)
    return msgspec.structs.replace(config, modules=msgspec.structs.replace(modules, edged=edged))


def internal(cloud: Any, port: int, **keys: Any) -> EdgeCoreConfig:
    return with_bus(cloud, mqttMode=0, mqttServerInternal=f"tcp://127.0.0.1:{port}", **keys)


def external(cloud: Any, port: int, **keys: Any) -> EdgeCoreConfig:
    return with_bus(cloud, mqttMode=2, mqttServerExternal=f"tcp://127.0.0.1:{port}", **keys)


@asynccontextmanager
async def edgecore(config: EdgeCoreConfig) -> AsyncIterator[None]:
    ready = asyncio.Event()
    async with asyncio.TaskGroup() as group:
        task = group.create_task(EdgeCore(config, on_ready=lambda _: ready.set()).run())
        try:
            async with asyncio.timeout(20):
                await ready.wait()
            yield
        finally:
            task.cancel()


async def listening(port: int) -> None:
    async with asyncio.timeout(20):
        while True:
            try:
                _, writer = await asyncio.open_connection("127.0.0.1", port)
            except OSError:
                await asyncio.sleep(0.02)
            else:
                writer.close()
                return


async def metrics(port: int) -> dict[str, float]:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(b"GET /metrics HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n")
    async with asyncio.timeout(10):
        text = (await reader.read()).decode()
    writer.close()
    lines = [line.split() for line in text.splitlines() if line.startswith("edgehive_")]
    return {name: float(value) for name, value in lines}


async def eventually(met: Callable[[], Any], timeout: float = 15.0) -> Any:
    async with asyncio.timeout(timeout):
        while not (found := met()):
            await asyncio.sleep(0.02)
    return found


def uploads(cloud: Any, topic: str = "") -> list[Message]:
    found = [m for m in cloud.received if (m.source, m.group, m.operation) == ("bus", "user", "upload")]
    return [m for m in found if not topic or m.resource == topic]


def rows(config: EdgeCoreConfig, table: str) -> list[Any]:
    with contextlib.closing(sqlite3.connect(config.database.data_source)) as db, db:
        found = db.execute(f"SELECT * FROM {table}").fetchall()
    db.close()
    return found


async def test_the_embedded_broker_joins_devices_twin_and_cloud(cloud: Any) -> None:
    port = free_port()
    async with edgecore(internal(cloud, port)):
        await listening(port)
        await cloud.until(lambda: cloud.connections)
        async with mosquitto_sub(port, ["$hw/events/#", "down/#"]) as sub:
            get = "$hw/events/node/edge-1/membership/get"
            await mosquitto_pub(port, get, '{"event_id":"e1","timestamp":1}')
            *_, line = await sub.until(f"{get}/result")
            answer = json.loads(line.split(" ", 1)[1])
            assert (answer["event_id"], answer["devices"]) == ("e1", [])
            await mosquitto_pub(port, f"{DEVICE}/twin/get", '{"event_id":"e12","timestamp":1}')
            *_, line = await sub.until(f"{DEVICE}/twin/get/result")
            assert json.loads(line.split(" ", 1)[1])["code"] == 404
            # from the cloud
            await cloud.push("publish", "down/here", "hello", source="router_eventbus", group="user")
            assert (await sub.until("down/here"))[-1] == "down/here hello"
            inner = {"message": {"topic": "down/inner", "b": 1, "a": [2]}}
            await cloud.push("message", "x", inner, source="router_eventbus", group="user")
            assert (await sub.until("down/inner"))[-1] == 'down/inner {"a":[2],"b":1,"topic":"down/inner"}'
            await cloud.push("get_result", "auth_info", {"k": "v"}, source="router_eventbus", group="user")
            assert (await sub.until("authInfo"))[
                -1
            ] == '$hw/events/node/edge-1/authInfo/get/result {"k": "v"}'
        # to the cloud
        for topic in ("$hw/events/upload/a/b", "SYS/dis/upload_records", "app/user/x"):
            await mosquitto_pub(port, topic, '{"x":1}', "-q", "1")
        await mosquitto_pub(port, "nobody/asked", "no")
        await cloud.until(lambda: len(uploads(cloud)) >= 3)
    assert [m.resource for m in uploads(cloud)] == [
        "$hw/events/upload/a/b",
        "SYS/dis/upload_records",
        "app/user/x",
    ]
    assert {m.content for m in uploads(cloud)} == {b'"{\\"x\\":1}"'}


async def test_a_payload_that_is_no_text_is_uploaded_as_there(cloud: Any) -> None:
    port = free_port()
    async with edgecore(internal(cloud, port)):
        await listening(port)
        async with aiomqtt.Client("127.0.0.1", port) as client:
            await client.publish("a/user/x", b'\xff\x00"\xc3\xa4', qos=1)
        await cloud.until(lambda: uploads(cloud))
    assert json.loads(uploads(cloud)[0].content) == '\ufffd\0"\u00e4'


async def test_topics_of_rules_are_subscribed_kept_and_given_up(cloud: Any) -> None:
    port = free_port()
    config = internal(cloud, port)
    rule: dict[str, Any] = {"source": "router_eventbus", "group": "user"}
    async with edgecore(config):
        await listening(port)
        await cloud.until(lambda: cloud.connections)
        for topic in ("default/test", "other/+", "bad/#/x", ""):
            await cloud.push("subscribe", topic, None, **rule)
        await eventually(lambda: len(rows(config, "sub_topics")) == 2)
        await mosquitto_pub(port, "default/test", "1")
        await cloud.until(lambda: uploads(cloud, "default/test"))
    async with edgecore(config):
        await listening(port)
        await cloud.until(lambda: len(cloud.connections) == 2)
        await mosquitto_pub(port, "other/x", "2")
        await cloud.until(lambda: uploads(cloud, "other/x"))
        await cloud.push("unsubscribe", "other/+", None, **rule)
        await eventually(lambda: rows(config, "sub_topics") == [("default/test",)])
        await mosquitto_pub(port, "other/x", "3")
        await mosquitto_pub(port, "default/test", "4")
        await cloud.until(lambda: len(uploads(cloud, "default/test")) == 2)
        assert len(uploads(cloud, "other/x")) == 1


async def test_uploads_wait_for_the_cloud_in_order_across_restarts(cloud: Any) -> None:
    """R10 of the original: unbounded memory, order lost, nothing kept."""
    port = free_port()
    config = internal(cloud, port)
    await cloud.stop()
    for part in range(2):
        async with edgecore(config):
            await listening(port)
            for number in range(5):
                await mosquitto_pub(port, "a/user/x", f"{part}{number}", "-q", "1")
    assert len(rows(config, "edgehive_uploads")) == 10
    await cloud.start()
    async with edgecore(config):
        await cloud.until(lambda: len(uploads(cloud)) >= 10)
        await eventually(lambda: not rows(config, "edgehive_uploads"))
    wanted = [f'"{part}{number}"'.encode() for part in range(2) for number in range(5)]
    assert [m.content for m in uploads(cloud)] == wanted


async def test_an_upload_that_no_pong_followed_is_sent_again_after_a_cut(cloud: Any) -> None:
    port = free_port()
    config = internal(cloud, port)
    async with edgecore(config):
        await listening(port)
        await cloud.until(lambda: cloud.connections)
        protocol = cloud.connections[-1].protocol
        send = protocol.send_frame
        protocol.send_frame = lambda frame: None if frame.opcode is Opcode.PONG else send(frame)
        await mosquitto_pub(port, "a/user/x", "once", "-q", "1")
        await cloud.until(lambda: uploads(cloud))
        assert len(rows(config, "edgehive_uploads")) == 1
        cloud.cut()
        await cloud.until(lambda: len(uploads(cloud)) == 2)
        await eventually(lambda: not rows(config, "edgehive_uploads"))
    first, second = uploads(cloud)
    assert first.id == second.id


async def test_uploads_are_not_lost_when_the_link_is_cut_again_and_again(cloud: Any) -> None:
    port = free_port()
    config = internal(cloud, port)
    async with edgecore(config):
        await listening(port)
        for number in range(40):
            await mosquitto_pub(port, "a/user/x", str(number), "-q", str(number % 3))
            if number % 8 == 0 and cloud.connections:
                cloud.cut()
        # The last has QoS 0: that mosquitto_pub is done does not mean that it has come.
        await eventually(lambda: any(m.content == b'"39"' for m in uploads(cloud)), 30)
        await eventually(lambda: not rows(config, "edgehive_uploads"), 30)
    seen = [int(json.loads(m.content)) for m in uploads(cloud)]
    assert list(dict.fromkeys(seen)) == list(range(40)), "each, in order, repeats apart"
    ids = {m.id for m in uploads(cloud)}
    assert len(ids) == 40, "a repeat is the same message"


async def test_what_was_acknowledged_survives_kill_9(cloud: Any, tmp_path: Path) -> None:
    port = free_port()
    config = internal(cloud, port)
    file = tmp_path / "edgecore.yaml"
    file.write_bytes(msgspec.json.encode(msgspec.to_builtins(config)))
    acknowledged: list[str] = []
    for life in range(3):
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "edgehive", "edgecore", "--config", str(file)),
            stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.DEVNULL,
        )
        try:
            await listening(port)
            async with aiomqtt.Client("127.0.0.1", port) as client:
                for number in range(25):
                    await client.publish("a/user/x", f"{life}-{number}", qos=1)
                    acknowledged.append(f"{life}-{number}")
                if life == 2:
                    await eventually(lambda: not rows(config, "edgehive_uploads"), 30)
                process.kill()
                await process.wait()
                raise aiomqtt.MqttError("gone")  # leave without a goodbye to nobody
        except aiomqtt.MqttError:
            pass
        finally:
            with contextlib.suppress(ProcessLookupError):
                process.kill()
            await process.wait()
    seen = [json.loads(m.content) for m in uploads(cloud)]
    assert list(dict.fromkeys(seen)) == acknowledged


async def test_a_flood_of_uploads_is_bounded_on_disk_and_counted(cloud: Any) -> None:
    port, http = free_port(), free_port()
    config = internal(cloud, port, http=http)
    await cloud.stop()
    async with edgecore(config):
        await listening(port)
        async with aiomqtt.Client("127.0.0.1", port, max_queued_outgoing_messages=None) as client:
            for number in range(12_000):
                await client.publish("a/user/x", str(number), qos=0)
            await client.publish("a/user/x", "last", qos=1)
        found = await metrics(http)
        assert (found["edgehive_uploads_waiting"], found["edgehive_uploads_dropped_total"]) == (10_000, 2_001)
    kept = rows(config, "edgehive_uploads")
    assert len(kept) == 10_000
    assert b'"2001"' in kept[0][1]
    assert b'"last"' in kept[-1][1]


async def test_a_full_disk_is_not_acknowledged(cloud: Any) -> None:
    port, http = free_port(), free_port()
    config = internal(cloud, port, http=http)
    await cloud.stop()
    async with edgecore(config):
        await listening(port)
        with contextlib.closing(sqlite3.connect(config.database.data_source)) as db, db:
            db.execute(
                "CREATE TRIGGER full BEFORE INSERT ON edgehive_uploads BEGIN SELECT RAISE(FAIL, 'full'); END"
            )
        db.close()
        process = await asyncio.create_subprocess_exec(
            *("mosquitto_pub", "-p", str(port), "-t", "a/user/x", "-m", "1", "-q", "1"),
            stderr=asyncio.subprocess.PIPE,
        )
        assert process.stderr is not None
        async with asyncio.timeout(15):
            assert b"lost" in await process.stderr.readline()
        process.kill()
        await process.wait()
        assert (await metrics(http))["edgehive_uploads_not_stored_total"] >= 1
        with contextlib.closing(sqlite3.connect(config.database.data_source)) as db, db:
            db.execute("DROP TRIGGER full")
        db.close()
        await mosquitto_pub(port, "a/user/x", "2", "-q", "1")
        assert len(rows(config, "edgehive_uploads")) == 1


async def test_what_an_external_broker_brings_while_the_disk_is_full_is_stored_later(
    cloud: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("edgehive.edge.eventbus._AGAIN", 0.1)
    http = free_port()
    async with mosquitto(tmp_path / "mosquitto") as broker:
        config = external(cloud, broker.port, http=http)
        await cloud.stop()
        async with edgecore(config):
            while not (await metrics(http))["edgehive_mqtt_external_connected"]:
                await asyncio.sleep(0.02)
            with contextlib.closing(sqlite3.connect(config.database.data_source)) as db, db:
                db.execute(
                    "CREATE TRIGGER full BEFORE INSERT ON edgehive_uploads BEGIN SELECT RAISE(FAIL, 'full'); END"
                )
            db.close()
            async with aiomqtt.Client("127.0.0.1", broker.port) as client:
                for number in range(50):  # more than the broker sends without an acknowledgement
                    await client.publish("a/user/x", str(number), qos=1)
            with contextlib.closing(sqlite3.connect(config.database.data_source)) as db, db:
                db.execute("DROP TRIGGER full")
            db.close()
            await eventually(lambda: len(rows(config, "edgehive_uploads")) == 50)
            assert (await metrics(http))["edgehive_uploads_not_stored_total"] == 0
        found = [json.loads(frame)["content"] for _, frame in rows(config, "edgehive_uploads")]
        assert found == [str(number) for number in range(50)]


async def test_an_external_broker_goes_away_and_comes_back_while_values_flow(
    cloud: Any, tmp_path: Path
) -> None:
    http = free_port()
    async with mosquitto(tmp_path / "mosquitto") as broker:
        config = external(cloud, broker.port, http=http)
        await broker.stop()  # the start does not wait for it
        async with edgecore(config):
            await cloud.until(lambda: cloud.connections)
            sent = 0

            async def publish(count: int) -> None:
                nonlocal sent
                for _ in range(count):
                    content = str(sent)
                    await cloud.push("publish", "down/t", content, source="router_eventbus", group="user")
                    sent += 1

            await publish(5)
            for _ in range(3):
                await broker.start()
                async with mosquitto_sub(broker.port, ["down/#"], "-q", "1") as sub:
                    await publish(5)
                    lines = await sub.until(f"down/t {sent - 1}")
                    numbers = [int(line.split()[1]) for line in lines]
                    assert numbers == sorted(numbers)
                    await eventually_async(lambda: _is(http, "edgehive_mqtt_external_connected", 1.0))
                    await mosquitto_pub(broker.port, "a/user/x", str(sent), "-q", "1")
                    await cloud.until(lambda: b'"%d"' % sent in [m.content for m in uploads(cloud)])
                await broker.stop()
                await publish(3)


async def _is(http: int, name: str, value: float) -> bool:
    return (await metrics(http))[name] == value


async def eventually_async(met: Callable[[], Any], timeout: float = 15.0) -> None:
    async with asyncio.timeout(timeout):
        while not await met():
            await asyncio.sleep(0.05)


async def test_publications_to_an_absent_broker_are_bounded_and_counted(cloud: Any) -> None:
    http = free_port()
    async with edgecore(external(cloud, free_port(), http=http)):
        await cloud.until(lambda: cloud.connections)
        for number in range(1_100):
            await cloud.push("publish", "down/t", str(number), source="router_eventbus", group="user")
        await eventually_async(lambda: _is(http, "edgehive_mqtt_external_dropped_total", 100.0))
        found = await metrics(http)
        assert found["edgehive_mqtt_external_waiting"] == 1_000
        assert found["edgehive_mqtt_external_connected"] == 0


async def test_an_external_broker_with_tls_and_password(cloud: Any, tmp_path: Path) -> None:
    home = tmp_path / "mosquitto"
    home.mkdir()
    ca = pki.create_ca("broker CA", cloud.now)
    server = pki.issue(
        ca, common_name="broker", organizations=[], now=cloud.now, server=True, addresses=["127.0.0.1"]
    )
    client = pki.issue(ca, common_name="edge", organizations=[], now=cloud.now, client=True)
    for name, data in {
        "ca.crt": ca.cert_pem,
        "server.crt": server.cert_pem,
        "server.key": server.key_pem,
        "edge.crt": client.cert_pem,
        "edge.key": client.key_pem,
    }.items():
        (home / name).write_bytes(data)
    process = await asyncio.create_subprocess_exec(
        "mosquitto_passwd", "-b", "-c", str(home / "pw"), "me", "secret"
    )
    assert await process.wait() == 0
    tls = {
        "enable": True,
        "tlsMqttCAFile": str(home / "ca.crt"),
        "tlsMqttCertFile": str(home / "edge.crt"),
        "tlsMqttPrivateKeyFile": str(home / "edge.key"),
    }
    lines = [
        f"cafile {home}/ca.crt",
        f"certfile {home}/server.crt",
        f"keyfile {home}/server.key",
        "require_certificate true",
        f"password_file {home}/pw",
    ]
    flags = [
        "--cafile",
        str(home / "ca.crt"),
        "--cert",
        str(home / "edge.crt"),
        "--key",
        str(home / "edge.key"),
    ]
    flags += ["-u", "me", "-P", "secret"]
    async with mosquitto(home, *lines, anonymous=False) as broker:
        keys = {
            "eventBusTLS": tls,
            "mqttUsername": "me",
            "mqttPassword": "secret",
            "mqttSubClientID": "my-sub",
        }
        async with edgecore(external(cloud, broker.port, **keys)):
            await cloud.until(lambda: cloud.connections)
            async with mosquitto_sub(broker.port, ["down/#"], *flags) as sub:
                await cloud.push("publish", "down/t", "over TLS", source="router_eventbus", group="user")
                await sub.until("down/t over TLS")
            await mosquitto_pub(broker.port, "a/user/x", "up", "-q", "1", "-r", *flags)
            await cloud.until(lambda: uploads(cloud, "a/user/x"))


async def test_a_wrong_password_is_said_and_tried_again_without_being_shown(
    cloud: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    home = tmp_path / "mosquitto"
    home.mkdir()
    (home / "pw").write_text("")
    caplog.set_level(logging.DEBUG)
    async with (
        mosquitto(home, f"password_file {home}/pw", anonymous=False) as broker,
        edgecore(external(cloud, broker.port, mqttUsername="me", mqttPassword="s3cr3t")),
    ):
        await eventually(
            lambda: "user name or password is wrong" in caplog.text or "not authorized" in caplog.text
        )
    assert "s3cr3t" not in caplog.text


@pytest.mark.parametrize(("key", "words"), [("key", "TLS:"), ("nothing", "No such file"), ("a\0b", "null")])
async def test_certificates_that_cannot_be_used_are_said_and_end_nothing(
    cloud: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture, key: str, words: str
) -> None:
    process = await asyncio.create_subprocess_exec(
        *(
            "openssl",
            "genpkey",
            "-algorithm",
            "ed25519",
            "-aes256",
            "-pass",
            "pass:x",
            "-out",
            str(tmp_path / "key"),
        ),
        stderr=asyncio.subprocess.DEVNULL,
    )
    assert await process.wait() == 0
    (tmp_path / "ca").write_bytes(cloud.ca.cert_pem)
    (tmp_path / "crt").write_bytes(cloud.server_pair.cert_pem)
    tls = {
        "enable": True,
        "tlsMqttCAFile": str(tmp_path / "ca"),
        "tlsMqttCertFile": str(tmp_path / "crt"),
        "tlsMqttPrivateKeyFile": str(tmp_path / key),
    }
    async with edgecore(external(cloud, free_port(), eventBusTLS=tls)):
        await eventually(lambda: words in caplog.text)
        await cloud.until(lambda: cloud.connections)


async def test_both_brokers_at_once(cloud: Any, tmp_path: Path) -> None:
    port = free_port()
    async with mosquitto(tmp_path / "mosquitto") as broker:
        config = with_bus(
            cloud,
            mqttMode=1,
            mqttServerInternal=f"tcp://127.0.0.1:{port}",
            mqttServerExternal=f"tcp://127.0.0.1:{broker.port}",
            mqttQOS=2,
            mqttRetain=True,
        )
        async with edgecore(config):
            await listening(port)
            await cloud.until(lambda: cloud.connections)
            await cloud.push("publish", "down/t", "both", source="router_eventbus", group="user")
            async with mosquitto_sub(port, ["down/#"], "-q", "2", "-F", "%t %r %q %p") as inside:
                await inside.until("down/t 1 2 both")
            async with mosquitto_sub(broker.port, ["down/#"], "-F", "%r %p") as outside:
                await cloud.push("publish", "down/t", "again", source="router_eventbus", group="user")
                assert (await outside.until("again"))[-1] == "0 again"
            for where in (port, broker.port):
                await mosquitto_pub(where, "a/user/x", str(where), "-q", "2", "-r")
            await cloud.until(lambda: len({m.content for m in uploads(cloud)}) == 2)


async def test_a_port_that_is_taken_does_not_end_edgecore(
    cloud: Any, caplog: pytest.LogCaptureFixture
) -> None:
    taken = await asyncio.start_server(lambda r, w: w.close(), "127.0.0.1", 0)
    port = taken.sockets[0].getsockname()[1]
    async with edgecore(internal(cloud, port)):
        await eventually(lambda: "mqttServerInternal" in caplog.text)
        await cloud.until(lambda: cloud.connections)
        taken.close()
        await taken.wait_closed()
        await listening(port)
        async with mosquitto_sub(port, ["x"]):
            pass


@pytest.mark.parametrize(
    "keys",
    [
        {"mqttMode": 0, "mqttServerInternal": "ws://127.0.0.1:1884"},
        {"mqttMode": 0, "mqttServerInternal": "tcp://"},
        {"mqttMode": 2, "mqttServerExternal": "tcp://127.0.0.1:99999"},
        {"mqttMode": 2, "mqttServerExternal": "tcp://me:pw@127.0.0.1"},
        {"mqttMode": 2, "mqttServerExternal": "quic://127.0.0.1"},
        {"mqttMode": 2, "mqttServerExternal": "tcp://a..b:1883"},
        {"mqttMode": 2, "mqttServerExternal": f"tcp://{'x' * 64}:1883"},
    ],
)
def test_addresses_that_cannot_be_used_are_refused_by_key(keys: dict[str, Any]) -> None:
    with pytest.raises(UserError, match=r"modules\.eventBus\.mqttServer") as caught:
        settings_of(msgspec.convert(keys, EventBus))
    assert "pw" not in str(caught.value).replace("mqttServer", "")


def test_what_the_keys_mean() -> None:
    def read(**keys: Any) -> Any:
        return settings_of(msgspec.convert(keys, EventBus))

    default = read()
    assert default.internal is None
    assert (default.external.host, default.external.port, default.external.tls) == ("127.0.0.1", 1883, None)
    mode0 = read(mqttMode=0, mqttQOS=1, mqttRetain=True, mqttSessionQueueSize=7)
    assert mode0.external is None
    assert (mode0.internal.port, mode0.internal.qos, mode0.internal.retain, mode0.internal.queue) == (
        1884,
        1,
        True,
        7,
    )
    assert not mode0.internal.public
    assert read(mqttMode=0, mqttServerInternal="tcp://0.0.0.0:1884").internal.public
    assert read(mqttServerExternal="ssl://b").external.port == 8883
    assert read(mqttServerExternal="ssl://b").external.tls.ca == ""
    secure = read(mqttServerExternal="tcp://b:1883", eventBusTLS={"enable": True, "tlsMqttCAFile": "/ca"})
    assert secure.external.tls.ca == "/ca"


_LOADED = """
import asyncio, sys
from pathlib import Path
from edgehive.edge.app import EdgeCore
from edgehive.edge.config_load import load_config

async def main():
    ready = asyncio.Event()
    async with asyncio.TaskGroup() as group:
        task = group.create_task(EdgeCore(load_config(Path(sys.argv[1])).config, on_ready=lambda _: ready.set()).run())
        await ready.wait()
        await asyncio.sleep(0.2)
        print(*(name for name in sys.modules if "mqtt" in name or "eventbus" in name or "uploads" in name))
        task.cancel()

asyncio.run(main())
"""


@pytest.mark.parametrize("enable", [False, True])
async def test_nothing_of_mqtt_is_loaded_where_it_is_off(cloud: Any, tmp_path: Path, enable: bool) -> None:
    config = internal(cloud, free_port(), enable=enable)
    file = tmp_path / "edgecore.yaml"
    file.write_bytes(msgspec.json.encode(msgspec.to_builtins(config)))
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", _LOADED, str(file)), stdout=asyncio.subprocess.PIPE
    )
    async with asyncio.timeout(30):
        out, _ = await process.communicate()
    assert bool(out.split()) is enable
