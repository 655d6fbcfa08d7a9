"""PersistentVolumeClaims: which directory of this node, or of a server, stands behind a claim. Pure.

Claims are bound by the cluster; that the pod is on a node that has its volume is the scheduler's doing. What is left
is to see that claim and volume belong together, and to turn the volume's source into one a pod may name itself.
"""

from dataclasses import dataclass

from edgehive.edge.pods_spec import JsonObject, Pod
from edgehive.edge.runtime import RuntimeFailure

KINDS = ("hostPath", "local", "nfs", "csi")


@dataclass(frozen=True, slots=True)
class ClaimedVolume:
    """The volume behind a claim: exactly one of its sources, in the words of a pod's volume."""

    name: str
    kind: str
    source: JsonObject
    readonly: bool
    options: tuple[str, ...] = ()
    modes: tuple[str, ...] = ()


def claim_source(pod: Pod, volume: JsonObject) -> JsonObject | None:
    """Return the ``persistentVolumeClaim`` of a pod's volume, also of one whose claim is made with the pod.

    The latter (``ephemeral``) has the pod's and the volume's name, and is marked as the pod's ``own``.
    """
    if isinstance(found := volume.get("persistentVolumeClaim"), dict):
        return found
    if isinstance(volume.get("ephemeral"), dict):
        return {"claimName": f"{pod.metadata.name}-{volume.get('name', '')}", "own": True}
    return None


def is_owned(claim: JsonObject, pod: Pod) -> bool:
    """Whether `claim` was made for `pod`, and not by somebody who knew what name it would have."""
    owners = _part(claim, "metadata").get("ownerReferences")
    return any(
        isinstance(one, dict) and one.get("controller") is True and one.get("uid") == pod.uid
        for one in owners or ()
    )


def volume_name(claim: JsonObject, name: str) -> str:
    """Return the name of the volume a claim is bound to.

    Raises:
        RuntimeFailure: It is not bound.
    """
    spec, status = _part(claim, "spec"), _part(claim, "status")
    found = str(spec.get("volumeName") or "")
    if not found or status.get("phase") not in (None, "", "Bound"):
        raise RuntimeFailure("FailedMount", f'persistentvolumeclaim "{name}" is not bound')
    if spec.get("volumeMode") == "Block":
        raise RuntimeFailure("FailedMount", f'persistentvolumeclaim "{name}" is a raw block volume')
    return found


def claimed_volume(volume: JsonObject, claim: JsonObject, namespace: str, name: str) -> ClaimedVolume:
    """Return what stands behind the claim `namespace`/`name`.

    Raises:
        RuntimeFailure: The volume is another claim's, or of a kind this node cannot use.
    """
    spec = _part(volume, "spec")
    title = str(_part(volume, "metadata").get("name", ""))
    owner = _part(spec, "claimRef")
    uid = str(_part(claim, "metadata").get("uid", ""))
    same = (owner.get("namespace"), owner.get("name")) == (namespace, name)
    if not same or (uid and owner.get("uid") not in (None, "", uid)):
        raise RuntimeFailure("FailedMount", f'persistentvolume "{title}" is not bound to {namespace}/{name}')
    kind = next((one for one in KINDS if isinstance(spec.get(one), dict)), "")
    if not kind:
        known = {"accessModes", "capacity", "claimRef", "nodeAffinity", "mountOptions", "volumeMode"}
        other = sorted(key for key, value in spec.items() if isinstance(value, dict) and key not in known)
        text = f'persistentvolume "{title}" of kind {", ".join(other)} is not supported on this node'
        raise RuntimeFailure("FailedMount", text)
    modes = spec.get("accessModes") or ()
    return ClaimedVolume(
        title,
        kind,
        spec[kind],
        [*modes] == ["ReadOnlyMany"] or bool(spec[kind].get("readOnly")),
        tuple(str(one) for one in spec.get("mountOptions") or ()),
        tuple(str(one) for one in modes),
    )


def _part(value: JsonObject, key: str) -> JsonObject:
    found = value.get(key)
    return found if isinstance(found, dict) else {}
