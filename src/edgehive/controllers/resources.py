"""Which kinds are served: the built-in ones, and those of CustomResourceDefinitions as they come and go."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import msgspec

from edgehive.aio.informer import Informer
from edgehive.kube.reflector import Change
from edgehive.kube.refs import GVR
from edgehive.kube.resources import ResourceInfo

_NEEDED = frozenset(("list", "watch", "delete"))
_ELSEWHERE = frozenset(("events.k8s.io",))  # the same objects are served by the core group


@dataclass(frozen=True, slots=True)
class Served:
    """One kind that can be listed, watched and deleted."""

    gvr: GVR
    kind: str
    namespaced: bool


class _Names(msgspec.Struct, gc=False):
    plural: str = ""
    kind: str = ""


class _Version(msgspec.Struct, gc=False):
    name: str = ""
    served: bool = False
    storage: bool = False


class _Spec(msgspec.Struct, gc=False):
    group: str = ""
    scope: str = ""
    names: _Names = msgspec.field(default_factory=_Names)
    versions: list[_Version] = []


class _Condition(msgspec.Struct, gc=False):
    type: str = ""
    status: str = ""


class _Status(msgspec.Struct, gc=False):
    conditions: list[_Condition] | None = None


class _Crd(msgspec.Struct, gc=False):
    spec: _Spec = msgspec.field(default_factory=_Spec)
    status: _Status = msgspec.field(default_factory=_Status)


def served_by_crd(raw: bytes) -> Served | None:
    """Return the kind a CustomResourceDefinition serves; None while it is not established."""
    crd = msgspec.json.decode(raw, type=_Crd)
    established = any(c.type == "Established" and c.status == "True" for c in crd.status.conditions or ())
    versions = [v for v in crd.spec.versions if v.served]
    if not established or not versions:
        return None
    version = next((v for v in versions if v.storage), versions[0])
    gvr = GVR(crd.spec.group, version.name, crd.spec.names.plural)
    return Served(gvr, crd.spec.names.kind, crd.spec.scope == "Namespaced")


def served_builtin(infos: Iterable[ResourceInfo]) -> list[Served]:
    """Return the built-in kinds that can be listed, watched and deleted, each once."""
    found: dict[tuple[str, str], Served] = {}
    for info in infos:
        if set(info.verbs) >= _NEEDED and info.gvr.group not in _ELSEWHERE:
            found.setdefault(
                (info.gvr.group, info.gvr.resource), Served(info.gvr, info.kind, info.namespaced)
            )
    return list(found.values())


class ServedResources:
    """The kinds served now."""

    def __init__(self, *, builtin: Iterable[ResourceInfo], crds: Informer) -> None:
        self._builtin = served_builtin(builtin)
        self._custom: dict[str, Served] = {}
        self._listeners: list[Callable[[Served | None, Served | None], None]] = []
        crds.subscribe(self._crd_changed)

    def all(self) -> list[Served]:
        """Return every kind served now."""
        return [*self._builtin, *self._custom.values()]

    def find(self, group: str, kind: str) -> Served | None:
        """Return the kind that an ownerReference names; the version does not matter."""
        return next((s for s in self.all() if s.kind == kind and s.gvr.group == group), None)

    def subscribe(self, listener: Callable[[Served | None, Served | None], None]) -> None:
        """Call ``listener(old, new)`` for every kind now, and whenever one comes, changes or goes."""
        for served in self.all():
            listener(None, served)
        self._listeners.append(listener)

    def _crd_changed(self, change: Change) -> None:
        name = change.object.meta.name
        new = served_by_crd(change.new.raw) if change.new is not None else None
        old = self._custom.pop(name, None)
        if new is not None:
            self._custom[name] = new
        if old != new:
            for listener in self._listeners:
                listener(old, new)
