"""`edgehive demo outage`: the cloud is stopped for a while under a running `edgehive demo devices`."""

import json
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Protocol

from edgehive.cli.console import Console, own_command
from edgehive.cli.demo_objects import DEVICE
from edgehive.cli.up_lock import ProcessId
from edgehive.kit.errors import UserError

_PATIENCE = 90.0
_KNOB = 10.0  # degrees: what somebody in the room sets at the device
_UNIT = 1
_TARGET = 1  # register


class Kubectl(Protocol):
    """Runs kubectl; its exit code and what it said."""

    def __call__(self, *arguments: str) -> tuple[int, str]:
        """Run it."""


class Room:
    """The thermostat as a person in the room has it: over Modbus, past the mapper."""

    def __init__(self, port: int) -> None:
        from pymodbus.client import ModbusTcpClient

        self._client: ModbusTcpClient = ModbusTcpClient("127.0.0.1", port=port, timeout=3)
        if not self._client.connect():  # type: ignore[no-untyped-call]
            raise UserError(
                f"no thermostat answers on 127.0.0.1:{port}",
                hint=f"in another terminal: {own_command()} demo devices",
            )

    def look(self) -> tuple[float, float]:
        """Temperature and target."""
        answer = self._client.read_holding_registers(0, count=2, device_id=_UNIT)
        if answer.isError():
            raise UserError(f"the thermostat does not answer: {answer}")
        return answer.registers[0] / 10, answer.registers[1] / 10

    def turn(self, degrees: float) -> None:
        """Turn the knob."""
        self._client.write_register(_TARGET, round(degrees * 10), device_id=_UNIT)

    def close(self) -> None:
        """Leave."""
        self._client.close()  # type: ignore[no-untyped-call]


def desired_target(device: Any) -> tuple[int, str]:
    """Where the target is among the properties of a Device, and its desired value.

    Raises:
        UserError: it is not the demo's Device.
    """
    try:
        for index, prop in enumerate(device["spec"]["properties"]):
            if prop["name"] == "target":
                float(prop["desired"]["value"])
                return index, prop["desired"]["value"]
    except (KeyError, TypeError, ValueError):
        pass
    raise UserError(f"Device {DEVICE} is not that of the demo, or has no desired target")


def run_outage(
    kubectl: Kubectl, cloudcore: ProcessId, console: Console, *, seconds: float, stop: list[int]
) -> None:
    """Stop cloudcore for `seconds`, change things on both sides, and show that they agree afterwards."""
    code, said = kubectl("get", "device", DEVICE, "-o", "json")
    if code:
        raise UserError(
            f"there is no Device {DEVICE}", hint=f"start it in another terminal: {own_command()} demo devices"
        )
    device = json.loads(said)
    index, old = desired_target(device)
    new = "24" if not same_number(old, "24") else "19"
    knob = _KNOB if not same_number(old, str(_KNOB)) else _KNOB + 5
    room = Room(int(device["spec"]["protocol"]["configData"]["port"]))

    def told(target: str) -> bool:
        code, said = kubectl("get", "devicestatus", DEVICE, "-o", "json")
        return code == 0 and same_number(_reported(said), target)

    try:
        # Both sides agree first: what was reported before would else be taken for what comes after.
        _wait(stop, lambda: told(old), f"the DeviceStatus does not show {old}")
        with _stopped(cloudcore):
            console.warn(f"cloudcore is stopped for {seconds:g} s")
            until = time.monotonic() + seconds
            patch = [{"op": "replace", "path": f"/spec/properties/{index}/desired/value", "value": new}]
            code, said = kubectl("patch", "device", DEVICE, "--type=json", "-p", json.dumps(patch))
            if code:
                raise UserError(f"the target cannot be changed: {said.strip()[:200]}")
            console.done(f"in Kubernetes the target is {new} now; the edge cannot know and holds {old}")
            room.turn(knob)
            console.done(f"somebody in the room turns the thermostat to {knob:g}")
            _wait(stop, lambda: room.look()[1] == float(old), "the mapper has not set the target back")
            console.done(f"the mapper has set it back to {old}, without the cloud")
            while not stop and time.monotonic() < until:
                console.step(f"room {room.look()[0]:.1f} °C, target {room.look()[1]:g}")
                time.sleep(min(5.0, max(0.0, until - time.monotonic())))
        console.done("cloudcore goes on")
        _wait(stop, lambda: room.look()[1] == float(new), f"the target {new} has not arrived at the edge")
        console.done(f"the edge has the new target: {room.look()[1]:g}")
        _wait(stop, lambda: told(new), f"the DeviceStatus does not show {new}")
        console.done(f"and Kubernetes shows it: reported and desired are {new}")
    finally:
        room.close()


def _reported(text: str) -> str:
    from edgehive.cli.demo import reported_values

    return reported_values(text).get("target", "")


def same_number(one: str, other: str) -> bool:
    """Whether two texts are the same number: a desired 1e1 is reported as 10."""
    try:
        return float(one) == float(other)
    except ValueError:
        return False


def _wait(stop: list[int], check: Any, problem: str) -> None:
    deadline = time.monotonic() + _PATIENCE
    while not check():
        if stop:
            raise UserError("interrupted")
        if time.monotonic() > deadline:
            raise UserError(problem, hint=f"{own_command()} status; the logs are in its data directory")
        time.sleep(0.2)


@contextmanager
def _stopped(process: ProcessId) -> Iterator[None]:
    """Hold a process, its connections half open; let it go on whatever happens."""
    process.kill(signal.SIGSTOP)
    try:
        yield
    finally:
        process.kill(signal.SIGCONT)
