"""Parts of volumes (``subPath``): found without following what a pod may put in the way meanwhile, and kept hold of.

A pod can write into its volume while another container of it starts. So a part is opened component by component, and
it is what was opened that the container gets, not what its path leads to by then: as with the kubelet, it is bound to
``pods/<uid>/volume-subpaths/<volume>/<container>/<n>``, where no pod can write, and the runtime is given that. Once the
container has started it has a mount of its own, and this one goes: nothing below a pod's directory leads to the data of
a volume for longer than a start takes. Processes are told instead what they must find (`identity_of`).
"""

import logging
import os
import stat
from pathlib import Path

from edgehive.edge.runtime import RuntimeFailure
from edgehive.edge.volumes_files import is_mounted, mounts_below
from edgehive.kit.text import safe_label

log = logging.getLogger(__name__)

DIRECTORY = "volume-subpaths"
_PART = os.O_PATH | os.O_NOFOLLOW
_BIND, _DETACH, _NO_LINK = 0x1000, 0x2, 0x8  # MS_BIND, MNT_DETACH, UMOUNT_NOFOLLOW


def open_part(base: Path, relative: str, *, create: bool) -> int:
    """Open `relative` below `base`, also when it is a symlink within; made as a directory when it is missing.

    Raises:
        RuntimeFailure: It leads out of the volume, or it is not there.
    """
    if relative.startswith("/") or ".." in relative.split("/"):
        raise _refusal(relative, "must stay in the volume")
    try:
        home = base.resolve()
        target = (base / relative).resolve()
        if target != home and home not in target.parents:
            raise _refusal(relative, "leads out of the volume")
        return _open(home, target.relative_to(home).parts, relative, create=create)
    except OSError as exc:
        raise _refusal(relative, f"cannot be used: {exc.strerror}") from exc
    except (RuntimeError, ValueError) as exc:  # links in a circle; a NUL in a name
        raise _refusal(relative, f"cannot be used: {exc}") from exc


def path_of(part: int) -> Path:
    """Where what was opened is now."""
    return Path(f"/proc/self/fd/{part}").readlink()


def identity_of(part: int) -> str:
    """Tell a file from all others of this machine, in the form of ``stat -c %d:%i``."""
    status = os.fstat(part)
    return f"{status.st_dev}:{status.st_ino}"


def _open(home: Path, parts: tuple[str, ...], relative: str, *, create: bool) -> int:
    here = os.open(home, os.O_PATH | os.O_DIRECTORY)
    mode = stat.S_IMODE(os.fstat(here).st_mode) if create else None
    for part in parts:
        try:
            below = _step(here, part, relative, mode)
        finally:
            os.close(here)
        here = below
    return here


def _step(here: int, part: str, relative: str, mode: int | None) -> int:
    try:
        below = os.open(part, _PART, dir_fd=here)
    except FileNotFoundError:
        if mode is None:
            raise _refusal(relative, "is not in the volume") from None
        os.mkdir(part, 0o755, dir_fd=here)
        below = os.open(part, _PART, dir_fd=here)
        if stat.S_ISDIR(os.fstat(below).st_mode):
            # As the volume itself is: whoever may write there may write here.
            os.chmod(f"/proc/self/fd/{below}", mode)  # noqa: PTH101
    if stat.S_ISLNK(os.fstat(below).st_mode):
        os.close(below)
        raise _refusal(relative, "has become a link while it was looked at")
    return below


def hold(part: int, place: Path, relative: str) -> None:
    """Bind what was opened to `place`, instead of what an earlier start may have left there.

    Raises:
        RuntimeFailure: That is not permitted here; its path must not be used instead.
    """
    try:
        _clear(place)
        place.parent.mkdir(parents=True, exist_ok=True, mode=0o750)
        if stat.S_ISDIR(os.fstat(part).st_mode):
            place.mkdir(mode=0o750)
        else:
            place.touch(mode=0o640)
        # The link is the kernel's own: it leads to what is open, whatever the path of that leads to by now.
        _mount(f"/proc/self/fd/{part}", place)
    except OSError as exc:
        raise _refusal(relative, f"cannot be mounted: {exc.strerror}") from exc


def release(directory: Path) -> None:
    """Unmount what is held below `directory`, and remove the places: a late start must not find them empty."""
    if not directory.exists():
        return
    for place in mounts_below(directory):
        try:
            _clear(Path(place))
        except OSError as exc:
            log.warning("%s stays: %s", safe_label(place), exc.strerror)


def _clear(place: Path) -> None:
    while is_mounted(place):
        _unmount(place)
    # Nothing but an empty directory or a file of ours can be removed so.
    if place.is_dir():
        place.rmdir()
    else:
        place.unlink(missing_ok=True)


def _mount(source: str, target: Path) -> None:
    import ctypes  # most pods have no subPath, and this takes memory

    text = ctypes.c_char_p
    call = ctypes.CDLL(None, use_errno=True).mount
    call.argtypes = [text, text, text, ctypes.c_ulong, ctypes.c_void_p]
    done = call(source.encode(), bytes(target), None, _BIND, None)
    _check(done, ctypes.get_errno(), target)


def _unmount(target: Path) -> None:
    import ctypes

    call = ctypes.CDLL(None, use_errno=True).umount2
    call.argtypes = [ctypes.c_char_p, ctypes.c_int]
    done = call(bytes(target), _DETACH | _NO_LINK)
    _check(done, ctypes.get_errno(), target)


def _check(done: int, number: int, target: Path) -> None:
    if done:
        raise OSError(number, os.strerror(number), str(target))


def _refusal(relative: str, why: str) -> RuntimeFailure:
    return RuntimeFailure("CreateContainerConfigError", f"subPath {relative!r} {why}")
