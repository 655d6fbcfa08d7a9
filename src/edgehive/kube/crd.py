"""CustomResourceDefinitions: checked, turned into resources, and KubeEdge's own."""

from collections.abc import Iterable, Mapping
from typing import Any

from edgehive.kube.fielderror import FieldError
from edgehive.kube.resources import ResourceInfo


def infos_from_crd(crd: Mapping[str, Any]) -> list[ResourceInfo]:
    """Return one resource for each served version."""
    raise NotImplementedError


def validate_crd(crd: Mapping[str, Any], old: Mapping[str, Any] | None = None) -> list[FieldError]:
    """Return what is wrong with a CRD."""
    raise NotImplementedError


def crd_warnings(crd: Mapping[str, Any]) -> list[str]:
    """Return sentences for HTTP ``Warning`` headers: what of this CRD is kept but not enforced."""
    raise NotImplementedError


def crd_status(crd: Mapping[str, Any], others: Iterable[Mapping[str, Any]], *, now: str) -> dict[str, Any]:
    """Return ``status`` (NamesAccepted and Established conditions, acceptedNames, storedVersions)."""
    raise NotImplementedError


def kubeedge_crds() -> list[dict[str, Any]]:
    """Return the manifests of ObjectSync and ClusterObjectSync."""
    raise NotImplementedError
