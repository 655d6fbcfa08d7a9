"""One `edgehive up` per data directory, and what an earlier one left behind.

A lock file held by `flock` says that one runs; the kernel drops it when the process dies, however it dies.
`processes.json` names the processes that were started, each by pid and start time: a pid alone may have been
given to another program since.
"""

import contextlib
import fcntl
import json
import os
import signal
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

from edgehive.cli.console import own_command
from edgehive.cli.up_configs import write_private
from edgehive.cli.up_layout import Layout
from edgehive.kit.errors import UserError


@dataclass(frozen=True, slots=True)
class ProcessId:
    """A process that cannot be mistaken for a later one."""

    name: str
    pid: int
    started: int
    """Clock ticks since boot, field 22 of ``/proc/PID/stat``."""
    boot: str = ""
    """Which boot that was: after a reboot both numbers may come again. Empty in records of older versions."""

    def alive(self) -> bool:
        """Whether exactly this process still runs."""
        return start_time(self.pid) == self.started and self.boot in ("", boot_id())

    def kill(self, number: signal.Signals) -> None:
        """Signal it, if it is still the same one."""
        if self.alive():
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, number)


def boot_id() -> str:
    """What the kernel calls this boot; empty where it does not say."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    except (OSError, UnicodeDecodeError):
        return ""


def start_time(pid: int) -> int:
    """When a process started; 0 if there is none or only its exit status is left."""
    try:
        fields = (
            Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()
        )
    except OSError:
        return 0
    return 0 if fields[0] == "Z" else int(fields[19])


@contextlib.contextmanager
def hold_lock(layout: Layout) -> Iterator[None]:
    """Hold the data directory's lock.

    Raises:
        UserError: another `edgehive up` holds it.
    """
    path = layout.run / "lock"
    with path.open("a+", encoding="utf-8") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as exc:
            file.seek(0)
            raise UserError(
                f"another edgehive up (process {file.read().strip() or 'unknown'}) already runs in {layout.root}",
                hint=f"use it, stop it with: {own_command()} down, or choose another --data-dir",
            ) from exc
        file.truncate(0)
        file.write(f"{os.getpid()}\n")
        file.flush()
        yield


def lock_holder(layout: Layout) -> int:
    """The pid of the `edgehive up` that runs in this directory, 0 if none does."""
    try:
        with (layout.run / "lock").open("r+", encoding="utf-8") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                return int(file.read().strip() or 0)
    except (OSError, ValueError):
        pass
    return 0


def record_processes(layout: Layout, processes: list[ProcessId]) -> None:
    """Remember what runs."""
    text = json.dumps([asdict(process) for process in processes], indent=1)
    write_private(layout.run / "processes.json", text + "\n")


def recorded_processes(layout: Layout) -> list[ProcessId]:
    """What an earlier run recorded and is still alive."""
    try:
        entries = json.loads((layout.run / "processes.json").read_text(encoding="utf-8"))
        found = [
            ProcessId(str(e["name"]), int(e["pid"]), int(e["started"]), str(e.get("boot", "")))
            for e in entries
        ]
    except (OSError, ValueError, TypeError, KeyError, AttributeError):
        return []
    return [process for process in found if process.alive()]


def end_leftovers(processes: list[ProcessId], patience: float = 10.0) -> None:
    """End processes whose supervisor died: politely, then for good."""
    for number, wait in ((signal.SIGTERM, patience), (signal.SIGKILL, 5.0)):
        for process in processes:
            process.kill(number)
        deadline = time.monotonic() + wait
        while any(process.alive() for process in processes) and time.monotonic() < deadline:
            time.sleep(0.05)
