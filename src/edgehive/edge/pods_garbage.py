"""Images nobody uses, and container logs that have grown: what to remove, and how to rotate.

An image is in use when a container was made of it or a pod of this node names it, so a pod can be restarted while
there is no registry to pull from.
"""

import asyncio
import contextlib
import logging
import os
import stat
import time
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from edgehive.edge.runtime import ContainerInfo, ImageInfo, Runtime, RuntimeFailure, State
from edgehive.kit.errors import Transient
from edgehive.kit.text import safe_label

log = logging.getLogger(__name__)

_SLICE = 1 << 18


@dataclass(frozen=True, slots=True)
class ImageSettings:
    """``imageGC*`` of the kubelet's configuration."""

    high_percent: int = 85
    low_percent: int = 80
    minimum_age: float = 120.0
    maximum_age: float = 0.0


class ImageGarbage:
    """Remembers since when images are here and when they were last used."""

    def __init__(self, settings: ImageSettings) -> None:
        self._settings = settings
        self._seen: dict[str, float] = {}
        self._used: dict[str, float] = {}

    def observe(self, images: Sequence[ImageInfo], in_use: Collection[str], now: float) -> None:
        """Note which images there are, and which of them are used at this moment."""
        self._seen = {image.id: self._seen.get(image.id, now) for image in images}
        self._used = {image.id: self._used.get(image.id, 0.0) for image in images}
        for image in images:
            if is_used(image, in_use):
                self._used[image.id] = now

    def to_free(self, available: int, capacity: int) -> int:
        """Return how many bytes must go; 0 below the high threshold."""
        if capacity <= 0:
            return 0
        used = 100 - available * 100 // capacity
        if self._settings.high_percent >= 100 or used < self._settings.high_percent:
            return 0
        return max(0, capacity * (100 - self._settings.low_percent) // 100 - available)

    def choose(self, images: Sequence[ImageInfo], need: int, now: float) -> list[ImageInfo]:
        """Return the images to remove for `need` bytes, the longest unused first, and those past the maximum age."""
        idle = [i for i in images if self._used.get(i.id, 0.0) < now and not i.pinned and not _is_pause(i)]
        idle.sort(key=lambda i: (self._used.get(i.id, 0.0), self._seen.get(i.id, now), i.id))
        chosen, freed = [], 0
        for image in idle:
            since = self._seen.get(image.id, now)
            too_old = 0 < self._settings.maximum_age < now - max(self._used.get(image.id, 0.0), since)
            if too_old or (freed < need and now - since >= self._settings.minimum_age):
                chosen.append(image)
                freed += image.size
        return chosen


def is_used(image: ImageInfo, in_use: Collection[str]) -> bool:
    """Whether one of the image's names is in `in_use`."""
    return any(name in in_use for name in (image.id, *image.tags, *image.digests))


def full_name(image: str) -> str:
    """``busybox`` is ``docker.io/library/busybox:latest``."""
    first, slash, rest = image.partition("/")
    if not slash:
        image = f"docker.io/library/{image}"
    elif not ("." in first or ":" in first or first == "localhost"):
        image = f"docker.io/{first}/{rest}"
    last = image.rpartition("/")[2]
    return image if ":" in last or "@" in last else f"{image}:latest"


def images_in_use(containers: Iterable[ContainerInfo], wanted: Iterable[str]) -> set[str]:
    """Return the names of every image that a container has or a pod asks for."""
    names = {name for one in wanted if one for name in (one, full_name(one))}
    for info in containers:
        names |= {info.image, info.image_id}
    return names - {""}


def _is_pause(image: ImageInfo) -> bool:
    """Whether it holds sandboxes together; runtimes before containerd 1.7 do not say so themselves."""
    return any(tag.partition("@")[0].rpartition("/")[2].partition(":")[0] == "pause" for tag in image.tags)


class LogRotation:
    """Keeps the logs of running containers small, as ``containerLogMaxSize`` and ``containerLogMaxFiles`` say."""

    def __init__(self, *, runtime: Runtime, max_size: int, max_files: int) -> None:
        self._runtime = runtime
        self._max_size = max_size
        self._max_files = max(max_files, 2)

    async def rotate(self, containers: Iterable[ContainerInfo]) -> int:
        """Rotate what has grown too long; return how many were."""
        done = 0
        for info in containers:
            if info.state is not State.RUNNING or not info.log_path or self._max_size <= 0:
                continue
            path = Path(info.log_path)
            try:
                if path.stat().st_size > self._max_size:
                    done += await self._rotate(path, info)
            except FileNotFoundError:
                await self._reopen(info)  # an earlier rotation was cut off between its two steps
            except (OSError, RuntimeFailure, Transient) as exc:
                log.warning("log of %s: %s", safe_label(info.name), safe_label(str(exc), 300))
        return done

    async def _reopen(self, info: ContainerInfo) -> None:
        try:
            await self._runtime.reopen_log(info.id)
        except (RuntimeFailure, Transient) as exc:
            log.debug("log of %s: %s", safe_label(info.name), safe_label(str(exc), 300))

    async def _rotate(self, path: Path, info: ContainerInfo) -> bool:
        older = sorted(path.parent.glob(f"{path.name}.*"))
        for file in (one for one in older if one.suffix == ".tmp"):
            file.unlink(missing_ok=True)
        older = [one for one in older if one.suffix != ".tmp"]
        for file in older[: max(0, len(older) - (self._max_files - 2))]:
            file.unlink(missing_ok=True)
        for file in older[max(0, len(older) - (self._max_files - 2)) :]:
            if file.suffix != ".gz":
                await _compress(file)
        rotated = path.with_name(f"{path.name}.{_stamp()}")
        path.rename(rotated)
        try:
            taken = await self._runtime.reopen_log(info.id)
        except (RuntimeFailure, Transient):
            if not path.exists():
                rotated.rename(path)
            raise
        if not taken:
            rotated.rename(path)
        return taken


def _stamp() -> str:
    now = time.time_ns()
    return time.strftime("%Y%m%d-%H%M%S", time.gmtime(now // 1_000_000_000)) + f".{now % 1_000_000_000:09d}"


async def _compress(file: Path) -> None:
    """Compress a log that nobody writes any more, a slice at a time: others are waiting for the loop."""
    import gzip  # most nodes never rotate a log

    temporary = file.with_name(f"{file.name}.tmp")
    with file.open("rb") as source, gzip.open(temporary, "wb", compresslevel=4) as target:
        while block := source.read(_SLICE):
            target.write(block)
            await asyncio.sleep(0)
    temporary.rename(file.with_name(f"{file.name}.gz"))
    file.unlink()


def disk_usage(directory: Path) -> int:
    """Add up what the files below `directory` take, without leaving its file system and without following links.

    Pods make these trees: no depth of theirs may exhaust the stack (as `os.walk` does on Python 3.11), and a file with
    several names counts once. What has a longer path than the kernel takes is not seen.
    """
    total = 0
    try:
        device = os.lstat(directory).st_dev
    except OSError:
        return 0
    waiting = [os.fspath(directory)]
    while waiting:
        try:
            with os.scandir(waiting.pop()) as entries:
                for entry in entries:
                    with contextlib.suppress(OSError):
                        found = entry.stat(follow_symlinks=False)
                        if not stat.S_ISDIR(found.st_mode):
                            total += found.st_blocks * 512 // (found.st_nlink or 1)
                        elif found.st_dev == device:
                            waiting.append(entry.path)
        except OSError:
            continue
    return total
