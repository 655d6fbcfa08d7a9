"""The node's own counters for its statistics: CPU, memory, network and processes, read from /proc.

`root` is ``/``; a test brings its own machine.
"""

import os
from pathlib import Path

from edgehive.edge.runtime import Interface

_TICK = 1_000_000_000 // os.sysconf("SC_CLK_TCK")
_PAGE = os.sysconf("SC_PAGE_SIZE")
_NOT_OURS = ("lo", "veth")


class Machine:
    """Reads the counters of a machine."""

    def __init__(self, root: Path = Path("/")) -> None:
        self._proc = root / "proc"

    def _lines(self, name: str) -> list[str]:
        try:
            return (self._proc / name).read_text(encoding="utf-8", errors="replace").splitlines()
        except OSError:
            return []

    def cpu(self) -> tuple[int, float]:
        """(nanoseconds of one core in use since boot, when the machine was booted)."""
        used, booted = 0, 0.0
        for line in self._lines("stat"):
            name, *fields = line.split()
            if name == "cpu" and len(fields) >= 7:
                user, nice, system, _idle, _wait, irq, softirq = (int(n) for n in fields[:7])
                used = (user + nice + system + irq + softirq) * _TICK
            elif name == "btime" and fields:
                booted = float(fields[0])
        return used, booted

    def memory(self) -> tuple[int, int, int, int]:
        """(used with caches, working set, anonymous, swap in use), bytes.

        The working set is what is used less the file pages that were not touched for long, as cadvisor has it.
        """
        info = {}
        for line in self._lines("meminfo"):
            name, _, rest = line.partition(":")
            number = rest.split()
            if number and number[0].isdigit():
                info[name] = int(number[0]) * 1024
        used = info.get("MemTotal", 0) - info.get("MemFree", 0)
        working = max(used - info.get("Inactive(file)", 0), 0)
        swap = info.get("SwapTotal", 0) - info.get("SwapFree", 0)
        return used, working, info.get("AnonPages", 0), swap

    def page_faults(self) -> tuple[int, int]:
        """(all, major) page faults since boot."""
        found = dict(line.split() for line in self._lines("vmstat") if len(line.split()) == 2)
        return int(found.get("pgfault", 0)), int(found.get("pgmajfault", 0))

    def interfaces(self) -> tuple[list[Interface], str]:
        """The interfaces of the node, without loopback and those of pods; and the one of the default route."""
        default = ""
        for line in self._lines("net/route")[1:]:
            fields = line.split()
            if len(fields) > 7 and fields[1] == "00000000" and fields[7] == "00000000":
                default = fields[0]
                break
        found = []
        for line in self._lines("net/dev")[2:]:
            name, _, rest = line.partition(":")
            numbers = rest.split()
            if len(numbers) >= 11 and not name.strip().startswith(_NOT_OURS):
                received, errors, sent, send_errors = (int(numbers[n]) for n in (0, 2, 8, 10))
                found.append(Interface(name.strip(), received, errors, sent, send_errors))
        return found, default

    def processes(self) -> tuple[int, int]:
        """(most there may be, how many there are)."""
        limit = "".join(self._lines("sys/kernel/pid_max"))
        fields = "".join(self._lines("loadavg")).split()
        running = fields[3].partition("/")[2] if len(fields) > 3 else ""
        return int(limit) if limit.isdigit() else 0, int(running) if running.isdigit() else 0
