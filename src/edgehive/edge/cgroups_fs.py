"""The cgroups of pods on this machine: made before a sandbox, removed after it. cgroup v1, v2 and systemd slices.

Nothing here is remembered: what is there is looked at, so a restart of edgecore changes nothing.
"""

import asyncio
import contextlib
import logging
import os
import signal
import subprocess
import time
from collections.abc import Collection, Iterable, Sequence
from pathlib import Path

from edgehive.edge.cgroups import (
    SYSTEMD,
    CgroupRules,
    Limits,
    NoCgroups,
    PodCgroups,
    cgroup_name,
    files_v1,
    files_v2,
    parse_counters,
    pod_limits,
    pod_path,
    shared_limits,
    slice_directory,
    slice_properties,
)
from edgehive.edge.pods_spec import Pod
from edgehive.edge.programs import find_program
from edgehive.edge.runtime import RuntimeFailure, Usage

log = logging.getLogger(__name__)

_BASE = Path("/sys/fs/cgroup")
_QOS = ("Guaranteed", "Burstable", "BestEffort")
_TRIES, _PAUSE = 40, 0.05
_FORGOTTEN = 120.0
"""Seconds after which an empty cgroup of a pod that is not here is one that was left behind."""
_V1_CONTROLLERS = ("cpu", "cpuacct", "memory", "pids")


class Hierarchy:
    """The mounted cgroup file systems. `base` is ``/sys/fs/cgroup``."""

    def __init__(self, base: Path = _BASE) -> None:
        self.base = base
        self.unified = (base / "cgroup.controllers").exists()

    def controllers(self) -> list[Path]:
        """The root directory of each hierarchy."""
        if self.unified:
            return [self.base]
        return [d for d in sorted(self.base.iterdir()) if d.is_dir() and not d.is_symlink()]

    def writable(self) -> bool:
        """Whether cgroups can be made here."""
        if os.geteuid() != 0 or not self.base.is_dir():
            return False
        roots = [self.base] if self.unified else [self.base / name for name in _V1_CONTROLLERS]
        # A read-only mount refuses root as well; access(2) tells of both.
        return all(root.is_dir() and os.access(root, os.W_OK) for root in roots)

    def make(self, parts: Sequence[str]) -> None:
        """Make a cgroup, in every hierarchy whose limits are set; raises `OSError`."""
        if not self.unified:
            for name in _V1_CONTROLLERS:
                self.base.joinpath(name, *parts).mkdir(parents=True, exist_ok=True)
            return
        directory = self.base
        for part in parts:
            self._delegate(directory)
            directory /= part
            directory.mkdir(exist_ok=True)
        self._delegate(directory)

    def _delegate(self, directory: Path) -> None:
        """Cgroup v2: controllers are of use below a cgroup only when it passes them on."""
        there = (directory / "cgroup.controllers").read_text().split()
        given = (directory / "cgroup.subtree_control").read_text().split()
        for name in there:
            if name not in given:
                with contextlib.suppress(OSError):  # one that cannot be passed on stays as it is
                    (directory / "cgroup.subtree_control").write_text(f"+{name}")

    def set(self, parts: Sequence[str], limits: Limits) -> None:
        """Write limits; raises `OSError`. A controller this kernel does not have is passed over."""
        for controller, file, value in files_v2(limits) if self.unified else files_v1(limits):
            path = self.base.joinpath(*([] if self.unified else [controller]), *parts, file)
            if path.exists() and path.read_text().strip() != value:
                path.write_text(value)

    def joins(self, parts: Sequence[str]) -> list[str]:
        """The files that a process writes its id to, to be in a cgroup."""
        names = [()] if self.unified else [(name,) for name in _V1_CONTROLLERS]
        return [str(self.base.joinpath(*name, *parts, "cgroup.procs")) for name in names]

    def usage(self, parts: Sequence[str], now: float) -> Usage | None:
        """What a cgroup uses; None when it is not there."""
        memory = self.base.joinpath(*([] if self.unified else ["memory"]), *parts)
        try:
            stat = parse_counters((memory / "memory.stat").read_text())
            if self.unified:
                total = int((memory / "memory.current").read_text())
                cpu = parse_counters((memory / "cpu.stat").read_text()).get("usage_usec", 0) * 1000
                pids = (memory / "pids.current").read_text()
                resident, idle = stat.get("anon", 0), stat.get("inactive_file", 0)
            else:
                total = int((memory / "memory.usage_in_bytes").read_text())
                cpu = int(self.base.joinpath("cpuacct", *parts, "cpuacct.usage").read_text())
                pids = self.base.joinpath("pids", *parts, "pids.current").read_text()
                resident, idle = stat.get("total_rss", 0), stat.get("total_inactive_file", 0)
        except (OSError, ValueError):
            return None
        faults = stat.get("total_pgfault", stat.get("pgfault", 0))
        major = stat.get("total_pgmajfault", stat.get("pgmajfault", 0))
        working = max(total - idle, 0)
        return Usage(working, 0, int(pids), now, cpu, total, resident, faults, major)

    def was_short_of_memory(self, parts: Sequence[str]) -> bool:
        """Whether the kernel has killed something in a cgroup for its memory limit."""
        names = ("memory.events",) if self.unified else ("memory", *parts, "memory.oom_control")
        path = self.base.joinpath(*parts, *names) if self.unified else self.base.joinpath(*names)
        try:
            return parse_counters(path.read_text()).get("oom_kill", 0) > 0
        except OSError:
            return False

    def sweep(self, parts: Sequence[str], known: Collection[str], older_than: float) -> None:
        """Remove cgroups of pods below `parts` that nobody knows and nothing runs in; `older_than` is a time.

        They are left when a runtime or an edgecore went down between two steps. One that another edgecore has just
        made is younger, and a pod that is there has processes, if only the one that holds its namespaces.
        """
        index = self.base if self.unified else self.base / "memory"
        for directory in index.joinpath(*parts).glob("pod*"):
            with contextlib.suppress(OSError):
                if directory.name.removeprefix("pod") not in known and directory.stat().st_mtime < older_than:
                    self._remove_empty((*parts, directory.name))

    def _remove_empty(self, parts: Sequence[str]) -> None:
        found = [d for root in self.controllers() if (d := root.joinpath(*parts)).is_dir()]
        below = [Path(current) for directory in found for current, _, _ in os.walk(directory, topdown=False)]
        if not any((directory / "cgroup.procs").read_text() for directory in below):
            for directory in below:
                directory.rmdir()

    def remove(self, parts: Sequence[str]) -> bool:
        """Try to remove a cgroup with all below it; False while something runs there, which is killed."""
        gone = True
        for root in self.controllers():
            directory = root.joinpath(*parts)
            if directory.is_dir():
                gone = _remove_tree(directory) and gone
        return gone


def _remove_tree(directory: Path) -> bool:
    for current, names, _files in os.walk(directory, topdown=False):
        del names
        with contextlib.suppress(OSError):
            os.rmdir(current)  # noqa: PTH106 - the files of a cgroup are not entries to be deleted
            continue
        with contextlib.suppress(OSError, ValueError):
            for line in Path(current, "cgroup.procs").read_text().split():
                os.kill(int(line), signal.SIGKILL)
    return not directory.exists()


class Cgroups:
    """Pod cgroups by the cgroupfs driver."""

    def __init__(self, rules: CgroupRules, hierarchy: Hierarchy | None = None) -> None:
        self.rules: CgroupRules | None = rules
        self._rules = rules
        self._hierarchy = hierarchy or Hierarchy()
        self._root = tuple(part for part in rules.root.split("/") if part)

    async def ensure(self, pod: Pod) -> None:
        path = (*self._root, *pod_path(pod.qos_class, pod.uid))
        try:
            self._hierarchy.make(path)
            self._hierarchy.set(path, pod_limits(self._rules, pod))
        except OSError as exc:
            raise _failed(exc) from exc

    async def remove(self, uid: str) -> None:
        for qos in _QOS:
            path = (*self._root, *pod_path(qos, uid))
            for _ in range(_TRIES):
                if self._hierarchy.remove(path):
                    break
                await asyncio.sleep(_PAUSE)
            else:
                log.warning("cgroup %s cannot be removed: something in it does not end", "/".join(path))

    async def balance(self, pods: Iterable[Pod]) -> None:
        pods = list(pods)
        known = {pod.uid for pod in pods}
        for below, limits in shared_limits(self._rules, pods).items():
            path = (*self._root, *below)
            self._hierarchy.sweep(path, known, time.time() - _FORGOTTEN)
            try:
                self._hierarchy.make(path)
                self._hierarchy.set(path, limits)
            except OSError as exc:
                log.warning("cgroup %s: %s", "/".join(path), exc.strerror)


class Slices:
    """Pod cgroups by systemd: a slice a pod, which goes when it is stopped."""

    def __init__(self, rules: CgroupRules, hierarchy: Hierarchy | None = None) -> None:
        self.rules: CgroupRules | None = rules
        self._rules = rules
        self._hierarchy = hierarchy or Hierarchy()
        self._weights: dict[str, list[str]] = {}

    async def ensure(self, pod: Pod) -> None:
        name = cgroup_name(self._rules, pod_path(pod.qos_class, pod.uid))
        try:
            await self._set(name, slice_properties(pod_limits(self._rules, pod)))
        except OSError as exc:
            raise _failed(exc) from exc

    async def _set(self, name: str, properties: list[str]) -> None:
        await _systemctl("start", name)
        await _systemctl("set-property", "--runtime", name, *properties)

    async def remove(self, uid: str) -> None:
        for qos in _QOS:
            name = cgroup_name(self._rules, pod_path(qos, uid))
            if any((root / slice_directory(name)).is_dir() for root in self._hierarchy.controllers()):
                with contextlib.suppress(OSError):
                    await _systemctl("stop", name)

    async def balance(self, pods: Iterable[Pod]) -> None:
        for below, limits in shared_limits(self._rules, pods).items():
            name, wanted = cgroup_name(self._rules, below), slice_properties(limits)
            if wanted and self._weights.get(name) != wanted:
                try:
                    await self._set(name, wanted)
                except OSError as exc:
                    log.warning("%s: %s", name, exc)
                    continue
                self._weights[name] = wanted


async def _systemctl(*arguments: str) -> None:
    process = await asyncio.create_subprocess_exec(
        "systemctl", "--no-ask-password", *arguments, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
    )
    _, error = await process.communicate()
    if process.returncode:
        raise OSError(
            process.returncode, f"systemctl {arguments[0]}: {error.decode(errors='replace').strip()[:300]}"
        )


def _failed(exc: OSError) -> RuntimeFailure:
    where = f" ({exc.filename})" if exc.filename else ""
    return RuntimeFailure("FailedCreatePodContainer", f"the pod's cgroup: {exc.strerror}{where}")


def open_cgroups(rules: CgroupRules, hierarchy: Hierarchy | None = None) -> PodCgroups:
    """The cgroups that can be had here; without any, why is in the log."""
    if rules.driver == SYSTEMD:
        if os.geteuid() == 0 and find_program("systemctl") and Path("/run/systemd/system").is_dir():
            return Slices(rules, hierarchy)
        log.warning(
            "pods get no cgroups of their own: cgroupDriver is systemd, which does not run this machine"
        )
        return NoCgroups()
    hierarchy = hierarchy or Hierarchy()
    if hierarchy.writable():
        return Cgroups(rules, hierarchy)
    log.warning("pods get no cgroups of their own: %s cannot be written here", hierarchy.base)
    return NoCgroups()
