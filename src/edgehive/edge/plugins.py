"""What plugs into this node: CSI drivers and device plugins. Nothing of gRPC is imported before one of them is there.

Where they look is where a kubelet has it: sockets in ``<root>/plugins_registry`` are asked who they are; device plugins
register at ``<root>/device-plugins/kubelet.sock``, which is made anew at every start, so that they register again.
"""

import asyncio
import contextlib
import logging
import socket
import stat
import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgehive.aio.unix_socket import bind_unix
from edgehive.kit.text import safe_label

if TYPE_CHECKING:
    from edgehive.edge.csi_driver import CsiDriver
    from edgehive.edge.device_plugins import DevicePlugins
    from edgehive.edge.plugin_registry import PluginRegistry

log = logging.getLogger(__name__)

NODE_ID_ANNOTATION = "csi.volume.kubernetes.io/nodeid"
DRIVERS_ANNOTATION = "edgehive.io/csi-drivers"
"""What a CSINode says of the drivers; cloudcore makes one of it, since the wire has no message for it."""
CHECKPOINT = "kubelet_internal_checkpoint"
_LOOK_EVERY = 1.0
_SETTLED = 2.0
"""Seconds after its last change in which a directory is read again: a time stamp is not as fine as the changes."""


class NodePlugins:
    """The plugins of one node; `run` watches for them, everything else asks what is there now."""

    def __init__(self, root: Path, *, clock: Callable[[], float] = time.time) -> None:
        self.root = root
        self._registry_directory = root / "plugins_registry"
        self._device_directory = root / "device-plugins"
        self._clock = clock
        self._callbacks: list[Callable[[], None]] = []
        self._registry: PluginRegistry | None = None
        self._devices: DevicePlugins | None = None
        self._drivers: dict[str, CsiDriver] = {}
        self._had_drivers = False
        self._in_use: frozenset[str] | None = None
        self._group: asyncio.TaskGroup | None = None

    def on_change(self, callback: Callable[[], None]) -> None:
        """Call `callback` whenever a plugin came, went, or has other devices."""
        self._callbacks.append(callback)

    def _changed(self) -> None:
        for callback in self._callbacks:
            callback()

    # --- what is there ----------------------------------------------------------------------------------

    @property
    def devices(self) -> "DevicePlugins | None":
        """The device plugins; None as long as there has never been one on this node."""
        return self._devices

    def driver(self, name: str) -> "CsiDriver | None":
        """Return the CSI driver of that name if it is registered."""
        return self._drivers.get(name)

    def set_driver(self, name: str, driver: "CsiDriver | None") -> None:
        """Take a CSI driver that has registered, or forget one that has gone."""
        if driver is None:
            self._drivers.pop(name, None)
        else:
            self._drivers[name] = driver
            self._had_drivers = True
        self._changed()

    def volumes_in_use(self, names: Iterable[str]) -> None:
        """Take the names of the attached volumes that pods of this node use."""
        if (fresh := frozenset(names)) != self._in_use:
            self._in_use = fresh
            self._changed()

    def node_facts(self, status: dict[str, Any]) -> tuple[Mapping[str, str], Mapping[str, str | None]]:
        """Add to a node's status what plugins contribute; return the labels and annotations they give the node."""
        if self._devices is not None:
            capacity, allocatable = self._devices.resources()
            status["capacity"] = status["capacity"] | capacity
            status["allocatable"] = status["allocatable"] | allocatable
        if self._in_use is not None:
            status["volumesInUse"] = sorted(self._in_use)
        labels: dict[str, str] = {}
        for driver in self._drivers.values():
            labels.update(driver.topology)
        return labels, self._annotations()

    def _annotations(self) -> dict[str, str | None]:
        if not self._drivers:
            # What was said is taken back, but not at a start: the drivers will be found in a moment.
            return dict.fromkeys((NODE_ID_ANNOTATION, DRIVERS_ANNOTATION)) if self._had_drivers else {}
        import msgspec

        drivers = [self._drivers[name] for name in sorted(self._drivers)]
        return {
            NODE_ID_ANNOTATION: msgspec.json.encode({d.name: d.node_id for d in drivers}).decode(),
            DRIVERS_ANNOTATION: msgspec.json.encode([d.described() for d in drivers]).decode(),
        }

    # --- running ----------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Watch until cancelled; plugins of an earlier edgecore are found again."""
        try:
            async with asyncio.TaskGroup() as group:
                self._group = group
                group.create_task(self._serve_devices(), name="device-plugins")
                group.create_task(self._watch_registry(), name="plugins-registry")
        finally:
            self._group = None
            if self._registry is not None:
                await self._registry.close()

    async def _watch_registry(self) -> None:
        seen = -1
        while True:
            try:
                changed = self._registry_directory.stat().st_mtime_ns
            except OSError:
                changed = -1
            registry = self._registry
            if changed != seen or (registry is not None and registry.pending):
                if self._clock() - changed / 1e9 > _SETTLED:
                    seen = changed
                sockets = _sockets(self._registry_directory)
                if sockets or registry is not None:
                    await self._open_registry().sync(sockets)
            await asyncio.sleep(_LOOK_EVERY)

    def _open_registry(self) -> "PluginRegistry":
        if self._registry is None:
            from edgehive.edge.plugin_registry import PluginRegistry

            self._registry = PluginRegistry(self, start=self._start)
        return self._registry

    # --- devices ----------------------------------------------------------------------------------------

    def open_devices(self) -> "DevicePlugins":
        """Return the device plugins, loaded now if they were not."""
        if self._devices is None:
            from edgehive.edge.device_plugins import DevicePlugins

            self._devices = DevicePlugins(
                self._device_directory, changed=self._changed, clock=self._clock, start=self._start
            )
        return self._devices

    def _start(self, work: Any, name: str) -> None:
        if self._group is None:
            work.close()
            return
        self._group.create_task(work, name=name)

    def load(self) -> None:
        """Read what devices pods were given before; must come before the first pod is looked at."""
        if (self._device_directory / CHECKPOINT).exists():
            self.open_devices()

    async def _serve_devices(self) -> None:
        sock = self._bind()
        if sock is None:
            return
        try:
            await _readable(sock)  # nobody has called yet: a socket is all there is
            await self.open_devices().serve(sock)
        finally:
            sock.close()
            with contextlib.suppress(OSError):
                (self._device_directory / "kubelet.sock").unlink()

    def _bind(self) -> socket.socket | None:
        directory = self._device_directory
        try:
            directory.mkdir(parents=True, exist_ok=True, mode=0o750)
            self._registry_directory.mkdir(parents=True, exist_ok=True, mode=0o750)
            for entry in directory.iterdir():
                if stat.S_ISSOCK(entry.lstat().st_mode):
                    entry.unlink()  # plugins take the loss of their socket as the sign to register again
            return bind_unix(directory / "kubelet.sock")
        except OSError as exc:
            log.warning("device plugins cannot register: %s: %s", directory, safe_label(str(exc), 200))
            return None


def _sockets(directory: Path) -> dict[Path, tuple[int, int]]:
    """The sockets of plugins, and what tells one from a later one of the same name."""
    found = {}
    with contextlib.suppress(OSError):
        for entry in directory.iterdir():
            with contextlib.suppress(OSError):
                status = entry.lstat()
                if stat.S_ISSOCK(status.st_mode) and not entry.name.startswith("."):
                    found[entry] = (status.st_ino, status.st_ctime_ns)
    return found


async def _readable(sock: socket.socket) -> None:
    loop = asyncio.get_running_loop()
    event = asyncio.Event()
    loop.add_reader(sock, event.set)
    try:
        await event.wait()
    finally:
        loop.remove_reader(sock)
