"""Tells when commands end: the loop watches their shims, and waits for the last words to be in the log."""

import asyncio
import os
from collections.abc import Callable
from pathlib import Path

from edgehive.edge.process_shim import Identity

_DRAIN_TRIES, _DRAIN_PAUSE = 100, 0.02


class ShimWatch:
    """The shims of running containers, by the containers' ids.

    `directory` has a container's files; `drains` tells whether somebody writes its log and says so when it is
    whole; `ended` is called once for each container that was watched.
    """

    def __init__(
        self,
        *,
        boot: str,
        directory: Callable[[str], Path],
        drains: Callable[[], bool],
        ended: Callable[[str], None],
    ) -> None:
        self._boot = boot
        self._directory = directory
        self._drains = drains
        self._told = ended
        self._descriptors: dict[str, int] = {}
        self._draining: set[str] = set()

    def __contains__(self, container_id: str) -> bool:
        """Whether it runs, or has not said everything yet."""
        return container_id in self._descriptors or container_id in self._draining

    def __bool__(self) -> bool:
        return bool(self._descriptors)

    def add(self, container_id: str) -> None:
        """Have the loop tell when the shim ends; polling by relists does where that is not possible."""
        shim = Identity.load(self._directory(container_id) / "shim")
        if shim is None or container_id in self._descriptors or not shim.alive(self._boot):
            return
        try:
            descriptor = os.pidfd_open(shim.pid)
        except (AttributeError, OSError):
            return
        self._descriptors[container_id] = descriptor
        asyncio.get_running_loop().add_reader(descriptor, self._ended, container_id)

    def _ended(self, container_id: str, tries: int = _DRAIN_TRIES) -> None:
        self._unwatch(container_id)
        directory = self._directory(container_id)
        if tries and self._drains() and directory.exists() and not (directory / "drained").exists():
            self._draining.add(container_id)
            asyncio.get_running_loop().call_later(_DRAIN_PAUSE, self._ended, container_id, tries - 1)
            return
        self._draining.discard(container_id)
        self._told(container_id)

    def remove(self, container_id: str) -> None:
        """Watch it no more."""
        self._unwatch(container_id)
        self._draining.discard(container_id)

    def _unwatch(self, container_id: str) -> None:
        if (descriptor := self._descriptors.pop(container_id, None)) is not None:
            asyncio.get_running_loop().remove_reader(descriptor)
            os.close(descriptor)

    def close(self) -> None:
        """Watch nothing any more."""
        for container_id in list(self._descriptors):
            self._unwatch(container_id)
