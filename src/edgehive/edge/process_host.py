"""Host files and processes as the process runtime needs them: working directories, signals, logs."""

import contextlib
import os
import subprocess
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from edgehive.edge.process_shim import CONTAINER_VARIABLE
from edgehive.edge.programs import find_program
from edgehive.edge.runtime import Mount, RuntimeFailure, Usage


def hash_text(text: str) -> int:
    """A stable number for a script's name."""
    value = 0
    for byte in text.encode():
        value = (value * 131 + byte) & 0xFFFFFFFFFFFF
    return value


def guard_writes(write: Callable[[], object]) -> None:
    """Do `write`, with a failure told as the runtime tells it."""
    try:
        write()
    except OSError as exc:
        what = exc.filename or "the container's files"
        raise RuntimeFailure("CreateContainerError", f"cannot write {what}: {exc.strerror}") from exc


def may_unshare() -> bool:
    """Whether this process may make private mount namespaces."""
    if os.geteuid() != 0 or find_program("unshare") is None or find_program("nsenter") is None:
        return False
    test = subprocess.run(["unshare", "-m", "true"], check=False, capture_output=True, timeout=10)
    return test.returncode == 0


def missing_paths(paths: Sequence[str]) -> list[str]:
    """Return what does not exist yet of `paths` and the directories above them."""
    missing: list[str] = []
    for text in paths:
        path = Path(text)
        missing += [str(p) for p in (path, *path.parents) if not p.exists() and str(p) not in missing]
    return missing


def remove_mount_points(paths: Sequence[str]) -> None:
    """Remove empty directories and files that were made to mount something there."""
    for path in sorted(paths, reverse=True):
        with contextlib.suppress(OSError):
            target = Path(path)
            if target.is_dir():
                target.rmdir()
            elif target.is_file() and target.stat().st_size == 0:
                target.unlink()


def link_mounts(root: Path, mounts: Sequence[Mount]) -> None:
    """Make every mount reachable below `root` by a symlink."""
    for mount in sorted(mounts, key=lambda m: m.container_path):
        link = root / mount.container_path.lstrip("/")
        if ".." in link.parts or any(
            parent.is_symlink() for parent in link.parents if root in parent.parents
        ):
            continue
        link.parent.mkdir(parents=True, exist_ok=True)
        if not link.exists():
            link.symlink_to(mount.host_path)


def working_directory(root: Path, wanted: str) -> Path:
    """Return the directory a command starts in, made below `root` if the host has none."""
    if not wanted:
        return root
    if Path(wanted).is_dir():
        return Path(wanted)
    directory = root / wanted.lstrip("/")
    if ".." in directory.parts:
        raise RuntimeFailure("CreateContainerConfigError", f"workingDir {wanted!r} is not usable")
    directory.mkdir(parents=True, exist_ok=True)
    return directory


def _user(security: Mapping[str, object]) -> tuple[int, int] | None:
    user, group = security.get("runAsUser"), security.get("runAsGroup")
    if os.geteuid() != 0 or not isinstance(user, int):
        return None
    return user, group if isinstance(group, int) else user


def give_to_user(directory: Path, security: Mapping[str, object]) -> None:
    """Make a working directory writable for the user asked for."""
    if (owner := _user(security)) is not None:
        os.chown(directory, *owner)


def user_prefix(security: Mapping[str, object]) -> list[str]:
    """Return the command prefix that changes to the user asked for."""
    if (owner := _user(security)) is None:
        return []
    user, group = owner
    return ["setpriv", f"--reuid={user}", f"--regid={group}", "--clear-groups"]


def send_signal(pid: int, number: int) -> None:
    """Signal one process, which may be gone."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.kill(pid, number)


def signal_group(pid: int, number: int) -> None:
    """Signal a process group, which may be gone."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(pid, number)


def container_processes(container_id: str) -> list[int]:
    """Find every process that carries the container's mark, also those that left its process group."""
    mark = f"{CONTAINER_VARIABLE}={container_id}".encode()
    found = []
    for entry in os.scandir("/proc"):
        if entry.name.isdigit():
            with contextlib.suppress(OSError):
                if mark in Path(entry.path, "environ").read_bytes().split(b"\0"):
                    found.append(int(entry.name))
    return found


def process_usage(container_ids: Sequence[str], now: float) -> dict[str, Usage]:
    """Add up what the processes that carry each container's mark take, in one walk over /proc.

    Of a process that has ended its parent's counters tell, once the parent has waited for it.
    """
    wanted = {f"{CONTAINER_VARIABLE}={one}".encode(): one for one in container_ids}
    total = {one: Usage(at=now) for one in container_ids}
    for entry in os.scandir("/proc"):
        if not entry.name.isdigit():
            continue
        with contextlib.suppress(OSError, ValueError, IndexError):
            for mark in wanted.keys() & set(Path(entry.path, "environ").read_bytes().split(b"\0")):
                total[wanted[mark]] = _add(total[wanted[mark]], Path(entry.path))
    return total


_PAGE = os.sysconf("SC_PAGE_SIZE")
_TICK = 1_000_000_000 // os.sysconf("SC_CLK_TCK")


def _add(before: Usage, process: Path) -> Usage:
    resident, shared = process.joinpath("statm").read_text().split()[1:3]
    # See proc(5); the first of these fields is the third.
    fields = process.joinpath("stat").read_text().rpartition(") ")[2].split()
    minor, minor_of_children, major, major_of_children = (int(fields[n]) for n in range(7, 11))
    own = (int(resident) - int(shared)) * _PAGE
    return Usage(
        memory=before.memory + own,
        processes=before.processes + 1,
        at=before.at,
        cpu=before.cpu + sum(int(fields[n]) for n in range(11, 15)) * _TICK,
        total=before.total + int(resident) * _PAGE,
        resident=before.resident + own,
        page_faults=before.page_faults + minor + minor_of_children,
        major_page_faults=before.major_page_faults + major + major_of_children,
    )


def check_process_pod(pod: Mapping[str, object]) -> None:
    """Refuse a pod that cannot be run as processes; raises `RuntimeFailure`."""
    spec = pod.get("spec")
    spec = spec if isinstance(spec, dict) else {}
    if find_program("setsid") is None:
        raise RuntimeFailure("SetsidRequired", "the process runtime needs the setsid program (util-linux)")
    for one in (*(spec.get("initContainers") or ()), *(spec.get("containers") or ())):
        if not one.get("command"):
            text = (
                f'container "{one.get("name")}" has no command; this node runs pods as processes, without '
                "images, so the command must be in the pod"
            )
            raise RuntimeFailure("CommandRequired", text)
        user = {**(spec.get("securityContext") or {}), **(one.get("securityContext") or {})}
        if (spec.get("securityContext") or {}).get("sysctls"):
            text = "this node runs pods as processes: what sysctls change would be the node's"
            raise RuntimeFailure("SysctlForbidden", text)
        if os.geteuid() != 0 and user.get("runAsUser") not in (None, os.geteuid()):
            raise RuntimeFailure("CannotSwitchUser", "this node runs pods as processes of one user")
