"""Volume directories on disk: content that changes in one step, tmpfs, removal.

A volume's files are symlinks through ``..data``, which points to a directory with a time in its name; an update
writes a new directory and swaps that one link, so a reader sees all of the old or all of the new. The volume's own
directory is never replaced: containers have it mounted.
"""

import asyncio
import errno
import os
import re
import subprocess
import time
from collections.abc import Mapping
from pathlib import Path

from edgehive.edge.patient import take
from edgehive.edge.programs import discard_tree, removing
from edgehive.edge.runtime import RuntimeFailure
from edgehive.edge.volumes_content import FileContent

DATA = "..data"
_UNMOUNT_TIMEOUT = 60.0
_ESCAPED = re.compile(rb"\\([0-7]{3})")


def write_files(directory: Path, files: Mapping[str, FileContent], group: int | None = None) -> bool:
    """Make `directory` show exactly `files`; return whether anything had to change."""
    link = directory / DATA
    if link.is_symlink() and _shows(directory, files):
        return False
    old = link.readlink().name if link.is_symlink() else ""
    _remove_others(directory, {old})  # what a write that never completed has left
    stamp = time.strftime("..%Y_%m_%d_%H_%M_%S.", time.gmtime()) + os.urandom(5).hex()
    try:
        _write_all(directory / stamp, files, group)
    except OSError:
        discard_tree(directory / stamp)  # on a full disk it must not make things worse
        raise
    temporary = directory / "..data_tmp"
    temporary.symlink_to(stamp)
    temporary.rename(link)
    tops = {path.partition("/")[0] for path in files}
    for top in tops:
        if not (directory / top).is_symlink():
            (directory / top).symlink_to(f"{DATA}/{top}")
    for entry in directory.iterdir():
        if entry.is_symlink() and entry.name not in tops and entry.name != DATA:
            entry.unlink()
    _remove_others(directory, {stamp})
    return True


def _write_all(fresh: Path, files: Mapping[str, FileContent], group: int | None) -> None:
    fresh.mkdir(mode=0o755)
    for path, content in files.items():
        target = fresh / path
        target.parent.mkdir(parents=True, exist_ok=True)
        mode = content.mode if group is None else content.mode | (content.mode & 0o600) >> 3
        descriptor = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "wb") as out:
            out.write(content.data)
            os.fchmod(descriptor, mode)
            if group is not None:
                os.fchown(descriptor, -1, group)


def _remove_others(directory: Path, keep: set[str]) -> None:
    for entry in directory.iterdir():
        if entry.name == "..data_tmp":
            entry.unlink()
        elif entry.name.startswith("..") and entry.name not in keep and not entry.is_symlink():
            discard_tree(entry)


def _shows(directory: Path, files: Mapping[str, FileContent]) -> bool:
    base = directory / DATA
    present = {str(Path(root, name).relative_to(base)) for root, _, names in os.walk(base) for name in names}
    if present != set(files):
        return False
    return all((base / path).read_bytes() == content.data for path, content in files.items())


def has_content(directory: Path) -> bool:
    """Whether `write_files` has completed there before."""
    return (directory / DATA).is_symlink()


def make_directory(directory: Path, mode: int, *, tmpfs: bool = False, size: int = 0) -> None:
    """Create `directory` if it is not there; on a tmpfs of its own if asked and permitted.

    A directory that has content is left alone: a container may have it mounted.
    """
    fresh = not directory.exists()
    directory.mkdir(parents=True, exist_ok=True)
    if tmpfs and os.geteuid() == 0 and not directory.is_mount() and not any(directory.iterdir()):
        options = f"mode={mode:o}" + (f",size={size}" if size else "")
        command = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(directory)]
        subprocess.run(command, check=False, capture_output=True, timeout=10)
    if fresh:
        directory.chmod(mode)


def set_group(directory: Path, group: int) -> None:
    """Give a writable volume to the pod's fsGroup."""
    os.chown(directory, -1, group)
    directory.chmod(0o2775)


async def remove_tree(directory: Path, turn: asyncio.Lock | None = None) -> None:
    """Unmount and delete everything below and including `directory`; called again it goes on where it was cancelled.

    Args:
        directory: Nobody may mount anything in it meanwhile.
        turn: Large trees that share it are removed one at a time.

    Raises:
        OSError: Something could not be removed; nothing outside a mount was followed.
    """
    if not directory.exists():
        return
    for mount in mounts_below(directory):
        await _unmount(mount)
    if left := mounts_below(directory):
        # Going on would delete what is on the mounted file system, and that is not ours.
        raise OSError(errno.EBUSY, "still mounted", left[0])
    await take(removing(directory), turn or asyncio.Lock())


async def _unmount(mount: str) -> None:
    """Have it unmounted by a process: files in memory, however many, are given back before that ends."""
    null = subprocess.DEVNULL
    process = await asyncio.create_subprocess_exec(
        "umount", "-l", mount, stdin=null, stdout=null, stderr=null
    )
    try:
        async with asyncio.timeout(_UNMOUNT_TIMEOUT):
            await process.wait()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


def mounts_below(directory: Path) -> list[str]:
    """Return the mount points below `directory`, innermost first; one that has several mounts, so many times."""
    above = os.path.realpath(directory) + "/"
    return sorted((mount for mount in _mounts() if mount.startswith(above)), reverse=True)


def is_mounted(directory: Path) -> bool:
    """Whether something is mounted there; also the same file system once more, and one whose server is away."""
    return f"{os.path.realpath(directory.parent)}/{directory.name}" in _mounts()


def _mounts() -> list[str]:
    table = Path("/proc/self/mounts").read_bytes().splitlines()
    names = (_ESCAPED.sub(lambda found: bytes((int(found[1], 8),)), line.split(b" ")[1]) for line in table)
    return [os.fsdecode(name) for name in names]


_HOST_TYPES = {
    "Directory": (Path.is_dir, "a directory"),
    "DirectoryOrCreate": (Path.is_dir, "a directory"),
    "File": (Path.is_file, "a file"),
    "FileOrCreate": (Path.is_file, "a file"),
    "Socket": (Path.is_socket, "a socket"),
    "CharDevice": (Path.is_char_device, "a character device"),
    "BlockDevice": (Path.is_block_device, "a block device"),
}


def check_host_path(path: Path, kind: str) -> None:
    """Check, or create, a hostPath volume.

    Raises:
        RuntimeFailure: It is not what the pod says it is.
    """
    if not kind:
        return
    if kind not in _HOST_TYPES:
        raise RuntimeFailure("FailedMount", f"unknown hostPath type {kind!r}")
    if not path.exists():
        if kind == "DirectoryOrCreate":
            path.mkdir(parents=True, mode=0o755)
        elif kind == "FileOrCreate":
            path.touch(mode=0o644)
    test, what = _HOST_TYPES[kind]
    if not test(path):
        raise RuntimeFailure("FailedMount", f"hostPath type check failed: {path} is not {what}")
