"""A summary of each DeviceStatus in the Device's own status, so that ``kubectl get devices`` shows it.

Written only when it has changed, and at a bounded rate. ``status.delivery`` says at which generation of the Device
the write was made and which version edges should have then: without it a cloudcore that starts would take every
summary for a change of the device, and bring it to its edge again.
"""

import logging
from dataclasses import dataclass
from typing import Any, Final

import msgspec

from edgehive.aio.informer import Informer
from edgehive.cloud.devices_index import DeviceIndex, DevicePlace
from edgehive.cloud.devices_status import DeviceState, parse_status, summary
from edgehive.cloud.paced import Paced, PacedRunner
from edgehive.kit.errors import EdgehiveError
from edgehive.kit.text import safe_label
from edgehive.kube.api import MERGE_PATCH, KubeApi, WriteOptions
from edgehive.kube.crd_devices import DEVICE_STATUSES, DEVICES
from edgehive.kube.reflector import CachedObject, Key
from edgehive.kube.status import ApiStatus
from edgehive.wire.message import MALFORMED

log = logging.getLogger(__name__)

_STALE: Final = frozenset({404, 409})
"""The cache lags; the watch brings what is needed to try again."""


class _Shown(msgspec.Struct, gc=False):
    status: dict[str, Any] | None = None


_shown = msgspec.json.Decoder(_Shown)


@dataclass(slots=True)
class SummaryStats:
    """Counters."""

    writes: int = 0
    failures: int = 0


class DeviceSummaries:
    """Writes the summaries."""

    def __init__(self, *, api: KubeApi, devices: Informer, index: DeviceIndex, interval: float = 5.0) -> None:
        """Wire up; `interval` is the least time between two writes of one device in seconds."""
        self._api = api
        self._devices = devices
        self._index = index
        self._wanted: dict[Key, dict[str, str]] = {}
        self._doubtful: set[Key] = set()
        self._runner: PacedRunner[Key] = PacedRunner(Paced(interval=interval, soon=0.1), self._work)
        self._failing = False
        self.stats: Final = SummaryStats()

    def note(self, key: Key, state: DeviceState) -> None:
        """A DeviceStatus has been stored."""
        wanted = summary(state)
        device = self._devices.get(*key)
        if device is None or _differs(device, wanted) or key in self._wanted:
            self._wanted[key] = wanted
            self._runner.want(key)

    def check(self, key: Key, state: DeviceState) -> None:
        """A DeviceStatus was there before this process began: whoever wrote it may have died before the summary."""
        device = self._devices.get(*key)
        if device is not None and _differs(device, summary(state)):
            self._doubtful.add(key)
            self._runner.want(key)

    def forget(self, key: Key) -> None:
        """The device was deleted, or left its node."""
        self._wanted.pop(key, None)
        self._doubtful.discard(key)
        self._runner.plan.forget(key)

    async def run(self) -> None:
        """Write until cancelled."""
        await self._runner.run()

    async def _work(self, key: Key) -> bool:
        try:
            return await self._write(key)
        except EdgehiveError as exc:
            stale = isinstance(exc, ApiStatus) and exc.code in _STALE
            self.stats.failures += not stale
            quiet = stale or self._failing
            self._failing = self._failing or not stale
            log.log(
                logging.DEBUG if quiet else logging.WARNING,
                "the summary of device %s/%s is not written: %s",
                *key,
                safe_label(str(exc), 400),
            )
            return False

    async def _write(self, key: Key) -> bool:
        options = WriteOptions(namespace=key[0], field_manager="cloudcore")
        if key in self._doubtful and key not in self._wanted:
            # Asked anew: another instance may have stored more, and shown it, since the list was made.
            raw = await self._api.get(DEVICE_STATUSES, key[1], options)
            self._wanted.setdefault(key, summary(parse_status(raw)[0]))
        self._doubtful.discard(key)
        wanted = self._wanted.get(key)
        device, place = self._devices.get(*key), self._index.place(key)
        if wanted is None or device is None or place is None or not _differs(device, wanted):
            self._wanted.pop(key, None)
            return True
        raw = await self._api.patch(DEVICES, key[1], _patch(device, place, wanted), MERGE_PATCH, options)
        self._failing = False
        self.stats.writes += 1
        self._devices.note_written(raw)
        if self._wanted.get(key) == wanted:
            del self._wanted[key]
        return True


def _differs(device: CachedObject, wanted: dict[str, str]) -> bool:
    try:
        status = _shown.decode(device.raw).status or {}
    except MALFORMED:
        return False
    return any((status.get(name) or "") != value for name, value in wanted.items())


def _patch(device: CachedObject, place: DevicePlace, wanted: dict[str, str]) -> bytes:
    """Made for exactly this version of the device, so that the generation after it is known."""
    meta = device.meta
    delivery = {"generation": meta.generation + 1, "version": place.version}
    shown = {name: value or None for name, value in wanted.items()}  # what is empty is not there
    return msgspec.json.encode(
        {"metadata": {"resourceVersion": meta.resource_version}, "status": {**shown, "delivery": delivery}}
    )
