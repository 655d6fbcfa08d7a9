"""A real `edgehive up` of the tests' own: temporary data directory, free ports, a real kubectl."""

import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from edgehive.cli.kubectl import carried_kubectl
from edgehive.cli.up_layout import Layout
from edgehive.cli.up_lock import ProcessId, end_leftovers, recorded_processes
from edgehive.kit.errors import UserError

START_SECONDS = 90.0


def find_kubectl() -> str:
    """A real kubectl, or nothing."""
    found = shutil.which("kubectl")
    if found:
        return found
    try:
        return str(carried_kubectl(os.environ))
    except UserError:
        return ""


_BLOCKS = range(21000, 32000, 200)
"""Below the ports that the kernel gives to outgoing connections."""
_OURS: set[int] = set()


def free_ports() -> tuple[int, int]:
    """An API port and the base of a block that is free right now, and that no other test run will take meanwhile."""
    start = os.getpid() % len(_BLOCKS)
    for base in [*_OURS, *_BLOCKS[start:], *_BLOCKS[:start]]:
        numbers = [base, *(base + 10 + offset for offset in (0, 2, 3, 4, 91, *range(100, 140)))]
        if (base in _OURS or _claim(base)) and all(_is_free(number) for number in numbers):
            return base, base + 10
    raise RuntimeError("no free block of ports")


def _claim(base: int) -> bool:
    """Tell other test runs on this machine to keep away, until this process ends."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as claim:
        try:
            claim.bind(f"\0edgehive-tests-{base}")
        except OSError:
            return False
        claim.detach()
    _OURS.add(base)
    return True


def _is_free(number: int) -> bool:
    with socket.socket() as sock:
        try:
            sock.bind(("127.0.0.1", number))
        except OSError:
            return False
    return True


def eventually(check: Callable[[], Any], *, seconds: float = 30.0, what: str = "") -> Any:
    """Call `check` until it returns something true; its last answer is in the failure."""
    deadline = time.monotonic() + seconds
    last: Any = None
    while True:
        try:
            last = check()
        except (AssertionError, subprocess.CalledProcessError, KeyError, IndexError) as exc:
            last = exc
        else:
            if last:
                return last
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {seconds:.0f} s: {what or check.__name__}; last: {last!r}")
        time.sleep(0.1)


@dataclass
class Installation:
    """One data directory and the `edgehive up` that runs in it, or does not at the moment."""

    root: Path
    flags: list[str] = field(default_factory=list)
    api_port: int = 0
    ports_from: int = 0
    process: "subprocess.Popen[bytes] | None" = None

    def __post_init__(self) -> None:
        if not self.api_port:
            self.api_port, self.ports_from = free_ports()

    @property
    def layout(self) -> Layout:
        return Layout(self.root)

    def command(self, *extra: str) -> list[str]:
        """The command line of its `edgehive up`."""
        return [
            sys.executable, "-m", "edgehive", "up", f"--data-dir={self.root}", f"--api-port={self.api_port}",
            f"--ports-from={self.ports_from}", *self.flags, *extra,
        ]  # fmt: skip

    def launch(self, *extra: str) -> None:
        """Start it without waiting."""
        self.root.mkdir(parents=True, exist_ok=True)
        with (self.root / "up.out").open("wb") as out:
            self.process = subprocess.Popen(
                self.command(*extra), stdout=out, stderr=out, start_new_session=True
            )

    def start(self, *extra: str) -> str:
        """Start it and return what it printed once it is up."""
        self.launch(*extra)
        assert self.process is not None
        deadline = time.monotonic() + START_SECONDS
        while "\nLogs: " not in self.output():
            if self.process.poll() is not None or time.monotonic() > deadline:
                raise AssertionError(f"edgehive up did not come up:\n{self.output()}\n{self.logs()}")
            time.sleep(0.05)
        return self.output()

    def output(self) -> str:
        """What it printed so far."""
        try:
            return (self.root / "up.out").read_text(errors="replace")
        except FileNotFoundError:
            return ""

    def logs(self, lines: int = 40) -> str:
        """The end of every log, for a failure's message."""
        found = sorted(self.layout.logs.glob("*.log")) if self.layout.logs.exists() else []
        return "\n".join(
            f"--- {path.name}\n" + "\n".join(path.read_text(errors="replace").splitlines()[-lines:])
            for path in found
        )

    def interrupt(self, number: signal.Signals = signal.SIGINT, seconds: float = 60.0) -> int:
        """Stop it as Ctrl-C does; return its exit code."""
        assert self.process is not None
        self.process.send_signal(number)
        code = self.process.wait(seconds)
        self.process = None
        return code

    def kill(self) -> None:
        """Kill the supervisor; what it started goes on."""
        assert self.process is not None
        self.process.kill()
        self.process.wait()
        self.process = None

    def processes(self) -> dict[str, ProcessId]:
        """Its processes by name."""
        return {process.name: process for process in recorded_processes(self.layout)}

    def pid(self, name: str) -> int:
        """The pid of one of them; 0 while it does not run."""
        process = self.processes().get(name)
        return process.pid if process else 0

    def kill_child(self, name: str) -> None:
        """Kill one of them and wait until the supervisor has started another one."""
        before = self.pid(name)
        os.kill(before, signal.SIGKILL)
        eventually(lambda: self.pid(name) not in (0, before), what=f"{name} is started again")

    # kubectl

    def kubectl(self, *arguments: str, stdin: str = "", check: bool = True, seconds: float = 60.0) -> str:
        """Run kubectl against it and return what it printed."""
        done = subprocess.run(
            [find_kubectl(), f"--kubeconfig={self.layout.kubeconfig}", *arguments],
            input=stdin.encode(),
            capture_output=True,
            timeout=seconds,
            check=False,
            env=os.environ | {"HOME": str(self.root)},  # its discovery cache
        )
        output = done.stdout.decode() + (done.stderr.decode() if done.returncode or not check else "")
        if check and done.returncode != 0:
            raise AssertionError(f"kubectl {' '.join(arguments)}: {output}")
        return output

    def get(self, *arguments: str) -> Any:
        """`kubectl get ... -o json`, decoded."""
        return json.loads(self.kubectl("get", *arguments, "-o", "json"))

    def apply(self, *objects: Any) -> str:
        """Apply objects given as dictionaries."""
        body = {"apiVersion": "v1", "kind": "List", "items": list(objects)}
        return self.kubectl("apply", "-f", "-", stdin=json.dumps(body))

    def pods(self, selector: str) -> list[dict[str, Any]]:
        """The pods with these labels."""
        items: list[dict[str, Any]] = self.get("pods", "-l", selector)["items"]
        return items

    def running(self, selector: str, count: int, seconds: float = 40.0) -> list[dict[str, Any]]:
        """Wait until exactly `count` pods of the selector exist and are Running and ready; return them."""

        def check() -> list[dict[str, Any]] | None:
            pods = self.pods(selector)
            return pods if len(pods) == count and all(is_ready(pod) for pod in pods) else None

        if count == 0:
            eventually(lambda: not self.pods(selector), seconds=seconds, what=f"no pod of {selector}")
            return []
        try:
            found: list[dict[str, Any]] = eventually(
                check, seconds=seconds, what=f"{count} pods of {selector}"
            )
        except AssertionError as exc:
            pods = self.kubectl("describe", "pods", check=False)
            raise AssertionError(f"{exc}\n{pods}\n{self.logs()}") from exc
        return found

    def clean(self) -> None:
        """End everything, also pods of the process runtime; for the end of a test."""
        if self.process is not None:
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.interrupt(seconds=40)
        if self.process is not None:
            self.kill()
        end_leftovers(recorded_processes(self.layout), patience=2.0)
        end_processes_below(self.root)
        unmount_below(self.root)


def is_ready(pod: dict[str, Any]) -> bool:
    """Running, with every container ready, and not on its way out."""
    status = pod.get("status", {})
    states = status.get("containerStatuses", [])
    return (
        status.get("phase") == "Running"
        and bool(states)
        and all(state.get("ready") for state in states)
        and "deletionTimestamp" not in pod["metadata"]
    )


def pod_processes(root: Path) -> dict[int, str]:
    """Processes that the process runtime of an installation started: pid and command line."""
    found = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                environment = (entry / "environ").read_bytes()
                line = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace").strip()
            except OSError:
                continue
            if b"EDGEHIVE_ROOT=" + str(root).encode() in environment:
                found[int(entry.name)] = line
    return found


def end_processes_below(root: Path) -> None:
    """Kill what the process runtime left running, shims included."""
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and int(entry.name) != os.getpid():
            with contextlib.suppress(OSError):
                line = (entry / "cmdline").read_bytes()
                if b"shim" in line and f"{root}/".encode() in line:
                    os.kill(int(entry.name), signal.SIGKILL)
    for pid in pod_processes(root):
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


def unmount_below(root: Path) -> None:
    """Take away the in-memory volumes of pods that were left running."""
    mounts = [line.split()[1] for line in Path("/proc/self/mounts").read_text().splitlines()]
    for mount in sorted((m for m in mounts if m.startswith(f"{root}/")), reverse=True):
        subprocess.run(["umount", "-l", mount], check=False, capture_output=True)


@contextlib.contextmanager
def installation(root: Path, *flags: str) -> Iterator[Installation]:
    """An installation that is cleaned up in the end, whatever happened."""
    made = Installation(root, list(flags))
    try:
        yield made
    finally:
        made.clean()
