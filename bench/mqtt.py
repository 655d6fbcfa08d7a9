"""`python -m bench.mqtt`: what the embedded MQTT broker costs, beside mosquitto where that is installed.

    python -m bench.mqtt [--messages 100000] [--json FILE] [--quick]

CPU of the broker's process for each published message of 200 bytes, from one publisher to one or ten subscribers that
read raw bytes (so that clients cost little), windowed and one message at a time; memory for idle clients; what
EventBus adds to edgecore's memory: off, embedded broker, external broker; and what an upload with QoS 1 costs edgecore
while the cloud is away (it is on disk when it is acknowledged).
"""

import argparse
import asyncio
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import msgspec

from bench.measure import cpu_seconds, memory_of
from edgehive.wire.mqtt_codec import PacketReader, encode_packet
from edgehive.wire.mqtt_packets import PUBACK, PUBLISH, V311, Ack, Connect, Publish, Subscribe, Subscription
from tests.support.mqtt import free_port

_PAYLOAD = b"x" * 200
_WINDOW = 500  # published ahead of what all subscribers have read
_IDLE_CLIENTS = 300

_BROKER = """
import asyncio, os, sys
from edgehive.aio.mqtt_broker import MqttServer
from edgehive.wire.mqtt_broker import Broker
async def main():
    broker = Broker(now=asyncio.get_running_loop().time(), new_id=lambda: os.urandom(8).hex())
    broker.own_filters(["$hw/events/device/+/+/twin/+", "+/user/#"])
    server = MqttServer(broker=broker, handler=lambda messages: True, rate=float("inf"))
    await server.listen("127.0.0.1", int(sys.argv[1]))
    await server.run()
asyncio.run(main())
"""


@asynccontextmanager
async def broker(kind: str, directory: Path) -> AsyncIterator[tuple[int, int]]:
    """A broker in a process of its own: port and pid."""
    port = free_port()
    if kind == "mosquitto":
        file = directory / "mosquitto.conf"
        file.write_text(f"listener {port} 127.0.0.1\nallow_anonymous true\nmax_queued_messages 100000\n")
        command = ["mosquitto", "-c", str(file)]
    else:
        command = [sys.executable, "-c", _BROKER, str(port)]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        while True:
            with suppress(OSError):
                _, writer = await asyncio.open_connection("127.0.0.1", port)
                writer.close()
                break
            await asyncio.sleep(0.02)
        yield port, process.pid
    finally:
        process.terminate()
        process.wait()


async def connect(
    port: int, topic: str = "", qos: int = 0
) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """A client that counts bytes and nothing else."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(encode_packet(Connect(f"bench-{os.urandom(4).hex()}", keepalive=0), V311))
    await reader.readexactly(4)
    if topic:
        writer.write(encode_packet(Subscribe(1, (Subscription(topic, qos),)), V311))
        await reader.readexactly(5)
    return reader, writer


async def measure(
    port: int, pid: int, *, messages: int, qos: int, subscribers: int, window: int
) -> dict[str, float]:
    """CPU of the broker a message, and messages a second."""
    read = [0] * subscribers
    moved = asyncio.Event()

    async def subscriber(at: int) -> None:
        reader, writer = await connect(port, "bench/topic", qos)
        packets = PacketReader(1 << 20)
        ready.release()
        while read[at] < messages:
            acks = []
            for first, body in packets.feed(await reader.read(1 << 16)):
                if first >> 4 == PUBLISH:
                    read[at] += 1
                    if qos:
                        acks.append(Ack(PUBACK, int.from_bytes(body[13:15], "big")))
            if acks:
                writer.write(b"".join(encode_packet(ack, V311) for ack in acks))
            moved.set()
        writer.close()

    async def acknowledged(reader: asyncio.StreamReader) -> None:
        while await reader.read(1 << 16):
            pass

    ready = asyncio.Semaphore(0)
    async with asyncio.TaskGroup() as group:
        for at in range(subscribers):
            group.create_task(subscriber(at))
        for _ in range(subscribers):
            await ready.acquire()
        reader, writer = await connect(port)
        answers = group.create_task(acknowledged(reader))
        before, started, sent = cpu_seconds(pid), time.perf_counter(), 0
        while sent < messages:
            room = min(window - (sent - min(read)), messages - sent)
            if room <= window // 4 and room < messages - sent and window > 1:
                moved.clear()
                await moved.wait()
                continue
            if room <= 0:
                moved.clear()
                await moved.wait()
                continue
            frames = [
                encode_packet(
                    Publish("bench/topic", _PAYLOAD, qos, packet_id=(n % 60_000 + 1) if qos else 0), V311
                )
                for n in range(sent, sent + room)
            ]
            writer.write(b"".join(frames))
            sent += room
        while min(read) < messages:
            moved.clear()
            await moved.wait()
        seconds, cpu = time.perf_counter() - started, cpu_seconds(pid) - before
        answers.cancel()
        writer.close()
    return {"cpu_us": round(cpu / messages * 1e6, 1), "per_second": round(messages / seconds)}


async def idle_clients(port: int, pid: int) -> float:
    """KiB a client that only is there."""
    before = memory_of(pid).rss
    clients = [await connect(port, f"idle/{n}/+") for n in range(_IDLE_CLIENTS)]
    await asyncio.sleep(0.5)
    grown = memory_of(pid).rss - before
    for _, writer in clients:
        writer.close()
    return round(grown * 1024 / _IDLE_CLIENTS, 1)


async def brokers(messages: int) -> dict[str, Any]:
    """Every broker there is, every case."""
    found: dict[str, Any] = {}
    cases = {
        "QoS 0, 1 to 1": (messages, 0, 1, _WINDOW),
        "QoS 1, 1 to 1": (messages, 1, 1, 80),
        "QoS 0, 1 to 10": (messages // 5, 0, 10, _WINDOW),
        "QoS 0, one at a time": (messages // 10, 0, 1, 1),
    }
    for kind in ("edgehive", *(["mosquitto"] if shutil.which("mosquitto") else [])):
        with tempfile.TemporaryDirectory() as home:
            async with broker(kind, Path(home)) as (port, pid):
                row: dict[str, Any] = {"idle_mib": memory_of(pid).rss}
                for name, (count, qos, subscribers, window) in cases.items():
                    row[name] = await measure(
                        port, pid, messages=count, qos=qos, subscribers=subscribers, window=window
                    )
                    print(
                        f"{kind:10} {name:22} {row[name]['cpu_us']:7.1f} us  {row[name]['per_second']:7} /s"
                    )
                row["kib_a_client"] = await idle_clients(port, pid)
                print(f"{kind:10} {row['idle_mib']:.1f} MiB idle, {row['kib_a_client']} KiB a client")
                found[kind] = row
    return found


async def uploads(port: int, pid: int, count: int) -> dict[str, float]:
    """Publish `count` uploads, at most `_WINDOW` of them unacknowledged."""
    reader, writer = await connect(port)
    before, started = cpu_seconds(pid), time.perf_counter()
    sent = acknowledged = 0
    while acknowledged < count:
        room = min(_WINDOW - (sent - acknowledged), count - sent)
        frames = [
            encode_packet(Publish("bench/user/x", _PAYLOAD, 1, packet_id=n % 60_000 + 1), V311)
            for n in range(sent, sent + room)
        ]
        writer.write(b"".join(frames))
        sent += room
        await reader.readexactly(4)
        acknowledged += 1 + len(await reader.read(1 << 16)) // 4 if sent - acknowledged > 1 else 1
    seconds, cpu = time.perf_counter() - started, cpu_seconds(pid) - before
    writer.close()
    found = {"cpu_us": round(cpu / count * 1e6, 1), "per_second": round(count / seconds)}
    print(f"edgecore   uploads, QoS 1         {found['cpu_us']:7.1f} us  {found['per_second']:7} /s")
    return found


async def edgecore(settle: float, count: int) -> dict[str, Any]:
    """Resident MiB of an edgecore that is connected and at rest, by what its EventBus is."""
    sys.path.insert(0, str(Path("tests/edge").resolve()))
    from conftest import FakeCloud  # a cloud that answers what a registration asks

    found: dict[str, Any] = {}
    external, embedded = free_port(), free_port()
    variants: dict[str, dict[str, Any]] = {
        "off": {"enable": False},
        "embedded": {"enable": True, "mqttMode": 0, "mqttServerInternal": f"tcp://127.0.0.1:{embedded}"},
        "external": {"enable": True, "mqttMode": 2, "mqttServerExternal": f"tcp://127.0.0.1:{external}"},
    }
    with tempfile.TemporaryDirectory() as home:
        async with broker("edgehive", Path(home)) as (port, _):
            variants["external"]["mqttServerExternal"] = f"tcp://127.0.0.1:{port}"
            for name, keys in variants.items():
                directory = Path(home) / name
                directory.mkdir()
                cloud = FakeCloud(directory / "cloud")
                await cloud.start()
                config = cloud.config(modules={"eventBus": keys, "deviceTwin": {"enable": False}})
                cloud.install(config)
                file = directory / "edgecore.yaml"
                file.write_bytes(msgspec.json.encode(msgspec.to_builtins(config)))
                process = subprocess.Popen(
                    [sys.executable, "-m", "edgehive", "edgecore", "--config", str(file)],
                    stdout=subprocess.DEVNULL,
                    stderr=subprocess.DEVNULL,
                    env={k: v for k, v in os.environ.items() if k != "PYTHONDONTWRITEBYTECODE"},
                )
                try:
                    await cloud.message("insert", "null/node/edge-1")
                    await asyncio.sleep(settle)
                    found[name] = memory_of(process.pid).rss
                    if name == "embedded":
                        await cloud.stop()
                        found["uploads"] = await uploads(embedded, process.pid, count)
                finally:
                    process.terminate()
                    process.wait()
                    await cloud.stop()
                print(f"edgecore   EventBus {name:10} {found[name]:.1f} MiB")
    return found


def main() -> int:
    """Run it."""
    parser = argparse.ArgumentParser(prog="python -m bench.mqtt", description="What MQTT costs.")
    parser.add_argument("--messages", type=int, default=100_000)
    parser.add_argument("--settle", type=float, default=8.0, help="seconds of rest before memory is read")
    parser.add_argument("--json", type=Path, default=Path("bench/results/mqtt.json"))
    parser.add_argument("--quick", action="store_true", help="a tenth of the messages")
    arguments = parser.parse_args()
    messages = arguments.messages // 10 if arguments.quick else arguments.messages
    result = {
        "load": os.getloadavg()[0],
        "brokers": asyncio.run(brokers(messages)),
        "edgecore_mib": asyncio.run(edgecore(arguments.settle, messages // 10)),
    }
    arguments.json.parent.mkdir(parents=True, exist_ok=True)
    arguments.json.write_text(json.dumps(result, indent=2) + "\n")
    print(f"JSON: {arguments.json}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
