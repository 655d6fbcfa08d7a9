"""`python -m bench.devices`: what devices cost an edge, on a running `edgehive up` with one edge.

    python -m bench.devices [--devices 1000] [--seconds 10] [--json FILE] [--quick]

Memory of N devices with three properties each; updates a second that edgecore takes through DMI and through MQTT, with
its CPU per update (edgecore on one core by affinity, this program on the others); the time from a mapper's report to
the DeviceStatus that a watch of the API server shows.
"""

import argparse
import asyncio
import contextlib
import json
import logging
import os
import shutil
import sqlite3
import statistics
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import msgspec

from bench.measure import cpu_seconds, memory_of, wait_until_quiet
from edgehive.aio import dmi_messages as dmi
from edgehive.aio import protobuf
from edgehive.aio.grpc import GrpcClient
from edgehive.aio.informer import Informer
from edgehive.aio.kubeauth import load_kubeconfig
from edgehive.aio.kubeclient import KubeClient
from edgehive.cli.demo import dmi_socket
from edgehive.cli.up_layout import Ports
from edgehive.kube.crd_devices import DEVICE_STATUSES
from edgehive.kube.reflector import Change
from tests.support.installation import Installation, find_kubectl, installation

_API = "devices.kubeedge.io/v1beta1"
_PROPERTIES = ("temperature", "humidity", "level")
_LANES = 128  # requests under way at once
_RATE = 10.0  # reports a second while latency is measured, each of another device


def model() -> dict[str, Any]:
    """The model of all devices."""
    rows = [{"name": name, "type": "FLOAT", "accessMode": "ReadWrite"} for name in _PROPERTIES]
    return {
        "apiVersion": _API,
        "kind": "DeviceModel",
        "metadata": {"name": "bench", "namespace": "default"},
        "spec": {"protocol": "bench", "properties": rows},
    }


def device(number: int) -> dict[str, Any]:
    """One device."""
    properties = [
        {
            "name": name,
            "collectCycle": 1000,
            "reportToCloud": True,
            "visitors": {"protocolName": "bench", "configData": {"register": n}},
        }
        for n, name in enumerate(_PROPERTIES)
    ]
    properties[0]["desired"] = {"value": "20"}
    return {
        "apiVersion": _API,
        "kind": "Device",
        "metadata": {"name": f"d{number:04}", "namespace": "default"},
        "spec": {
            "deviceModelRef": {"name": "bench"},
            "nodeName": "edge-1",
            "protocol": {"protocolName": "bench", "configData": {"address": f"10.0.0.{number % 250}"}},
            "properties": properties,
        },
    }


def report(name: str, values: dict[str, str]) -> bytes:
    """ReportDeviceStatus as a mapper sends it."""
    stamp = {"timestamp": str(int(time.time() * 1000)), "type": "float"}
    twins = [
        {
            "propertyName": prop,
            "reported": {"value": value, "metadata": stamp},
            "observedDesired": {"value": ""},
        }
        for prop, value in values.items()
    ]
    request = {"deviceName": name, "deviceNamespace": "default", "reportedDevice": {"twins": twins}}
    return protobuf.encode(dmi.REPORT_STATUS, request)


class Bench:
    """One measurement of one installation."""

    def __init__(self, up: Installation, devices: int, seconds: float) -> None:
        self.up = up
        self.count = devices
        self.seconds = seconds
        self.result: dict[str, Any] = {"devices": devices}
        self.socket = dmi_socket(up.layout, "edge-1")
        self.edge = up.pid("edgecore-edge-1")
        self._value = 0

    def note(self, **figures: Any) -> None:
        """Keep figures and print them."""
        self.result |= figures
        for name, value in figures.items():
            print(f"  {name:<46} {value}", flush=True)

    def value(self) -> str:
        """A value that has never been."""
        self._value += 1
        return f"{self._value / 10:.1f}"

    # -- memory

    async def memory(self) -> None:
        """Edgecore without devices, with them, and when all have reported."""
        settle = 3.0 if self.seconds < 5 else 8.0
        pids = [self.edge, self.up.pid("cloudcore"), self.up.pid("control-plane")]
        await asyncio.to_thread(wait_until_quiet, pids, settle)
        idle = memory_of(self.edge)
        begun = time.monotonic()
        for start in range(0, self.count, 250):
            self.up.apply(model(), *(device(n) for n in range(start, min(start + 250, self.count))))
        applied = time.monotonic() - begun
        client = GrpcClient(str(self.socket))
        mapper = {"name": "bench", "protocol": "bench", "address": b"/nowhere/bench.sock", "state": "ok"}
        request = protobuf.encode(dmi.REGISTER_REQUEST, {"withData": True, "mapper": mapper})
        while True:
            raw = await client.call(dmi.MANAGER_SERVICE + "MapperRegister", request, timeout=30)
            if len(protobuf.decode(dmi.REGISTER_RESPONSE, raw).get("deviceList", [])) == self.count:
                break
            if time.monotonic() - begun > 300:
                raise AssertionError("the devices do not arrive\n" + self.up.logs())
            await asyncio.sleep(0.2)
        arrived = time.monotonic() - begun
        await asyncio.to_thread(wait_until_quiet, pids, settle)
        there = memory_of(self.edge)
        for n in range(self.count):
            await self.report(client, n, {name: self.value() for name in _PROPERTIES})
        await asyncio.to_thread(wait_until_quiet, pids, settle)
        reported = memory_of(self.edge)
        await client.close()
        self.note(
            edgecore_idle_mib=f"{idle.rss} RSS, {idle.uss} private",
            edgecore_with_devices_mib=f"{there.rss} RSS, {there.uss} private",
            edgecore_all_reported_mib=f"{reported.rss} RSS, {reported.uss} private",
            kib_a_device=round((reported.uss - idle.uss) * 1024 / self.count, 1),
            seconds_to_apply=round(applied, 1),
            seconds_until_all_at_the_edge=round(arrived, 1),
            cloudcore_mib=memory_of(pids[1]).rss,
            control_plane_mib=memory_of(pids[2]).rss,
        )

    async def report(self, client: GrpcClient, number: int, values: dict[str, str]) -> None:
        """Report of one device; returns when edgecore has stored it."""
        await client.call(
            dmi.MANAGER_SERVICE + "ReportDeviceStatus", report(f"d{number:04}", values), timeout=60
        )

    # -- updates a second

    async def through_dmi(self) -> None:
        """Reports of one property each, some under way at once, all devices in turn."""
        clients = [GrpcClient(str(self.socket)) for _ in range(4)]
        turn = 0

        async def one(lane: int) -> None:
            nonlocal turn
            number, turn = turn % self.count, turn + 1
            await self.report(clients[lane % 4], number, {"temperature": self.value()})

        await self._load("dmi", one)
        for client in clients:
            await client.close()

    async def through_mqtt(self) -> None:
        """twin/update messages; an update counts when its result has come back."""
        import aiomqtt

        port = Ports(self.up.api_port, self.up.ports_from).mqtt(0)
        waiting: dict[str, asyncio.Future[None]] = {}
        turn = 0
        quiet = logging.getLogger("bench.mqtt")
        quiet.setLevel(logging.CRITICAL)
        options: dict[str, Any] = {"max_queued_incoming_messages": 100_000, "logger": quiet}
        async with aiomqtt.Client("127.0.0.1", port, **options) as client:
            await client.subscribe("$hw/events/device/+/+/twin/update/result")

            async def hear() -> None:
                async for message in client.messages:
                    event = msgspec.json.decode(bytes(message.payload))["event_id"]
                    if (future := waiting.pop(event, None)) is not None and not future.done():
                        future.set_result(None)

            async def one(_lane: int) -> None:
                nonlocal turn
                number, turn = turn % self.count, turn + 1
                event = str(turn)
                waiting[event] = asyncio.get_running_loop().create_future()
                body = {
                    "event_id": event,
                    "timestamp": int(time.time() * 1000),
                    "twin": {"temperature": {"actual": {"value": self.value()}}},
                }
                topic = f"$hw/events/device/default/d{number:04}/twin/update"
                await client.publish(topic, json.dumps(body), qos=0)
                async with asyncio.timeout(30):
                    await waiting[event]

            async with asyncio.TaskGroup() as group:
                hearing = group.create_task(hear())
                await self._load("mqtt", one)
                hearing.cancel()

    async def _load(self, name: str, one: Callable[[int], Awaitable[None]]) -> None:
        """Run `one` in lanes for a while; note rate, CPU and latency."""
        done, times = 0, []
        until = time.monotonic() + self.seconds

        async def lane(number: int) -> None:
            nonlocal done
            while time.monotonic() < until:
                begun = time.monotonic()
                await one(number)
                times.append(time.monotonic() - begun)
                done += 1

        cloud = self.up.pid("cloudcore")
        before, cloud_before, begun = cpu_seconds(self.edge), cpu_seconds(cloud), time.monotonic()
        async with asyncio.TaskGroup() as group:
            for number in range(_LANES):
                group.create_task(lane(number))
        elapsed = time.monotonic() - begun
        used, cloud_used = cpu_seconds(self.edge) - before, cpu_seconds(cloud) - cloud_before
        self.note(
            **{
                f"{name}_updates_a_second": round(done / elapsed),
                f"{name}_cpu_ms_an_update": round(used / done * 1000, 3),
                f"{name}_edgecore_core_percent": round(100 * used / elapsed),
                f"{name}_cloudcore_core_percent": round(100 * cloud_used / elapsed),
                f"{name}_answer_ms_p50_p99": _quantiles(times),
            }
        )
        rss = memory_of(self.edge).rss
        pids = [self.edge, cloud, self.up.pid("control-plane")]
        await asyncio.to_thread(wait_until_quiet, pids, 3.0)
        self.note(**{f"{name}_edgecore_rss_mib_under_load": rss})

    def _drained(self) -> None:
        """Wait until the edge owes the cloud nothing."""
        database = f"file:{self.up.layout.edge('edge-1') / 'edgecore.db'}?mode=ro"
        quiet, deadline = 0, time.monotonic() + 180
        with contextlib.closing(sqlite3.connect(database, uri=True)) as connection:
            while quiet < 10 and time.monotonic() < deadline:
                (count,) = connection.execute(
                    "SELECT count(*) FROM edgehive_device WHERE owed != 0"
                ).fetchone()
                quiet = 0 if count else quiet + 1
                time.sleep(0.2)

    # -- how long until Kubernetes shows it

    async def latency(self) -> None:
        """From the report to the watch event: devices that are at rest, then one that reports 100 times a second."""
        begun = time.monotonic()
        await asyncio.to_thread(self._drained)
        self.note(seconds_until_all_was_told=round(time.monotonic() - begun, 1))
        config = load_kubeconfig(self.up.layout.kubeconfig)
        async with KubeClient(config, user_agent="bench", qps=10000, burst=20000) as api:
            informer = Informer(api=api, gvr=DEVICE_STATUSES)
            waiting: dict[str, tuple[float, str]] = {}
            times: list[float] = []
            writes = 0

            def note(change: Change) -> None:
                nonlocal writes
                name = change.object.meta.name
                writes += name == "d0000"
                if name in waiting and f'"{waiting[name][1]}"'.encode() in change.object.raw:
                    times.append(time.monotonic() - waiting.pop(name)[0])

            informer.subscribe(note)
            async with asyncio.TaskGroup() as group:
                task = group.create_task(informer.run())
                await informer.synced()
                client = GrpcClient(str(self.socket))
                for turn in range(int(_RATE * max(self.seconds, 3.0) * 2)):
                    number, value = 1 + turn % (self.count - 1), f"v{self.value()}"
                    waiting[f"d{number:04}"] = (time.monotonic(), value)
                    await self.report(client, number, {"level": value})
                    await asyncio.sleep(1 / _RATE)
                await _until(lambda: not waiting, 30)
                self.note(
                    report_to_devicestatus_ms_p50_p99=_quantiles(times),
                    reports_measured=len(times),
                    missing=len(waiting),
                )
                writes, begun, sent = 0, time.monotonic(), 0
                while time.monotonic() - begun < max(self.seconds, 5.0):
                    await self.report(client, 0, {"level": self.value()})
                    sent += 1
                    await asyncio.sleep(max(0.0, begun + sent / 95 - time.monotonic()))
                elapsed = time.monotonic() - begun
                self.note(
                    one_device_reports_a_second=round(sent / elapsed),
                    one_device_writes_a_second=round(writes / elapsed, 2),
                )
                await client.close()
                task.cancel()


def _quantiles(times: list[float]) -> str:
    if len(times) < 2:
        return "-"
    cuts = statistics.quantiles(times, n=100)
    return f"{cuts[49] * 1000:.1f} / {cuts[98] * 1000:.1f}"


async def _until(check: Callable[[], bool], seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while not check() and time.monotonic() < deadline:
        await asyncio.sleep(0.05)


async def _measure(bench: Bench) -> None:
    await bench.memory()
    cores = sorted(os.sched_getaffinity(0))
    if len(cores) > 1:
        os.sched_setaffinity(bench.edge, {cores[0]})
        os.sched_setaffinity(0, set(cores[1:]))
    await bench.through_dmi()
    await bench.through_mqtt()
    os.sched_setaffinity(bench.edge, set(cores))
    os.sched_setaffinity(0, set(cores))
    await bench.latency()


def main() -> int:
    """Run it."""
    parser = argparse.ArgumentParser(prog="python -m bench.devices", description="What devices cost an edge.")
    parser.add_argument("--devices", type=int, default=1000)
    parser.add_argument("--seconds", type=float, default=10.0, help="of each load (default: %(default)s)")
    parser.add_argument("--json", type=Path, default=Path("bench/results/devices.json"))
    parser.add_argument("--quick", action="store_true", help="100 devices, 3 seconds")
    arguments = parser.parse_args()
    if not find_kubectl():
        sys.exit("bench: error: there is no kubectl; make bench installs one")
    devices, seconds = (100, 3.0) if arguments.quick else (arguments.devices, arguments.seconds)
    base = Path(tempfile.mkdtemp(prefix="eb-"))
    try:
        with installation(base / "up", "--runtime=process") as up:
            up.start()
            print(f"{devices} devices on one edge")
            bench = Bench(up, devices, seconds)
            asyncio.run(_measure(bench))
            arguments.json.parent.mkdir(parents=True, exist_ok=True)
            arguments.json.write_text(json.dumps(bench.result, indent=2) + "\n")
            print(f"JSON: {arguments.json}")
    finally:
        shutil.rmtree(base, ignore_errors=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
