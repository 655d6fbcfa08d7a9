"""Parts of volumes (``subPath``): found, and made, without following what a pod may put in the way meanwhile.

A pod can write into its volume while another container of it starts. So a part is opened component by component,
and no link that has come since is followed.
"""

import os
import stat
from pathlib import Path

from edgehive.edge.runtime import RuntimeFailure

_PART = os.O_PATH | os.O_NOFOLLOW


def sub_path(base: Path, relative: str, *, create: bool) -> Path:
    """Return `relative` below `base`, also when it is a symlink within; made as a directory when it is missing.

    Raises:
        RuntimeFailure: It leads out of the volume, or it is not there.
    """
    if relative.startswith("/") or ".." in relative.split("/"):
        raise _refusal(relative, "must stay in the volume")
    home = base.resolve()
    target = (base / relative).resolve()
    if target != home and home not in target.parents:
        raise _refusal(relative, "leads out of the volume")
    try:
        found = _open(home, target.relative_to(home).parts, relative, create=create)
    except OSError as exc:
        raise _refusal(relative, f"cannot be used: {exc.strerror}") from exc
    try:
        return Path(f"/proc/self/fd/{found}").readlink()
    finally:
        os.close(found)


def _open(home: Path, parts: tuple[str, ...], relative: str, *, create: bool) -> int:
    here = os.open(home, os.O_PATH | os.O_DIRECTORY)
    for part in parts:
        try:
            below = _step(here, part, relative, create=create)
        finally:
            os.close(here)
        here = below
    return here


def _step(here: int, part: str, relative: str, *, create: bool) -> int:
    try:
        below = os.open(part, _PART, dir_fd=here)
    except FileNotFoundError:
        if not create:
            raise _refusal(relative, "is not in the volume") from None
        os.mkdir(part, 0o755, dir_fd=here)
        below = os.open(part, _PART, dir_fd=here)
    if stat.S_ISLNK(os.fstat(below).st_mode):
        os.close(below)
        raise _refusal(relative, "has become a link while it was looked at")
    return below


def _refusal(relative: str, why: str) -> RuntimeFailure:
    return RuntimeFailure("CreateContainerConfigError", f"subPath {relative!r} {why}")
