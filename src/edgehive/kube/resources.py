"""The description of one served resource: what the generic registry is driven by.

There is one registry and one HTTP face; a kind is a row of this table, built in or made from a CRD.
"""

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from edgehive.kube.refs import GVR

if TYPE_CHECKING:
    from edgehive.kube.schema import Schema

ALL_VERBS = ("create", "delete", "deletecollection", "get", "list", "patch", "update", "watch")


@dataclass(frozen=True, slots=True)
class Column:
    """One column of ``kubectl get``.

    `path` is a JSONPath as in a CRD's ``additionalPrinterColumns`` (``.spec.replicas``); built-in kinds
    whose cells need code name a function of `kube.table` instead (``path`` empty, `cell` set).
    """

    name: str
    type: str = "string"
    format: str = ""
    description: str = ""
    priority: int = 0
    path: str = ""
    cell: str = ""


@dataclass(frozen=True, slots=True)
class ResourceInfo:
    """One resource in one version."""

    gvr: GVR
    kind: str
    namespaced: bool
    singular: str = ""
    list_kind: str = ""
    short_names: tuple[str, ...] = ()
    categories: tuple[str, ...] = ()
    verbs: tuple[str, ...] = ALL_VERBS
    subresources: frozenset[str] = frozenset()
    """``status``, ``scale``, ``binding``, ``eviction``, ``token``, ..."""
    schema: "Schema | None" = None
    columns: tuple[Column, ...] = ()
    custom: bool = False
    """True when it comes from a CustomResourceDefinition."""
    storage_version: str = ""
    """The version objects are stored in; empty means this one."""
    description: str = ""
    scale_paths: tuple[str, str, str] = ("", "", "")
    """specReplicasPath, statusReplicasPath, labelSelectorPath of the ``scale`` subresource."""
    extra: dict[str, str] = field(default_factory=dict)

    @property
    def api_version(self) -> str:
        """``v1``, ``apps/v1``."""
        return self.gvr.api_version
