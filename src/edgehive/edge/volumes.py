"""The volumes of pods: made before the containers, refreshed in place while they run, removed after them.

Directories are where the kubelet has them: ``<root>/pods/<uid>/volumes/kubernetes.io~<plugin>/<name>``. After a
restart of edgecore the same calls find the same directories; a directory with content is never made anew.
"""

import asyncio
import logging
import os
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

from edgehive.edge.env import Key, PodFacts, expand, missing
from edgehive.edge.pods_claims import ClaimedVolume, claim_source, claimed_volume, is_owned, volume_name
from edgehive.edge.pods_objects import PodObjects
from edgehive.edge.pods_spec import Container, JsonObject, Pod, parse_quantity
from edgehive.edge.runtime import Mount, RuntimeFailure
from edgehive.edge.volumes_content import (
    GENERATED,
    Sources,
    object_references,
    token_requests,
    volume_files,
)
from edgehive.edge.volumes_files import (
    check_host_path,
    has_content,
    make_directory,
    remove_tree,
    set_group,
    write_files,
)
from edgehive.edge.volumes_nfs import mount_nfs
from edgehive.edge.volumes_subpath import DIRECTORY, hold, identity_of, open_part, path_of, release
from edgehive.kit.errors import Unreachable
from edgehive.kit.text import safe_label

if TYPE_CHECKING:
    from edgehive.edge.csi_spec import CsiVolume
    from edgehive.edge.csi_volumes import CsiVolumes
    from edgehive.edge.plugins import NodePlugins

log = logging.getLogger(__name__)

_PLUGINS = {
    "emptyDir": "empty-dir",
    "configMap": "configmap",
    "secret": "secret",
    "downwardAPI": "downward-api",
    "projected": "projected",
    "nfs": "nfs",
}
_CSI = "kubernetes.io~csi"
_PROPAGATION = {"HostToContainer": "rslave", "Bidirectional": "rshared"}


class VolumeManager:
    """Makes, refreshes and removes volumes; calls for one pod must not overlap."""

    def __init__(
        self,
        *,
        objects: PodObjects,
        root: Path,
        clock: Callable[[], float],
        node: str = "",
        plugins: "NodePlugins | None" = None,
    ) -> None:
        """Wire up; without `plugins` there are no CSI volumes."""
        self._objects = objects
        self._root = root
        self._pods = root / "pods"
        self._clock = clock
        self._node = node
        self._plugins = plugins
        self._csi: CsiVolumes | None = None
        self._removing = asyncio.Lock()
        self._claimed: dict[tuple[str, str], ClaimedVolume] = {}

    async def mount(self, pod: Pod, facts: PodFacts) -> float | None:
        """Make every volume present and up to date; return when a token must be renewed.

        Raises:
            RuntimeFailure: A volume cannot be made, with reason ``FailedMount``.
        """
        renew: list[float] = []
        release(self._pods / pod.uid / DIRECTORY)  # an edgecore that was killed over a start has left it
        for volume in pod.spec.volumes:
            name = str(volume.get("name", ""))
            try:
                await self._mount_one(pod, name, volume, facts, renew)
            except RuntimeFailure as exc:
                text = f'MountVolume.SetUp failed for volume "{name}" : {exc.message}'
                raise RuntimeFailure("FailedMount", text) from exc
            except (OSError, Unreachable) as exc:
                text = f'MountVolume.SetUp failed for volume "{name}" : {exc}'
                raise RuntimeFailure("FailedMount", text) from exc
        return min(renew, default=None)

    async def _mount_one(
        self, pod: Pod, name: str, volume: JsonObject, facts: PodFacts, renew: list[float]
    ) -> None:
        group = pod.spec.security_context.get("fsGroup")
        if (source := claim_source(pod, volume)) is not None:
            await self._claim(pod, name, source, group, renew)
            return
        if "csi" in volume:
            await self._mount_csi(pod, lambda spec: spec.inline(pod, name, volume["csi"]), group, renew)
            return
        if "hostPath" in volume:
            source = volume["hostPath"]
            check_host_path(Path(str(source.get("path", "/"))), str(source.get("type", "")))
            return
        if "nfs" in volume:
            await mount_nfs(self.directory(pod, volume), volume["nfs"])
            return
        directory = self.directory(pod, volume)
        if not any(kind in volume for kind in GENERATED):
            source = volume.get("emptyDir") or {}
            memory = source.get("medium") == "Memory"
            size = int(parse_quantity(source.get("sizeLimit", 0)))
            fresh = not directory.exists()
            make_directory(directory, 0o777, tmpfs=memory, size=size)
            if fresh and isinstance(group, int):
                set_group(directory, group)
            return
        try:
            sources = await self._sources(pod, volume, renew)
            files = volume_files(pod, volume, sources, facts)
        except RuntimeFailure as exc:
            if not has_content(directory):
                raise
            # What was mounted stays as it was: the cloud is away, or the object was deleted under a running pod.
            log.warning("pod %s: volume %s is not refreshed: %s", safe_label(pod.key), safe_label(name), exc)
            renew.append(self._clock() + 60)
            return
        private = "secret" in volume or "projected" in volume
        make_directory(directory, 0o755, tmpfs=private)
        if write_files(directory, files, group if isinstance(group, int) else None):
            log.info("pod %s: volume %s written", safe_label(pod.key), safe_label(name))

    async def _claim(
        self, pod: Pod, name: str, source: JsonObject, group: object, renew: list[float]
    ) -> None:
        namespace, claim_name = pod.metadata.namespace, str(source.get("claimName", ""))
        claim = await self._objects.claim(namespace, claim_name)
        if source.get("own") and not is_owned(claim, pod):
            raise RuntimeFailure(
                "FailedMount", f'persistentvolumeclaim "{claim_name}" was not made for this pod'
            )
        volume = await self._objects.volume(volume_name(claim, claim_name))
        claimed = claimed_volume(volume, claim, namespace, claim_name)
        self._claimed[pod.uid, name] = claimed
        path = Path(str(claimed.source.get("path", "/")))
        if claimed.kind == "csi":
            await self._mount_csi(
                pod,
                lambda spec: spec.persistent(
                    claimed.name,
                    claimed.source,
                    readonly=claimed.readonly or bool(source.get("readOnly")),
                    mount_flags=claimed.options,
                    access_modes=claimed.modes,
                ),
                group,
                renew,
            )
        elif claimed.kind == "nfs":
            await mount_nfs(self._claimed_directory(pod, name, claimed), claimed.source, claimed.options)
        elif claimed.kind == "hostPath":
            check_host_path(path, str(claimed.source.get("type", "")))
            if not path.exists():
                path.mkdir(parents=True, mode=0o755)
        elif not path.is_dir():
            raise RuntimeFailure(
                "FailedMount", f'local volume "{claimed.name}": there is no directory {path}'
            )
        elif isinstance(group, int) and not claimed.readonly and path.stat().st_gid != group:
            set_group(path, group)

    async def _mount_csi(
        self, pod: Pod, described: "Callable[[ModuleType], CsiVolume]", group: object, renew: list[float]
    ) -> None:
        volumes = self._open_csi()
        if volumes is None:
            raise RuntimeFailure("FailedMount", "CSI volumes are not supported on this node")
        from edgehive.edge import csi_spec

        again = await volumes.mount(pod, described(csi_spec), group if isinstance(group, int) else None)
        if again is not None:
            renew.append(again)

    def _open_csi(self) -> "CsiVolumes | None":
        if self._csi is None and self._plugins is not None:
            from edgehive.edge.csi_volumes import CsiVolumes

            self._csi = CsiVolumes(
                root=self._root,
                node=self._node,
                objects=self._objects,
                drivers=self._plugins,
                clock=self._clock,
            )
        return self._csi

    def _claimed_directory(self, pod: Pod, name: str, claimed: ClaimedVolume) -> Path:
        if claimed.kind == "csi":
            return self._csi_directory(pod, claimed.name)
        if claimed.kind == "nfs":
            return self._pods / pod.uid / "volumes" / "kubernetes.io~nfs" / name
        return Path(str(claimed.source.get("path", "/")))

    def _csi_directory(self, pod: Pod, name: str) -> Path:
        return self._pods / pod.uid / "volumes" / _CSI / name / "mount"

    async def _sources(self, pod: Pod, volume: JsonObject, renew: list[float]) -> Sources:
        sources = Sources()
        for kind, name in object_references(volume):
            found = await self._objects.get(kind, pod.metadata.namespace, name)
            if found is not None:
                sources.objects[kind, name] = found
        for request in token_requests(volume):
            token, renew_at = await self._objects.token(
                pod, request.audience, request.expiration, self._clock()
            )
            sources.tokens[request] = token
            renew.append(renew_at)
        return sources

    def directory(self, pod: Pod, volume: JsonObject) -> Path:
        """Return where `volume` is on this node.

        Raises:
            RuntimeFailure: This kind of volume is not known here.
        """
        if "hostPath" in volume:
            return Path(str(volume["hostPath"].get("path", "/")))
        if claim_source(pod, volume) is not None:
            name = str(volume.get("name", ""))
            claimed = self._claimed.get((pod.uid, name))
            if claimed is None:
                raise RuntimeFailure("FailedMount", f"volume {name!r} is not mounted yet")
            return self._claimed_directory(pod, name, claimed)
        if "csi" in volume:
            return self._csi_directory(pod, str(volume.get("name", "")))
        for kind, plugin in _PLUGINS.items():
            if kind in volume:
                name = str(volume.get("name", ""))
                return self._pods / pod.uid / "volumes" / f"kubernetes.io~{plugin}" / name
        known = sorted(set(volume) - {"name"})
        raise RuntimeFailure(
            "FailedMount", f"volumes of kind {', '.join(known)} are not supported on this node"
        )

    def mounts(
        self, pod: Pod, container: Container, env: Mapping[str, str], *, held: bool = True
    ) -> list[Mount]:
        """Return the mounts of `container`; `mount` has succeeded before.

        `held`: parts of volumes are mounted for the runtime, until `let_go`; otherwise it must check what it finds.

        Raises:
            RuntimeFailure: A mount names no volume, or its subPath leads out of it.
        """
        volumes = {str(volume.get("name", "")): volume for volume in pod.spec.volumes}
        result = []
        for index, one in enumerate(container.volume_mounts):
            volume = volumes.get(one.name)
            if volume is None:
                raise RuntimeFailure("CreateContainerConfigError", f"there is no volume {one.name!r}")
            path, identity = self.directory(pod, volume), ""
            if name := missing(one.sub_path_expr, env):
                raise RuntimeFailure(
                    "CreateContainerConfigError", f"missing value for {name!r} in {one.sub_path_expr!r}"
                )
            relative = expand(one.sub_path_expr, env) if one.sub_path_expr else one.sub_path
            if relative:
                ours = any(kind in volume for kind in GENERATED)  # no pod can write to it
                place = self._pods / pod.uid / DIRECTORY / one.name / container.name / str(index)
                path, identity = _part(path, relative, None if ours or not held else place, create=not ours)
            result.append(
                Mount(
                    str(path),
                    one.mount_path,
                    one.read_only or self._read_only(pod, volume),
                    _PROPAGATION.get(one.mount_propagation, ""),
                    identity,
                )
            )
        return result

    def let_go(self, pod: Pod) -> None:
        """The pod's containers that were started have mounts of their own now."""
        release(self._pods / pod.uid / DIRECTORY)

    def _read_only(self, pod: Pod, volume: JsonObject) -> bool:
        source = claim_source(pod, volume)
        if source is None:
            return any(kind in volume for kind in GENERATED) or bool(
                (volume.get("csi") or {}).get("readOnly")
            )
        claimed = self._claimed.get((pod.uid, str(volume.get("name", ""))))
        return bool(source.get("readOnly")) or (claimed is not None and claimed.readonly)

    async def unpublish(self, uid: str) -> None:
        """Have CSI drivers take back what they made for a pod of which nothing runs; comes before `teardown`.

        Raises:
            RuntimeFailure: A driver is not there, or refuses.
        """
        if not (self._pods / uid / "volumes" / _CSI).is_dir():
            return
        release(self._pods / uid / DIRECTORY)  # a driver cannot take away what is in use
        if (volumes := self._open_csi()) is not None:
            try:
                await volumes.teardown(uid)
            except (OSError, Unreachable) as exc:
                raise RuntimeFailure("FailedUnmount", str(exc)) from exc

    async def sweep(self) -> None:
        """Have drivers that are there undo what a killed edgecore has left staged for nobody."""
        if self._plugins is None:
            return
        staged = self._root / "plugins" / "kubernetes.io" / "csi"
        for name in [entry.name for entry in staged.iterdir()] if staged.is_dir() else ():
            if self._plugins.driver(name) is not None and (volumes := self._open_csi()) is not None:
                await volumes.sweep(name)

    async def teardown(self, uid: str) -> None:
        """Remove everything on disk of a pod of which nothing runs.

        Raises:
            RuntimeFailure: Something could not be removed.
        """
        for key in [key for key in self._claimed if key[0] == uid]:
            del self._claimed[key]
        try:
            await remove_tree(self._pods / uid, self._removing)
        except OSError as exc:
            raise RuntimeFailure("FailedUnmount", f"cannot remove the volumes: {exc}") from exc

    def known(self) -> Iterator[str]:
        """Yield the uids of pods that have a directory here."""
        if self._pods.is_dir():
            for entry in self._pods.iterdir():
                yield entry.name


def referenced_objects(pod: Pod) -> set[Key]:
    """Return the configmaps and secrets that the pod's volumes show."""
    return {key for volume in pod.spec.volumes for key in object_references(volume)}


def _part(volume: Path, relative: str, place: Path | None, *, create: bool) -> tuple[Path, str]:
    """Where a part of a volume is for the runtime, held at `place` if there is one, and what it must find there."""
    part = open_part(volume, relative, create=create)
    try:
        if place is None:
            return path_of(part), identity_of(part)
        hold(part, place, relative)
        return place, ""
    finally:
        os.close(part)
