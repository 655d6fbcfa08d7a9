"""What a CSI volume is to the node: from a PersistentVolume or a pod, in the words of the CSI calls. Pure."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from edgehive.aio import csi_messages as csi
from edgehive.edge.pods_spec import JsonObject, Pod
from edgehive.edge.runtime import RuntimeFailure

_SINGLE_WRITER, _MULTI_READER, _MULTI_WRITER, _ONE_POD, _MANY_PODS = 1, 3, 5, 6, 7


@dataclass(frozen=True, slots=True)
class CsiVolume:
    """One volume of a pod."""

    driver: str
    handle: str
    name: str
    """Names its directory: the PersistentVolume's name, or for an inline volume the one in the pod."""
    ephemeral: bool = False
    """Inline in a pod: made when it is published, gone when it is unpublished."""
    readonly: bool = False
    fs_type: str = ""
    mount_flags: Sequence[str] = ()
    access_modes: Sequence[str] = ()
    attributes: Mapping[str, str] = field(default_factory=dict)
    stage_secret: tuple[str, str] | None = None
    """(namespace, name)"""
    publish_secret: tuple[str, str] | None = None

    def attachment(self, node: str) -> str:
        """The name of the VolumeAttachment that attaches it to `node`."""
        digest = hashlib.sha256(f"{self.handle}{self.driver}{node}".encode()).hexdigest()
        return f"csi-{digest}"

    def capability(self, rpcs: frozenset[int], group: int | None) -> dict[str, Any]:
        """``VolumeCapability`` for a driver that can do `rpcs`; `group` when the driver is to apply it."""
        mount: dict[str, Any] = {"fs_type": self.fs_type, "mount_flags": list(self.mount_flags)}
        if group is not None and csi.VOLUME_MOUNT_GROUP in rpcs:
            mount["volume_mount_group"] = str(group)
        return {"mount": mount, "access_mode": {"mode": self._access_mode(rpcs)}}

    def _access_mode(self, rpcs: frozenset[int]) -> int:
        fine = csi.SINGLE_NODE_MULTI_WRITER in rpcs
        mode = self.access_modes[0] if self.access_modes else "ReadWriteOnce"
        return {
            "ReadOnlyMany": _MULTI_READER,
            "ReadWriteMany": _MULTI_WRITER,
            "ReadWriteOncePod": _ONE_POD if fine else _SINGLE_WRITER,
        }.get(mode, _MANY_PODS if fine else _SINGLE_WRITER)


def persistent(name: str, source: JsonObject, **more: Any) -> CsiVolume:
    """Return the volume of a PersistentVolume's ``spec.csi``.

    Raises:
        RuntimeFailure: It names no driver or no volume.
    """
    volume = CsiVolume(
        driver=str(source.get("driver") or ""),
        handle=str(source.get("volumeHandle") or ""),
        name=name,
        fs_type=str(source.get("fsType") or ""),
        attributes=_attributes(source),
        stage_secret=_secret(source.get("nodeStageSecretRef")),
        publish_secret=_secret(source.get("nodePublishSecretRef")),
        **more,
    )
    if not volume.handle:
        raise RuntimeFailure("FailedMount", f'persistentvolume "{name}" has no volumeHandle')
    return _checked(volume)


def inline(pod: Pod, name: str, source: JsonObject) -> CsiVolume:
    """Return the volume that a pod itself describes.

    Raises:
        RuntimeFailure: It names no driver.
    """
    digest = hashlib.sha256(f"{pod.uid}{name}".encode()).hexdigest()
    reference = source.get("nodePublishSecretRef")
    # The secret is one of the pod's own namespace, whatever else the reference says.
    secret = (
        _secret(reference | {"namespace": pod.metadata.namespace}) if isinstance(reference, dict) else None
    )
    return _checked(
        CsiVolume(
            driver=str(source.get("driver") or ""),
            handle=f"csi-{digest}",
            name=name,
            ephemeral=True,
            readonly=bool(source.get("readOnly")),
            fs_type=str(source.get("fsType") or ""),
            attributes=_attributes(source),
            publish_secret=secret,
        )
    )


def _checked(volume: CsiVolume) -> CsiVolume:
    # The driver's name becomes part of a path.
    if not volume.driver or "/" in volume.driver or volume.driver.startswith("."):
        raise RuntimeFailure("FailedMount", f"volume {volume.name!r} names no CSI driver")
    return volume


def _attributes(source: JsonObject) -> dict[str, str]:
    found = source.get("volumeAttributes")
    return {str(k): str(v) for k, v in found.items()} if isinstance(found, dict) else {}


def _secret(reference: object) -> tuple[str, str] | None:
    if not isinstance(reference, dict) or not reference.get("name"):
        return None
    return str(reference.get("namespace") or "default"), str(reference["name"])


@dataclass(frozen=True, slots=True)
class DriverFacts:
    """What the cluster's CSIDriver object says; the defaults are those of Kubernetes when there is none."""

    known: bool = False
    attach: bool = True
    pod_info: bool = False
    modes: frozenset[str] = frozenset(("Persistent",))
    group_policy: str = "ReadWriteOnceWithFSType"
    republish: bool = False
    audiences: Sequence[tuple[str, int | None]] = ()

    def applies_group(self, volume: CsiVolume) -> bool:
        """Whether the node itself gives the volume's files to the pod's fsGroup."""
        if volume.readonly or self.group_policy == "None":
            return False
        once = {"ReadWriteOnce", "ReadWriteOncePod"} & set(volume.access_modes)
        return self.group_policy == "File" or bool(volume.fs_type and once)


def driver_facts(found: JsonObject) -> DriverFacts:
    """Read a CSIDriver."""
    spec = found.get("spec")
    spec = spec if isinstance(spec, dict) else {}
    wanted = [one for one in spec.get("tokenRequests") or () if isinstance(one, dict)]
    return DriverFacts(
        known=True,
        attach=spec.get("attachRequired") is not False,
        pod_info=bool(spec.get("podInfoOnMount")),
        modes=frozenset(str(one) for one in spec.get("volumeLifecycleModes") or ("Persistent",)),
        group_policy=str(spec.get("fsGroupPolicy") or "ReadWriteOnceWithFSType"),
        republish=bool(spec.get("requiresRepublish")),
        audiences=tuple((str(one.get("audience") or ""), one.get("expirationSeconds")) for one in wanted),
    )


def pod_info(pod: Pod, volume: CsiVolume) -> dict[str, str]:
    """What a driver that asks for it is told of the pod, as part of ``volume_context``."""
    prefix = "csi.storage.k8s.io/"
    return {
        f"{prefix}pod.name": pod.metadata.name,
        f"{prefix}pod.namespace": pod.metadata.namespace,
        f"{prefix}pod.uid": pod.uid,
        f"{prefix}serviceAccount.name": pod.service_account,
        f"{prefix}ephemeral": "true" if volume.ephemeral else "false",
    }
