"""Other programs on this machine, and whole directories: `shutil` without its compression libraries in memory (0.5 MB)."""

import contextlib
import errno
import os
from collections.abc import Generator
from pathlib import Path

_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW
_DEEP = 50
"""What is deeper is moved up first: every level has two open descriptors."""
_PASSES = 8
"""How often a directory is read: what is removed meanwhile may hide others, and somebody may go on filling it."""


def find_program(name: str) -> str | None:
    """The path of the executable `name` on ``PATH``."""
    for directory in os.get_exec_path():
        path = os.path.join(directory, name)  # noqa: PTH118 - as it was given
        if os.access(path, os.X_OK) and os.path.isfile(path):  # noqa: PTH113
            return path
    return None


def discard_tree(directory: Path) -> None:
    """Remove a small directory with all that is in it, as far as that is possible."""
    for _ in discarding(directory):
        pass


def discarding(directory: Path) -> Generator[None, None, None]:
    """Do what `discard_tree` does, with a pause before each entry."""
    if directory.is_dir():
        with contextlib.suppress(OSError):
            yield from _Removal(directory, strict=False).steps()


def remove_directory(directory: Path) -> None:
    """Remove a small directory with all that is in it, but nothing that is mounted in it.

    Raises:
        OSError: Something could not be removed, or something is mounted (``EBUSY``).
    """
    for _ in removing(directory):
        pass


def removing(directory: Path) -> Generator[None, None, None]:
    """Do what `remove_directory` does, with a pause before each entry; it may be given up at any, and begun anew.

    Raises:
        OSError: As `remove_directory`.
    """
    yield from _Removal(directory, strict=True).steps()


class _Removal:
    """Goes down by open directories: no link is followed, and neither depth nor length of paths has a bound.

    Names are not collected: a directory may have any number of them.
    """

    def __init__(self, directory: Path, *, strict: bool) -> None:
        self._directory = directory
        self._strict = strict
        self._moved = False

    def steps(self) -> Generator[None, None, None]:
        self._top = os.open(self._directory, _DIRECTORY)
        try:
            self._mount = _mount_of(self._top)
            self._moved = True
            while self._moved:
                self._moved = False
                yield from self._empty(self._top, 0)
        finally:
            os.close(self._top)
        self._directory.rmdir()

    def _empty(self, here: int, depth: int) -> Generator[None, None, None]:
        for _ in range(_PASSES):
            removed = False
            with os.scandir(here) as entries:
                for entry in entries:
                    yield
                    try:
                        yield from self._remove(here, entry.name, depth)
                    except OSError:
                        if self._strict:
                            raise
                    else:
                        removed = True
            if not removed:
                return

    def _remove(self, here: int, name: str, depth: int) -> Generator[None, None, None]:
        try:
            os.unlink(name, dir_fd=here)
        except IsADirectoryError:
            pass
        else:
            return
        below = os.open(name, _DIRECTORY, dir_fd=here)
        try:
            if _mount_of(below) != self._mount:
                # It would be emptied, whatever it is: as a bind mount it may be on the same device.
                raise OSError(errno.EBUSY, os.strerror(errno.EBUSY), name)
            if depth == _DEEP:
                place = f".{os.fstat(below).st_ino}.removed"
                os.rename(name, place, src_dir_fd=here, dst_dir_fd=self._top)
                self._moved = True
                return
            yield from self._empty(below, depth + 1)
        finally:
            os.close(below)
        os.rmdir(name, dir_fd=here)


def _mount_of(descriptor: int) -> bytes:
    lines = Path(f"/proc/self/fdinfo/{descriptor}").read_bytes().splitlines()
    return next((line for line in lines if line.startswith(b"mnt_id:")), b"")
