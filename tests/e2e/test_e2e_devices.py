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
from pathlib import Path
from typing import Any

import pytest
import yaml

pytest.importorskip("pymodbus", reason="the extra mapper-modbus is not installed")

from edgehive.cli.demo import dmi_socket
from edgehive.cli.demo_outage import Room
from edgehive.cli.up_layout import Ports
from tests.support.devices import HttpDevice, MapperProcess, http_model, http_object, mqtt_objects, twins_of
from tests.support.installation import Installation, eventually
from tests.support.servers import free_port, mosquitto, need

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
        with pytest.raises(AssertionError, match="must be less than or equal to 30"):
            want(up, "thermostat", 1, "99")
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


class Mosquitto:
    """mosquitto_pub and mosquitto_sub at one broker."""

    def __init__(self, port: int, out: Path) -> None:
        self._where = ["-h", "127.0.0.1", "-p", str(port)]
        self._out = out
        with out.open("ab") as file:
            command = [need("mosquitto_sub"), *self._where, "-v", "-q", "1", "-t", "$hw/events/#"]
            self._sub = subprocess.Popen(command, stdout=file, stderr=subprocess.DEVNULL)

    def publish(self, topic: str, body: Any, *, check: bool = True) -> bool:
        """Publish; tell whether the broker took it."""
        command = [need("mosquitto_pub"), *self._where, "-q", "1", "-t", topic, "-m", json.dumps(body)]
        done = subprocess.run(command, capture_output=True, timeout=20, check=False)
        assert done.returncode == 0 or not check, done.stderr
        return done.returncode == 0

    def heard(self, topic: str) -> list[Any]:
        """What was published on a topic so far."""
        lines = self._out.read_text(errors="replace").splitlines()
        return [
            json.loads(text) for name, _, text in (line.partition(" ") for line in lines) if name == topic
        ]

    def end(self) -> None:
        self._sub.kill()
        self._sub.wait()


def update(value: int) -> dict[str, Any]:
    """A report of an MQTT client."""
    now = int(time.time() * 1000)
    return {"event_id": str(value), "timestamp": now, "twin": {"power": {"actual": {"value": str(value)}}}}


def test_mqtt_clients_of_the_embedded_broker_see_and_change_devices(up: Installation) -> None:
    up.apply(*mqtt_objects("meter", "edge-1", 5))
    here = "$hw/events/device/default/meter"
    client = Mosquitto(Ports(up.api_port, up.ports_from).mqtt(0), up.root / "embedded.out")
    base = {"event_id": "e", "timestamp": 1}
    try:

        def online() -> bool:
            client.publish(f"{here}/state/update", {**base, "state": "online"})
            return bool(client.heard(f"{here}/state/update/result"))

        eventually(online, what="a state is taken once the device is here")
        eventually(lambda: up.get("devicestatus", "meter")["status"]["state"] == "online", what="and shown")
        client.publish(f"{here}/twin/update", update(42))
        eventually(
            lambda: twins(up, "meter")["power"][0] == "42", what="the value of an MQTT client is shown"
        )
        (result,) = client.heard(f"{here}/twin/update/result")
        assert result["event_id"] == "42"
        (document,) = (d for d in client.heard(f"{here}/twin/update/document") if "power" in d["twin"])
        assert document["twin"]["power"]["current"]["actual"]["value"] == "42"
        want(up, "meter", 0, "7")
        eventually(
            lambda: [d for d in client.heard(f"{here}/twin/update/delta") if d["delta"].get("target") == "7"],
            what="a desired value of the Device object reaches MQTT clients",
        )
        documents = client.heard(f"{here}/twin/update/document")
        assert any(
            d["twin"]["target"]["current"]["expected"]["value"] == "7"
            for d in documents
            if "target" in d["twin"]
        )
        client.publish(f"{here}/twin/get", base)
        (answer,) = eventually(lambda: client.heard(f"{here}/twin/get/result"), what="twin/get is answered")
        assert answer["twin"]["target"]["expected"]["value"] == "7"
        assert answer["twin"]["power"]["actual"]["value"] == "42"
        client.publish("$hw/events/node/edge-1/membership/get", base)
        (members,) = eventually(
            lambda: client.heard("$hw/events/node/edge-1/membership/get/result"), what="membership/get"
        )
        assert "default/meter" in {member["id"] for member in members["devices"]}
        up.kubectl("delete", "device", "meter")  # and at once again, as people do who correct a mistake
        up.apply(*mqtt_objects("meter", "edge-1", 8))
        eventually(lambda: twins(up, "meter")["target"] == ("", "8"), seconds=20, what="a new life begins")
    except AssertionError as exc:
        raise AssertionError(f"{exc}\n{up.logs()}") from exc
    finally:
        client.end()


def use_external_broker(up: Installation, port: int) -> None:
    """Let the edge use a broker of ours beside its own, as of its next start."""
    path = up.layout.edge("edge-1") / "edgecore.yaml"
    config = yaml.safe_load(path.read_text())
    config["modules"]["eventBus"] |= {"mqttMode": 1, "mqttServerExternal": f"tcp://127.0.0.1:{port}"}
    path.write_text(yaml.safe_dump(config))
    up.kill_child("edgecore-edge-1")


@pytest.mark.timeout(280)
def test_values_that_change_both_ways_agree_after_every_link_was_killed(up: Installation) -> None:
    device, port = HttpDevice(), free_port()
    sockets = dmi_socket(up.layout, "edge-1").parent
    mapper = MapperProcess("http", sockets, up.layout.log("chaos-mapper"))
    with contextlib.ExitStack() as stack, contextlib.ExitStack() as broker:
        stack.enter_context(device.running())
        broker.enter_context(mosquitto(up.root, port))
        use_external_broker(up, port)
        client = Mosquitto(port, up.root / "external.out")
        stack.callback(client.end)
        objects = mqtt_objects("meter", "edge-1", 1)
        up.apply(http_model("chaos"), http_object("chaos", "edge-1", device.port, 1), *objects)
        stack.callback(mapper.kill)
        mapper.start()
        chain = Chain(up, client)
        try:
            eventually(chain.works, what="the chain works")
            watches = [Watch(up, name) for name in ("chaos", "meter")]
            for watch in watches:
                stack.callback(watch.end)
            with counting(device):
                for victim in (
                    "edgecore-edge-1",
                    "mapper",
                    "broker",
                    "cloudcore",
                    "mapper",
                    "edgecore-edge-1",
                ):
                    chain.change(3)
                    if victim == "mapper":
                        mapper.kill()
                        chain.change(2)
                        mapper.start()
                    elif victim == "broker":
                        broker.close()
                        chain.change(2)
                        broker.enter_context(mosquitto(up.root, port))
                    else:
                        up.kill_child(victim)
                chain.change(3)
            last = str(device.counter)
            eventually(
                lambda: chain.agrees(last), seconds=90, what=f"{chain.level} and counter {last} everywhere"
            )
        except AssertionError as exc:
            raise AssertionError(f"{exc}\n{device.written}\n{chain.shown()}\n{up.logs()}") from exc
        states = {name: watch.seen() for name, watch in zip(("chaos", "meter"), watches, strict=True)}
    assert device.level == chain.level
    never_back([str(value) for value in device.written], "what the device was given")
    for name, prop, half in (
        ("chaos", "level", 0),
        ("chaos", "level", 1),
        ("chaos", "counter", 0),
        ("meter", "power", 0),
        ("meter", "target", 1),
    ):
        values = [state[prop][half] for state in states[name] if prop in state]
        assert len(set(values)) > 3
        never_back(values, f"{prop} of {name}")


class Chain:
    """Desired values from kubectl to a mapper's device and to an MQTT client, reports from both back to kubectl."""

    def __init__(self, up: Installation, client: Mosquitto) -> None:
        self._up = up
        self._client = client
        self.level = 1

    def works(self) -> bool:
        """Whether everything has gone both ways once."""
        self._report()
        return twins(self._up, "chaos")["level"] == ("1", "1") and twins(self._up, "meter")["power"][0] == "1"

    def change(self, times: int) -> None:
        """Change all there is to change."""
        for _ in range(times):
            self.level += 1
            want(self._up, "chaos", 0, str(self.level))
            want(self._up, "meter", 0, str(self.level))
            self._report()
            time.sleep(0.1)

    def agrees(self, counter: str) -> bool:
        """Whether both sides have the last values; an MQTT client repeats what was not answered."""
        level = str(self.level)
        power = twins(self._up, "meter").get("power", ("", ""))[0]
        if power != level:
            self._report()
        here = "$hw/events/device/default/meter"
        self._client.publish(f"{here}/twin/get", {"event_id": "last", "timestamp": 1}, check=False)
        expected = [
            answer["twin"]["target"]["expected"]["value"]
            for answer in self._client.heard(f"{here}/twin/get/result")
        ]
        return (
            twins(self._up, "chaos") == {"level": (level, level), "counter": (counter, "")}
            and twins(self._up, "meter")["target"][1] == power == level
            and expected[-1:] == [level]
        )

    def shown(self) -> str:
        """What Kubernetes shows."""
        return f"{self.level}: {twins(self._up, 'chaos')} {twins(self._up, 'meter')}"

    def _report(self) -> None:
        self._client.publish("$hw/events/device/default/meter/twin/update", update(self.level), check=False)
