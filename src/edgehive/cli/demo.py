"""`edgehive demo`: a simulated Modbus thermostat and its mapper on a running `edgehive up`, and a cloud that is away."""

import argparse
import contextlib
import json
import os
import shlex
import signal
import socket
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from types import FrameType
from typing import Any

import yaml

from edgehive.cli.console import Console, own_command
from edgehive.cli.demo_objects import DEVICE, device_object, model_object
from edgehive.cli.up_layout import Layout, default_data_dir
from edgehive.cli.up_lock import lock_holder, recorded_processes
from edgehive.cli.up_options import add_data_dir
from edgehive.cli.up_process import Child, describe_exit
from edgehive.kit.errors import UserError

_PATIENCE = 60.0
_PORT = 5020
_SOCKET_PATH = 100  # bytes a unix socket's path may have


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of the demos."""
    parser.add_argument(
        "what",
        choices=["devices", "outage"],
        help="devices: a thermostat on Modbus TCP; outage: stop the cloud for a while meanwhile",
    )
    add_data_dir(parser)
    parser.add_argument("--node", metavar="NODE", help="the edge node; default: the first")
    parser.add_argument(
        "--port", metavar="N", type=int, help="of the simulated thermostat (default: 5020, or any free one)"
    )
    parser.add_argument(
        "--seconds", metavar="N", type=float, default=30.0, help="how long the outage takes (default: 30)"
    )
    parser.add_argument("--keep", action="store_true", help="leave the Device and its model when it ends")


def run_demo(arguments: argparse.Namespace) -> int:
    """Run the demo until Ctrl-C."""
    layout = Layout(arguments.data_dir.expanduser().absolute())
    if not lock_holder(layout):
        raise UserError(f"nothing runs in {layout.root}", hint=f"start it with: {own_command()} up")
    _need_pymodbus()
    if arguments.what == "outage":
        return _outage(layout, arguments.seconds)
    node = arguments.node or first_node(layout)
    dmi = dmi_socket(layout, node)
    console = Console()
    port = arguments.port or _free_port()
    with _interruptible() as stop:
        children = _children(layout, node, dmi, port)
        try:
            for child in children:
                child.start()
                if child is children[0]:
                    _await_thermostat(child, port)
            console.done(f"a simulated thermostat on 127.0.0.1:{port} and its Modbus mapper")
            _apply(layout, node, port)
            console.done(f"Device {DEVICE} and its model, on node {node}")
            _show_first_values(layout, console, children, stop)
            _watch(children, console, stop)
        finally:
            _end(children)
            if not arguments.keep:
                _clean(layout, console)
    return 0


def _outage(layout: Layout, seconds: float) -> int:
    from edgehive.cli.demo_outage import run_outage

    cloudcore = next((p for p in recorded_processes(layout) if p.name == "cloudcore"), None)
    if cloudcore is None:
        raise UserError("cloudcore does not run", hint=f"{own_command()} status")

    def kubectl(*arguments: str) -> tuple[int, str]:
        return _kubectl(layout, *arguments)

    with _interruptible() as stop:
        run_outage(kubectl, cloudcore, Console(), seconds=seconds, stop=stop)
    return 0


def dmi_socket(layout: Layout, node: str) -> Path:
    """Where the node's edgecore serves mappers, by its configuration.

    Raises:
        UserError: there is no such node, or its device twin is off.
    """
    path = layout.edge(node) / "edgecore.yaml"
    try:
        config = yaml.safe_load(path.read_text(encoding="utf-8"))
        twin = config["modules"]["deviceTwin"]
        enabled, directory = twin["enable"], Path(twin["dmiSockPath"])
    except OSError as exc:
        raise UserError(
            f"there is no node {node} in {layout.root}", hint=f"{own_command()} kubectl get nodes"
        ) from exc
    except (yaml.YAMLError, KeyError, TypeError) as exc:
        raise UserError(f"{path} has no modules.deviceTwin.dmiSockPath") from exc
    if not enabled:
        raise UserError(f"the device twin of {node} is off", hint=f"modules.deviceTwin.enable in {path}")
    return directory / "dmi.sock"


def _need_pymodbus() -> None:
    try:
        import pymodbus  # noqa: F401
    except ImportError as exc:
        raise UserError(
            "the demo needs pymodbus",
            hint=f"make demo installs it; otherwise: {sys.executable} -m pip install 'pymodbus>=3.12'",
        ) from exc


def _free_port() -> int:
    """The usual port of the thermostat, or any free one."""
    for port in (_PORT, 0):
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(("127.0.0.1", port))
            return int(probe.getsockname()[1])
    raise UserError("there is no free port for the thermostat")


def _await_thermostat(child: Child, port: int) -> None:
    """Wait until the thermostat listens; the mapper would complain first."""
    deadline = time.monotonic() + 20
    while child.reap() is None and time.monotonic() < deadline:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
            return
        time.sleep(0.05)
    lines = " ".join(child.last_lines(2))
    raise UserError(
        f"the thermostat does not start: {lines or 'it does not listen'}", hint=f"see {child.log}"
    )


def first_node(layout: Layout) -> str:
    """The first edge node of an installation.

    Raises:
        UserError: there is none.
    """
    nodes = sorted(path.parent.name for path in (layout.root / "edge").glob("*/edgecore.yaml"))
    if not nodes:
        raise UserError(f"there is no edge node in {layout.root}", hint=f"start it with: {own_command()} up")
    return nodes[0]


def _children(layout: Layout, node: str, dmi: Path, port: int) -> list[Child]:
    socket = dmi.with_name("demo.sock")
    if len(os.fsencode(socket)) > _SOCKET_PATH:
        raise UserError(f"the path {socket} is too long for a socket", hint="use a shorter --data-dir")
    module = [sys.executable, "-m"]
    thermostat = [*module, "edgehive.mapper.thermostat", "--port", str(port)]
    mapper = [*module, "edgehive.mapper.modbus", "--name", "demo-modbus", "--http-port", "0"]
    mapper += ["--socket", str(socket), "--edgecore-sock", str(dmi)]
    return [
        Child(name, command=command, log=layout.log(name), environment=dict(os.environ))
        for name, command in (("demo-thermostat", thermostat), (f"demo-mapper-{node}", mapper))
    ]


def _kubectl(layout: Layout, *arguments: str, text: str = "") -> tuple[int, str]:
    import subprocess

    from edgehive.cli.kubectl import find_kubectl

    environment = {**os.environ, "KUBECONFIG": str(layout.kubeconfig)}
    done = subprocess.run(
        [str(find_kubectl(environment)), *arguments],
        input=text,
        capture_output=True,
        text=True,
        env=environment,
        timeout=60,
        check=False,
    )
    return done.returncode, done.stdout if done.returncode == 0 else done.stderr


def _apply(layout: Layout, node: str, port: int) -> None:
    """Create or update the objects; right after a start the API may not know devices yet."""
    documents = [model_object(), device_object(node, port)]
    text = json.dumps({"apiVersion": "v1", "kind": "List", "items": documents})
    deadline = time.monotonic() + _PATIENCE
    while True:
        code, said = _kubectl(layout, "apply", "-f", "-", text=text)
        if code == 0:
            return
        if time.monotonic() > deadline:
            raise UserError(f"the device cannot be made: {said.strip()[:400]}")
        time.sleep(1.0)


def _show_first_values(layout: Layout, console: Console, children: list[Child], stop: list[int]) -> None:
    deadline = time.monotonic() + _PATIENCE
    while not stop:
        code, said = _kubectl(layout, "get", "devicestatus", DEVICE, "-o", "json")
        values = reported_values(said) if code == 0 else {}
        if "temperature" in values:
            shown = ", ".join(f"{name} {value}" for name, value in sorted(values.items()))
            console.done(f"reported by the edge: {shown}")
            break
        if time.monotonic() > deadline:
            logs = ", ".join(str(child.log) for child in children)
            console.warn(f"no value has arrived yet; the logs are {logs}")
            break
        _restart(children, console)
        time.sleep(0.5)
    _print_next_steps(layout, console)


def _print_next_steps(layout: Layout, console: Console) -> None:
    program = own_command()
    elsewhere = layout.root != default_data_dir(os.environ).absolute()
    where = f" --data-dir {shlex.quote(str(layout.root))}" if elsewhere else ""
    kubectl = f"{program} kubectl{where}"
    patch = [{"op": "replace", "path": "/spec/properties/1/desired/value", "value": "24"}]
    console.line("\nIn another terminal:\n")
    console.line(f"  {kubectl} get devices --watch")
    console.line(f"  {kubectl} get devicestatus {DEVICE} -o yaml")
    console.line(f"  {kubectl} patch device {DEVICE} --type json -p '{json.dumps(patch)}'")
    console.line(f"  {program} demo outage{where}       # stops cloudcore for half a minute")
    console.line("\nCtrl-C ends the demo.")


def reported_values(text: str) -> dict[str, str]:
    """The reported values in a DeviceStatus."""
    try:
        status: Any = json.loads(text).get("status") or {}
        return {
            twin["propertyName"]: twin["reported"]["value"]
            for twin in status.get("twins") or []
            if twin.get("reported", {}).get("value")
        }
    except (ValueError, AttributeError, KeyError, TypeError):
        return {}


def _watch(children: list[Child], console: Console, stop: list[int]) -> None:
    while not stop:
        _restart(children, console)
        time.sleep(0.2)


def _restart(children: list[Child], console: Console) -> None:
    for child in children:
        code = child.reap()
        if code is not None:
            console.warn(f"{child.name} {describe_exit(code)}; see {child.log}")
            for line in child.last_lines(4):
                console.line(f"    {line}")
        child.start_if_due()


def _end(children: list[Child]) -> None:
    for child in reversed(children):
        child.signal(signal.SIGTERM)
    deadline = time.monotonic() + 10
    while any(child.pid for child in children):
        for child in children:
            child.reap()
            child.due = None
        if time.monotonic() > deadline:
            for child in children:
                child.signal(signal.SIGKILL)
        time.sleep(0.05)


def _clean(layout: Layout, console: Console) -> None:
    names = [f"device/{DEVICE}", f"devicemodel/{DEVICE}"]
    code, said = _kubectl(layout, "delete", "--ignore-not-found", "--wait=false", *names)
    if code:
        console.warn(f"the Device is still there: {said.strip()[:200]}")


@contextlib.contextmanager
def _interruptible() -> Iterator[list[int]]:
    """Collect SIGINT and SIGTERM in a list instead of dying from them."""
    seen: list[int] = []

    def note(number: int, _frame: FrameType | None) -> None:
        seen.append(number)

    old = {number: signal.signal(number, note) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield seen
    finally:
        for number, handler in old.items():
            signal.signal(number, handler)
