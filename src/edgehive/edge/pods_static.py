"""Static pods: manifests in a directory, run as they are whether or not there is a cloud, and mirrored in the cluster.

The uid of a static pod comes from its manifest, so it is the same after a restart of edgecore, and another one after
a change of the file. What the cluster sees is a mirror pod: deleting it only makes edged create it again.
"""

import asyncio
import hashlib
import logging
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from edgehive.edge.metaclient import MetaClient, Ok
from edgehive.edge.pods_spec import MIRROR_ANNOTATION, Pod, format_time, parse_pod
from edgehive.kit.errors import ProtocolError
from edgehive.kit.malformed import MALFORMED
from edgehive.kit.text import safe_label

log = logging.getLogger(__name__)

HASH_ANNOTATION = "kubernetes.io/config.hash"
SEEN_ANNOTATION = "kubernetes.io/config.seen"
SOURCE_ANNOTATION = "kubernetes.io/config.source"
FILE = "file"

_LARGEST = 1 << 20
_EVERY = 5.0
_REFUSED_FOR = 30.0


@dataclass(frozen=True, slots=True)
class StaticPod:
    """One manifest: the pod that runs here, and the object that shows it in the cluster, without an owner yet."""

    pod: Pod
    mirror: bytes


@dataclass(slots=True)
class _File:
    stamp: tuple[int, int, int]
    pod: StaticPod | None


class Manifests:
    """The directory ``staticPodPath``; `read` looks for changes and costs one listing when there are none."""

    def __init__(self, directory: Path | None, *, node: str, clock: Callable[[], float]) -> None:
        self._directory = directory
        self._node = node
        self._clock = clock
        self._files: dict[str, _File] = {}
        self.pods: Mapping[str, StaticPod] = {}
        """By uid."""
        self.complete = True
        """Whether all of it could be read: what is missing only because of a broken file must not be ended."""

    def read(self) -> bool:
        """Look at the directory again; return whether a pod has come, changed or gone."""
        if self._directory is None:
            return False
        found: dict[str, _File] = {}
        self.complete = True
        try:
            with os.scandir(self._directory) as entries:
                for entry in entries:
                    if not entry.name.startswith(".") and entry.is_file():
                        found[entry.name] = self._file(entry)
        except FileNotFoundError:
            pass  # nobody has put anything there
        except OSError as exc:
            log.warning("static pods: %s", exc)
            self.complete = False
            return False
        self._files = found
        pods = {one.pod.pod.uid: one.pod for one in found.values() if one.pod is not None}
        changed = pods.keys() != self.pods.keys()
        self.pods = pods
        return changed

    def _file(self, entry: "os.DirEntry[str]") -> _File:
        stat = entry.stat()
        stamp = (stat.st_mtime_ns, stat.st_size, stat.st_ino)
        before = self._files.get(entry.name)
        if before is not None and before.stamp == stamp:
            self.complete = self.complete and before.pod is not None
            return before
        try:
            pod = static_pod(Path(entry.path), stat.st_size, node=self._node, seen=self._clock())
        except (ProtocolError, OSError) as exc:
            # It may be half written: what ran of it goes on until the file is whole again or gone.
            log.warning("static pod %s: %s", safe_label(entry.name), safe_label(str(exc), 300))
            self.complete = False
            return _File(stamp, before.pod if before else None)
        same = before is not None and before.pod is not None and before.pod.pod.uid == pod.pod.uid
        return _File(stamp, before.pod if before is not None and same else pod)


def static_pod(path: Path, size: int, *, node: str, seen: float) -> StaticPod:
    """Read one manifest, YAML or JSON.

    Raises:
        ProtocolError: It is not a pod.
        OSError: It cannot be read.
    """
    if size > _LARGEST:
        raise ProtocolError("the manifest is larger than 1 MiB")
    import yaml  # only a node with static pods needs it after the start

    try:
        found = yaml.safe_load(path.read_bytes())
    except (yaml.YAMLError, UnicodeDecodeError) as exc:
        raise ProtocolError(f"not YAML: {exc}") from exc
    if not isinstance(found, dict) or found.get("kind") != "Pod" or found.get("apiVersion") != "v1":
        raise ProtocolError("not a v1 Pod")
    if not isinstance(found.get("spec"), dict) or not isinstance(found.get("metadata"), dict):
        raise ProtocolError("a pod without metadata or without a spec")
    return _complete(found, path, node=node, seen=seen)


def _complete(found: dict[str, Any], path: Path, *, node: str, seen: float) -> StaticPod:
    meta, spec = dict(found["metadata"]), dict(found["spec"])
    try:
        content = msgspec.json.encode([node, str(path), meta, spec], order="deterministic")
    except (TypeError, ValueError) as exc:
        raise ProtocolError(f"not a pod: {exc}") from exc
    uid = str(meta.pop("uid", "") or hashlib.md5(content, usedforsecurity=False).hexdigest())
    spec["nodeName"] = node
    # As the kubelet does it: nothing but the file decides how long a static pod is here.
    spec["tolerations"] = [*(spec.get("tolerations") or ()), {"operator": "Exists", "effect": "NoExecute"}]
    meta |= {
        "name": f"{meta.get('name', '')}-{node.lower()}",
        "namespace": meta.get("namespace") or "default",
        "annotations": {
            **(meta.get("annotations") or {}),
            HASH_ANNOTATION: uid,
            SEEN_ANNOTATION: format_time(seen),
            SOURCE_ANNOTATION: FILE,
        },
    }
    meta.pop("deletionTimestamp", None)
    base = {"apiVersion": "v1", "kind": "Pod", "metadata": meta, "spec": spec}
    pod = parse_pod(msgspec.json.encode(base | {"metadata": meta | {"uid": uid}}))
    mirror = meta | {"annotations": meta["annotations"] | {MIRROR_ANNOTATION: uid}}
    return StaticPod(pod, msgspec.json.encode(base | {"metadata": mirror}))


def is_static(pod: Pod) -> bool:
    """Whether `pod` comes from a file of this node."""
    annotations = pod.metadata.annotations
    return annotations.get(SOURCE_ANNOTATION) == FILE and MIRROR_ANNOTATION not in annotations


class Mirrors:
    """Keeps one mirror pod in the cluster for every static pod, and none else."""

    def __init__(
        self,
        *,
        meta: MetaClient,
        manifests: Manifests,
        node: str,
        clock: Callable[[], float],
        changed: Callable[[str], None],
    ) -> None:
        self._meta = meta
        self._manifests = manifests
        self._node = node
        self._clock = clock
        self._changed = changed
        self._shown: dict[str, str] = {}
        self._refused: dict[str, float] = {}
        self._wake = asyncio.Event()

    def wake(self) -> None:
        """Look now: a manifest or a mirror pod has changed."""
        self._wake.set()

    def mirror(self, pod: Pod) -> Pod | None:
        """Return the mirror pod of a static pod, as the local database has it; None when there is none yet."""
        found = self._row(pod)
        return found if found and found.metadata.annotations.get(MIRROR_ANNOTATION) == pod.uid else None

    def _row(self, pod: Pod) -> Pod | None:
        raw = self._meta.pod(pod.metadata.namespace, pod.metadata.name)
        try:
            return parse_pod(raw) if raw is not None else None
        except ProtocolError:
            return None

    async def run(self) -> None:
        """Create and delete mirror pods until cancelled; while the cloud is away there is nothing to do."""
        while True:
            self._wake.clear()
            if self._meta.connected:
                await self._sync()
            try:
                async with asyncio.timeout(_EVERY):
                    await self._wake.wait()
            except TimeoutError:
                continue

    async def _sync(self) -> None:
        wanted = {one.pod.key: one for one in self._manifests.pods.values()}
        for key in self._refused.keys() - wanted.keys():
            del self._refused[key]
        for one in wanted.values():
            await self._show(one)
        if not self._manifests.complete:
            return
        for raw in self._meta.pods():
            try:
                pod = parse_pod(raw)
            except ProtocolError:
                continue
            if MIRROR_ANNOTATION in pod.metadata.annotations and pod.key not in wanted:
                await self._meta.delete_pod(pod.metadata.namespace, pod.metadata.name, pod.uid)

    async def _show(self, static: StaticPod) -> None:
        key, uid = static.pod.key, static.pod.uid
        row = self._row(static.pod)
        if row is not None:
            if row.metadata.annotations.get(MIRROR_ANNOTATION) == uid and not row.deleting:
                if self._shown.get(uid) != row.uid:
                    self._shown[uid] = row.uid
                    self._changed(uid)
            elif MIRROR_ANNOTATION in row.metadata.annotations:
                await self._meta.delete_pod(row.metadata.namespace, row.metadata.name, row.uid)
            return
        if 0 <= self._clock() - self._refused.get(key, -_REFUSED_FOR) < _REFUSED_FOR:
            return
        owner = await self._owner()
        mirror = msgspec.json.decode(static.mirror)
        if owner:
            mirror["metadata"]["ownerReferences"] = [owner]
        reply = await self._meta.create_pod(msgspec.json.encode(mirror))
        if isinstance(reply, Ok):
            self._refused.pop(key, None)
            self._wake.set()  # the row is there now: let its status follow
        else:
            self._refused[key] = self._clock()
            log.warning("mirror pod %s: %s", safe_label(key), safe_label(str(reply.status), 300))

    async def _owner(self) -> dict[str, Any] | None:
        reply = await self._meta.node()
        if not isinstance(reply, Ok):
            return None
        try:
            uid = msgspec.json.decode(reply.object)["metadata"]["uid"]
        except (*MALFORMED, KeyError, TypeError):
            return None
        return {"apiVersion": "v1", "kind": "Node", "name": self._node, "uid": uid, "controller": True}
