"""Registration of the plugins whose sockets are in ``plugins_registry``: who are you, and here is what became of it."""

import logging
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any, Protocol

from edgehive.aio import plugin_messages as api
from edgehive.aio.grpc import GrpcClient
from edgehive.edge.csi_driver import CsiDriver
from edgehive.edge.plugin_call import call
from edgehive.kit.errors import EdgehiveError, ProtocolError, Unreachable
from edgehive.kit.text import safe_label

log = logging.getLogger(__name__)

_CSI, _DEVICE = "CSIPlugin", "DevicePlugin"
_TIMEOUT = 10.0
_TRIES = 30
"""How often a plugin that cannot be registered is tried, a second apart; after that every so many seconds."""

_AT_ONCE = 16
"""How many are asked at the same time; those that were never asked come first."""

Mark = tuple[int, int]


class Registrar(Protocol):
    """Who keeps what has registered (`edge.plugins.NodePlugins`)."""

    def set_driver(self, name: str, driver: CsiDriver | None) -> None: ...
    def open_devices(self) -> Any: ...


class PluginRegistry:
    """Keeps registrations in step with the sockets that are there.

    Plugins are asked side by side, by tasks that `start` makes: one that does not answer holds nobody up.
    """

    def __init__(
        self, registrar: Registrar, *, start: Callable[[Coroutine[Any, Any, None], str], None]
    ) -> None:
        self._registrar = registrar
        self._start = start
        self._done: dict[Path, tuple[Mark, str, CsiDriver | None]] = {}
        self._failed: dict[Path, tuple[Mark, int]] = {}
        self._asked: set[Path] = set()
        self._waiting = False

    @property
    def pending(self) -> bool:
        """Whether there is a plugin that is being asked, or is worth another try."""
        return bool(self._failed or self._asked or self._waiting)

    async def sync(self, sockets: dict[Path, Mark]) -> None:
        """Forget what has gone, and begin to register what is new at `sockets`; call again while `pending`."""
        for path in [p for p, (mark, _, _) in self._done.items() if sockets.get(p) != mark]:
            await self._forget(path)
        for path in [p for p, (mark, _) in self._failed.items() if sockets.get(p) != mark]:
            del self._failed[path]
        self._waiting = False
        for path, mark in sorted(sockets.items(), key=lambda one: self._tries(one[0])):
            if path in self._done or path in self._asked:
                continue
            tries = self._tries(path)
            if tries >= _TRIES and tries % _TRIES:
                self._failed[path] = (mark, tries + 1)
            elif len(self._asked) >= _AT_ONCE:
                self._waiting = True
            else:
                self._asked.add(path)
                self._start(self._ask(path, mark, tries), f"plugin {path.name}")

    def _tries(self, path: Path) -> int:
        return self._failed[path][1] if path in self._failed else 0

    async def _ask(self, path: Path, mark: Mark, tries: int) -> None:
        try:
            await self._try(path, mark, tries)
        finally:
            self._asked.discard(path)
            self._waiting = True  # its socket may have gone meanwhile

    async def _try(self, path: Path, mark: Mark, tries: int) -> None:
        client = GrpcClient(str(path))
        try:
            info = await call(client, api.GetInfo, _TIMEOUT)
            name = str(info.get("name", ""))
            try:
                driver = await self._register(path, info, name)
            except Unreachable:
                raise  # not said: a registrar that is told of a failure ends, and the driver may be back in a moment
            except (EdgehiveError, OSError) as exc:
                await call(client, api.NotifyRegistrationStatus, _TIMEOUT, error=str(exc)[:1000])
                raise
            self._done[path] = (mark, name, driver)
            self._failed.pop(path, None)
            log.info("plugin %s registered (%s)", safe_label(name), safe_label(str(info.get("type", ""))))
            await call(client, api.NotifyRegistrationStatus, _TIMEOUT, plugin_registered=True)
        except (EdgehiveError, OSError) as exc:
            if path not in self._done:
                if tries == 0:
                    log.warning("plugin at %s: %s", safe_label(path.name), safe_label(str(exc), 300))
                self._failed[path] = (mark, tries + 1)
        finally:
            await client.close()

    async def _register(self, path: Path, info: dict[str, Any], name: str) -> CsiDriver | None:
        kind, endpoint = info.get("type"), str(info.get("endpoint") or path)
        versions = [str(one) for one in info.get("supported_versions", ())]
        if not name:
            raise ProtocolError("the plugin has no name")
        if kind == _DEVICE:
            if "v1beta1" not in versions:
                raise ProtocolError(f"device plugin API v1beta1 is needed, not {', '.join(versions)}")
            await self._registrar.open_devices().register_at(name, endpoint)
            return None
        if kind != _CSI:
            raise ProtocolError(f"plugins of type {kind!r} are not known here")
        if not any(one.lstrip("v").split(".")[0] == "1" for one in versions):
            raise ProtocolError(f"CSI version 1 is needed, not {', '.join(versions)}")
        driver = await CsiDriver.open(name, endpoint)
        self._registrar.set_driver(name, driver)
        return driver

    async def close(self) -> None:
        """Hang up; what has registered stays known to whoever was told."""
        for _, _, driver in self._done.values():
            if driver is not None:
                await driver.close()

    async def _forget(self, path: Path) -> None:
        _, name, driver = self._done.pop(path)
        if driver is not None:
            log.info("CSI driver %s has gone", safe_label(name))
            if all(other is None or known != name for _, known, other in self._done.values()):
                self._registrar.set_driver(name, None)
            await driver.close()
