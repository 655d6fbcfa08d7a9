"""Memory of a process, read from the kernel."""

import os
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Memory:
    """MiB: resident, and private to the process."""

    rss: float
    uss: float


def memory_of(pid: int) -> Memory:
    """Read ``smaps_rollup``."""
    fields: dict[str, int] = {}
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text(encoding="ascii").splitlines()[1:]:
        name, _, value = line.partition(":")
        fields[name] = int(value.split()[0]) * 1024
    private = fields["Private_Clean"] + fields["Private_Dirty"]
    return Memory(round(fields["Rss"] / 2**20, 1), round(private / 2**20, 1))


def cpu_seconds(pid: int) -> float:
    """CPU time used so far."""
    fields = (
        Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()
    )
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def wait_until_quiet(pids: Sequence[int], seconds: float) -> None:
    """Wait at least `seconds`, and on (three times as long at most) until nothing works any more."""
    deadline = time.monotonic() + 3 * seconds
    time.sleep(seconds)
    while time.monotonic() < deadline:
        before = sum(cpu_seconds(pid) for pid in pids)
        time.sleep(1.0)
        if sum(cpu_seconds(pid) for pid in pids) - before < 0.1:
            return
