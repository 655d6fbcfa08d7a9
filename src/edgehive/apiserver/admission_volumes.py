"""What Kubernetes' own plugins do to new claims and volumes: protection, and the class of claims that name none."""

from edgehive.aio.storage import Storage
from edgehive.apiserver.codec import Object, decode
from edgehive.kube.protection import CLAIM_IN_USE, VOLUME_IN_USE

_CLASSES = "storageclasses.storage.k8s.io"
_DEFAULT = (
    "storageclass.kubernetes.io/is-default-class",
    "storageclass.beta.kubernetes.io/is-default-class",
)
_OLD_CLASS = "volume.beta.kubernetes.io/storage-class"


def hold(obj: Object, finalizer: str) -> None:
    """Give the object a finalizer."""
    meta = obj["metadata"]
    meta["finalizers"] = sorted({*(meta.get("finalizers") or ()), finalizer})


def admit_claim(obj: Object, storage: Storage) -> None:
    """Protect a claim; one that says nothing of a class gets the newest default one (an empty name says: none)."""
    hold(obj, CLAIM_IN_USE)
    spec = obj.get("spec")
    named = _OLD_CLASS in (obj["metadata"].get("annotations") or {})
    if not isinstance(spec, dict) or spec.get("storageClassName") is not None or named:
        return
    metas = [decode(record.value)["metadata"] for _, record in storage.scan(_CLASSES)]
    defaults = [
        (str(meta.get("creationTimestamp") or ""), meta["name"]) for meta in metas if _is_default(meta)
    ]
    if defaults:
        newest = max(created for created, _ in defaults)
        spec["storageClassName"] = min(name for created, name in defaults if created == newest)


def _is_default(meta: Object) -> bool:
    notes = meta.get("annotations") or {}
    return any(notes.get(key) == "true" for key in _DEFAULT)


def admit_volume(obj: Object) -> None:
    """Protect a volume."""
    hold(obj, VOLUME_IN_USE)
