"""Devices from kubectl to a simulator and back: the demo, and a chain whose links are killed one after the other."""

import contextlib
import json
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator

import pytest

pytest.importorskip("pymodbus", reason="the extra mapper-modbus is not installed")

from edgehive.cli.demo import dmi_socket
from edgehive.cli.demo_outage import Room
from tests.support.devices import HttpDevice, MapperProcess, http_model, http_object, twins_of
from tests.support.installation import Installation, eventually
from tests.support.servers import free_port

pytestmark = pytest.mark.e2e


class Demo:
    """`edgehive demo devices` as a user runs it."""

    def __init__(self, up: Installation) -> None:
        self.up = up
        self.port = free_port()
        self.out = up.root / "demo.out"
        command = [sys.executable, "-m", "edgehive", "demo", "devices", "--data-dir", str(up.root)]
        with self.out.open("wb") as out:
            self.process = subprocess.Popen(
                [*command, "--port", str(self.port)], stdout=out, stderr=out, stdin=subprocess.DEVNULL
            )

    def said(self) -> str:
        return self.out.read_text(errors="replace")

    def end(self) -> None:
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGINT)
            self.process.wait(30)


@pytest.fixture(scope="module")
def demo(up: Installation) -> Iterator[Demo]:
    running = Demo(up)
    try:
        eventually(lambda: "Ctrl-C ends the demo" in running.said(), what="the demo runs")
        yield running
    finally:
        running.end()


def twins(up: Installation, name: str) -> dict[str, tuple[str, str]]:
    return twins_of(up.get("devicestatus", name))


def want(up: Installation, name: str, index: int, value: str) -> None:
    patch = [{"op": "replace", "path": f"/spec/properties/{index}/desired/value", "value": value}]
    up.kubectl("patch", "device", name, "--type=json", "-p", json.dumps(patch))


def test_the_demo_shows_a_thermostat_that_follows_kubectl(up: Installation, demo: Demo) -> None:
    assert "reported by the edge" in demo.said(), demo.said() + up.logs()
    row = re.compile(
        r"^thermostat\s+edge-1\s+thermostat\s+online\s+(?=\S*temperature=)\S*target=21.5", re.MULTILINE
    )
    eventually(lambda: row.search(up.kubectl("get", "devices")), what="the columns of kubectl get devices")
    room = Room(demo.port)
    try:
        assert room.look()[1] == 21.5
        want(up, "thermostat", 1, "24")
        eventually(lambda: room.look()[1] == 24.0, what="the simulator follows")
        eventually(lambda: twins(up, "thermostat")["target"] == ("24", "24"), what="and kubectl shows it")
        want(up, "thermostat", 1, "99")  # above the model's maximum: nobody writes it, the device goes on
        want(up, "thermostat", 1, "22")
        eventually(lambda: room.look()[1] == 22.0, what="the simulator follows again")
    finally:
        room.close()


def test_the_edge_keeps_controlling_while_the_cloud_is_stopped(up: Installation, demo: Demo) -> None:
    command = [sys.executable, "-m", "edgehive", "demo", "outage", f"--data-dir={up.root}", "--seconds=3"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=150, check=False)
    assert done.returncode == 0, done.stdout + done.stderr + up.logs()
    for part in (
        "cloudcore is stopped",
        "set it back to",
        "the edge has the new target",
        "Kubernetes shows it",
    ):
        assert part in done.stdout
    assert twins(up, "thermostat")["target"] == ("24", "24")


def test_the_demo_takes_its_device_away_when_it_ends(up: Installation, demo: Demo) -> None:
    demo.end()
    assert demo.process.returncode == 0, demo.said()
    assert up.get("devices")["items"] == []
    eventually(lambda: up.get("devicestatuses")["items"] == [], what="the DeviceStatus goes with it")


class Watch:
    """`kubectl get devicestatus --watch`: every state that the API server has shown."""

    def __init__(self, up: Installation, name: str) -> None:
        self.out = up.root / f"watch-{name}.json"
        self._command = ["kubectl", f"--kubeconfig={up.layout.kubeconfig}", "get", "devicestatus", name]
        self._command += ["--watch", "-o", "json"]
        with self.out.open("wb") as out:
            self._process = subprocess.Popen(self._command, stdout=out, stderr=subprocess.DEVNULL)

    def seen(self) -> list[dict[str, tuple[str, str]]]:
        decoder, text, found = json.JSONDecoder(), self.out.read_text(), []
        position = 0
        with contextlib.suppress(json.JSONDecodeError):
            while position < len(text.rstrip()):
                obj, position = decoder.raw_decode(text, position)
                position += len(text[position:]) - len(text[position:].lstrip())
                found.append(twins_of(obj))
        return found

    def end(self) -> None:
        self._process.kill()
        self._process.wait()


@contextlib.contextmanager
def counting(device: HttpDevice) -> Iterator[None]:
    """The device's own value changes all the time."""
    over = threading.Event()

    def count() -> None:
        while not over.wait(0.05):
            device.counter += 1

    thread = threading.Thread(target=count, daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


def never_back(values: list[str], what: str) -> None:
    numbers = [int(value) for value in values if value]
    assert numbers == sorted(numbers), f"{what} went back: {numbers}"


@pytest.mark.timeout(240)
def test_values_that_change_both_ways_agree_after_every_link_was_killed(up: Installation) -> None:
    device = HttpDevice()
    sockets = dmi_socket(up.layout, "edge-1").parent
    mapper = MapperProcess("http", sockets, up.layout.log("chaos-mapper"))
    with device.running():
        up.apply(http_model("chaos"), http_object("chaos", "edge-1", device.port, 1))
        mapper.start()
        try:
            eventually(lambda: twins(up, "chaos").get("level") == ("1", "1"), what="the chain works")
            watch = Watch(up, "chaos")
            try:
                level = 1
                with counting(device):
                    for victim in ("edgecore-edge-1", "mapper", "cloudcore", "mapper", "edgecore-edge-1"):
                        level = _change(up, level, 3)
                        if victim == "mapper":
                            mapper.kill()
                            level = _change(up, level, 2)
                            mapper.start()
                        else:
                            up.kill_child(victim)
                        level = _change(up, level, 3)
                    level = _change(up, level, 1)
                last = str(device.counter)
                eventually(
                    lambda: twins(up, "chaos") == {"level": (str(level),) * 2, "counter": (last, "")},
                    seconds=90,
                    what=f"level {level} and counter {last} everywhere; {device.written}; {twins(up, 'chaos')}",
                )
                states = watch.seen()
            finally:
                watch.end()
        except AssertionError as exc:
            raise AssertionError(f"{exc}\n{up.logs()}") from exc
        finally:
            mapper.kill()
    assert device.level == level
    never_back([str(value) for value in device.written], "what the device was given")
    assert len(states) > 5
    for prop in ("level", "counter"):
        never_back([state[prop][0] for state in states if prop in state], f"the reported {prop}")
    never_back([state["level"][1] for state in states if "level" in state], "the desired level")


def _change(up: Installation, level: int, times: int) -> int:
    for _ in range(times):
        level += 1
        want(up, "chaos", 0, str(level))
        time.sleep(0.2)
    return level
