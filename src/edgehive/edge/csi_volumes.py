"""CSI volumes of pods: staged once for the node, published for each pod, and both undone in the reverse order.

Every step is recorded on disk before it is asked for (`edge.csi_records`), so that what a killed edgecore has begun is
taken up by the next one. What was published in this boot is never published again: a container may have it mounted.
"""

import asyncio
import contextlib
import logging
import os
import stat
import weakref
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import msgspec

from edgehive.aio import csi_messages as csi
from edgehive.edge.csi_driver import CsiDriver
from edgehive.edge.csi_records import BOOT, Places, Record, boot_id, load, remove, save
from edgehive.edge.csi_spec import CsiVolume, DriverFacts, driver_facts, pod_info
from edgehive.edge.env import object_data
from edgehive.edge.pods_objects import PodObjects
from edgehive.edge.pods_spec import Pod
from edgehive.edge.runtime import RuntimeFailure
from edgehive.kit.errors import EdgehiveError
from edgehive.kit.text import safe_label

log = logging.getLogger(__name__)

_REPUBLISH = 60.0
_FACTS_FOR = 300.0
_DRIVER, _HANDLE, _ATTACHMENT = "driverName", "volumeHandle", "attachmentID"
_MOUNT, _STAGED = "mount", "globalmount"


class Drivers(Protocol):
    """Where drivers register (`edge.plugins.NodePlugins`)."""

    def driver(self, name: str) -> CsiDriver | None: ...
    def volumes_in_use(self, names: Iterable[str]) -> None: ...


@dataclass(frozen=True, slots=True)
class _Work:
    """One volume on its way into one pod."""

    pod: Pod
    volume: CsiVolume
    driver: CsiDriver
    facts: DriverFacts
    group: int | None

    @property
    def attaches(self) -> bool:
        return self.facts.attach and not self.volume.ephemeral

    @property
    def stages(self) -> bool:
        return csi.STAGE_UNSTAGE_VOLUME in self.driver.rpcs and not self.volume.ephemeral

    @property
    def capability(self) -> dict[str, Any]:
        return self.volume.capability(self.driver.rpcs, self.group)

    @property
    def group_to_apply(self) -> int | None:
        """The fsGroup, if it is the node and not the driver that applies it."""
        itself = csi.VOLUME_MOUNT_GROUP in self.driver.rpcs
        return None if itself or not self.facts.applies_group(self.volume) else self.group


class CsiVolumes:
    """Stages, publishes and undoes; calls for one pod must not overlap."""

    def __init__(
        self,
        *,
        root: Path,
        node: str,
        objects: PodObjects,
        drivers: Drivers,
        clock: Callable[[], float],
    ) -> None:
        self._places = Places(root)
        self._node = node
        self._objects = objects
        self._drivers = drivers
        self._clock = clock
        self._boot = boot_id()
        self._asking = asyncio.Lock()
        self._facts: dict[str, tuple[DriverFacts, float]] = {}
        self._locks: weakref.WeakValueDictionary[tuple[str, str], asyncio.Lock] = (
            weakref.WeakValueDictionary()
        )
        self._tell_in_use()

    def path(self, uid: str, name: str) -> Path:
        """Where the volume appears."""
        return self._places.volume(uid, name) / _MOUNT

    # --- towards the pod --------------------------------------------------------------------------------

    async def mount(self, pod: Pod, volume: CsiVolume, group: int | None) -> float | None:
        """Have the volume in the pod's directory; return when its driver wants to be asked again, if it does.

        Raises:
            RuntimeFailure: Not now; with the reason.
            Unreachable: The driver has gone away.
            OSError: The record cannot be written.
        """
        home = self._places.volume(pod.uid, volume.name)
        published = load(home).get(BOOT) == self._boot
        facts = await self._driver_facts(volume.driver)
        if published and not facts.republish:
            return None
        driver = self._drivers.driver(volume.driver)
        if driver is None and not published:
            text = f"driver name {volume.driver} not found in the list of registered CSI drivers"
            raise RuntimeFailure("FailedMount", text)
        if driver is not None:
            work = _Work(pod, volume, driver, facts, group)
            async with self._lock(volume.driver, volume.handle):
                await (self._again(work) if published else self._bring(work))
        return self._clock() + _REPUBLISH if facts.republish else None

    async def _bring(self, work: "_Work") -> None:
        volume, facts = work.volume, work.facts
        mode = "Ephemeral" if volume.ephemeral else "Persistent"
        if facts.known and mode not in facts.modes:
            raise RuntimeFailure("FailedMount", f"driver {volume.driver} does not support {mode} volumes")
        home = self._places.volume(work.pod.uid, volume.name)
        context = await self._attached(volume) if work.attaches else {}
        record: Record = {
            _DRIVER: volume.driver,
            _HANDLE: volume.handle,
            _ATTACHMENT: volume.attachment(self._node) if work.attaches else "",
            "nodeName": self._node,
            "specVolID": volume.name,
            "volumeLifecycleMode": mode,
        }
        save(home, record)
        self._tell_in_use()
        if work.stages:
            await self._stage(work, context)
        await work.driver.publish(**await self._publication(work, context))
        if (group := work.group_to_apply) is not None:
            await asyncio.to_thread(give_to_group, home / _MOUNT, group)  # a large volume takes its time
        save(home, record | {BOOT: self._boot})
        log.info(
            "pod %s: volume %s published by %s",
            safe_label(work.pod.key),
            safe_label(volume.name),
            volume.driver,
        )

    async def _stage(self, work: "_Work", context: dict[str, str]) -> None:
        volume = work.volume
        home = self._places.staging(volume.driver, volume.handle)
        if load(home).get(BOOT) == self._boot:
            return
        record: Record = {_DRIVER: volume.driver, _HANDLE: volume.handle}
        save(home, record)
        (home / _STAGED).mkdir(exist_ok=True, mode=0o750)
        await work.driver.stage(
            volume_id=volume.handle,
            publish_context=context,
            staging_target_path=str(home / _STAGED),
            volume_capability=work.capability,
            secrets=await self._secret(volume.stage_secret),
            volume_context=dict(volume.attributes),
        )
        save(home, record | {BOOT: self._boot})

    async def _publication(self, work: "_Work", context: dict[str, str]) -> dict[str, Any]:
        pod, volume, facts = work.pod, work.volume, work.facts
        attributes = dict(volume.attributes)
        # Where nobody could be asked about the driver, an inline volume is useless without its pod.
        if facts.pod_info or (volume.ephemeral and not facts.known):
            attributes |= pod_info(pod, volume)
        if facts.audiences:
            attributes["csi.storage.k8s.io/serviceAccount.tokens"] = await self._tokens(pod, facts)
        staging = self._places.staging(volume.driver, volume.handle) / _STAGED
        return {
            "volume_id": volume.handle,
            "publish_context": context,
            "staging_target_path": str(staging) if work.stages else "",
            "target_path": str(self.path(pod.uid, volume.name)),
            "volume_capability": work.capability,
            "readonly": volume.readonly,
            "secrets": await self._secret(volume.publish_secret),
            "volume_context": attributes,
        }

    async def _again(self, work: "_Work") -> None:
        """Publish anew what is published (``requiresRepublish``: new tokens); a failure changes nothing."""
        try:
            context = await self._attached(work.volume) if work.attaches else {}
            await work.driver.publish(**await self._publication(work, context))
        except EdgehiveError as exc:
            name = safe_label(work.volume.name)
            log.warning("pod %s: volume %s: %s", safe_label(work.pod.key), name, exc)

    # --- away from the pod ------------------------------------------------------------------------------

    async def teardown(self, uid: str) -> None:
        """Undo everything that was published for a pod of which nothing runs.

        Raises:
            RuntimeFailure: A driver refuses or is not there; calling again goes on.
            Unreachable: A driver went away.
            OSError: Something is left where a volume was.
        """
        directory = self._places.pod(uid)
        for home in sorted(directory.iterdir()):
            record = load(home)
            if not record.get(_HANDLE):
                continue  # never got as far as to ask the driver
            driver = self._registered(record)
            async with self._lock(record[_DRIVER], record[_HANDLE]):
                await driver.unpublish(volume_id=record[_HANDLE], target_path=str(home / _MOUNT))
                remove(home, _MOUNT)
                log.info("volume %s unpublished by %s", safe_label(home.name), driver.name)
                await self._unstage_unused(record, driver)
            self._tell_in_use()

    async def sweep(self, name: str) -> None:
        """Unstage what an earlier edgecore has left staged without a pod that uses it."""
        driver = self._drivers.driver(name)
        if driver is None:
            return
        for record in list(self._places.staged(name)):
            if record.get(_HANDLE):
                async with self._lock(name, record[_HANDLE]):
                    try:
                        await self._unstage_unused({_DRIVER: name, **record}, driver)
                    except (EdgehiveError, OSError) as exc:
                        log.warning("volume %s stays staged: %s", safe_label(record[_HANDLE]), exc)

    def _registered(self, record: Record) -> CsiDriver:
        driver = self._drivers.driver(record.get(_DRIVER, ""))
        if driver is None:
            text = f"driver name {record.get(_DRIVER)} not found in the list of registered CSI drivers"
            raise RuntimeFailure("FailedUnmount", text)
        return driver

    async def _unstage_unused(self, record: Record, driver: CsiDriver) -> None:
        which = (record[_DRIVER], record[_HANDLE])
        home = self._places.staging(*which)
        if not load(home) or any((r.get(_DRIVER), r.get(_HANDLE)) == which for r in self._places.published()):
            return
        await driver.unstage(volume_id=record[_HANDLE], staging_target_path=str(home / _STAGED))
        remove(home, _STAGED)

    # --- what is needed for it --------------------------------------------------------------------------

    async def _attached(self, volume: CsiVolume) -> dict[str, str]:
        """Return the publish context once the volume is attached to this node."""
        name = volume.attachment(self._node)
        found = await self._objects.attachment(name)
        if found is None:
            text = f"waiting for the cluster to attach volume {volume.handle} (volumeattachment {name})"
            raise RuntimeFailure("FailedMount", text)
        status = found.get("status")
        status = status if isinstance(status, dict) else {}
        if not status.get("attached"):
            error = status.get("attachError")
            why = error.get("message", "") if isinstance(error, dict) else "it is not attached yet"
            raise RuntimeFailure("FailedMount", f"volume {volume.handle}: {safe_label(str(why), 300)}")
        context = status.get("attachmentMetadata")
        return {str(k): str(v) for k, v in context.items()} if isinstance(context, dict) else {}

    async def _driver_facts(self, name: str) -> DriverFacts:
        async with self._asking:  # one question for all pods that start together
            known = self._facts.get(name)
            if known is not None and 0 <= self._clock() - known[1] < _FACTS_FOR:
                return known[0]
            try:
                found = await self._objects.csi_driver(name)
                facts = driver_facts(found) if found is not None else DriverFacts()
            except RuntimeFailure as exc:
                log.info("CSIDriver %s is not known now: %s", safe_label(name), exc)
                facts = known[0] if known is not None else DriverFacts()
            self._facts[name] = (facts, self._clock())
            return facts

    async def _secret(self, reference: tuple[str, str] | None) -> dict[str, str]:
        if reference is None:
            return {}
        namespace, name = reference
        found = await self._objects.get("secret", namespace, name)
        if found is None:
            raise RuntimeFailure("FailedMount", f'secret "{namespace}/{name}" not found')
        return {key: value.decode(errors="replace") for key, value in object_data("secret", found).items()}

    async def _tokens(self, pod: Pod, facts: DriverFacts) -> str:
        tokens = {}
        for audience, seconds in facts.audiences:
            status = await self._objects.token_status(pod, audience, seconds)
            tokens[audience] = {
                "token": status.get("token"),
                "expirationTimestamp": status.get("expirationTimestamp"),
            }
        return msgspec.json.encode(tokens).decode()

    def _tell_in_use(self) -> None:
        attached = (r for r in self._places.published() if r.get(_ATTACHMENT))
        self._drivers.volumes_in_use(
            f"kubernetes.io/csi/{record.get(_DRIVER)}^{record.get(_HANDLE)}" for record in attached
        )

    def _lock(self, driver: str, handle: str) -> asyncio.Lock:
        lock = self._locks.get((driver, handle))
        if lock is None:
            lock = self._locks[driver, handle] = asyncio.Lock()
        return lock


def give_to_group(directory: Path, group: int) -> None:
    """Give a volume's files to the pod's fsGroup, unless its root is the group's already.

    Other pods may have the volume, too: what they put in the place of a file meanwhile is never followed.
    """
    status = directory.stat()
    if status.st_gid == group and status.st_mode & 0o2070 == 0o2070:
        return
    for _, _, files, place in os.fwalk(directory, topdown=False):
        for name in files:
            with contextlib.suppress(FileNotFoundError):
                _give_file(name, place, group)
        os.fchown(place, -1, group)
        os.fchmod(place, stat.S_IMODE(os.fstat(place).st_mode) | 0o2070)


def _give_file(name: str, place: int, group: int) -> None:
    found = os.open(name, os.O_PATH | os.O_NOFOLLOW, dir_fd=place)
    try:
        if not stat.S_ISLNK(os.fstat(found).st_mode):
            path = f"/proc/self/fd/{found}"  # neither call takes such a descriptor itself
            os.chown(path, -1, group)
            os.chmod(path, stat.S_IMODE(os.fstat(found).st_mode) | 0o060)  # noqa: PTH101
    finally:
        os.close(found)
