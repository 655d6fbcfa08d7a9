"""Which resources are served: the built-in rows and what CustomResourceDefinitions add."""

import re
from collections.abc import Iterable, Sequence

from edgehive.kube.resources import ResourceInfo

_VERSION = re.compile(r"v(\d+)(?:(alpha|beta)(\d+))?")


def version_rank(version: str) -> tuple[int, int, int, str]:
    """Sort key that puts the preferred version first: GA before beta before alpha, newest first."""
    match = _VERSION.fullmatch(version)
    if match is None:
        return (3, 0, 0, version)
    stage = {None: 0, "beta": 1, "alpha": 2}[match[2]]
    return (stage, -int(match[1]), -int(match[3] or 0), version)


class Catalog:
    """Resources by group, version and name. `generation` changes when they do."""

    def __init__(self, builtin: Iterable[ResourceInfo]) -> None:
        self._builtin = tuple(builtin)
        self._custom: dict[str, tuple[ResourceInfo, ...]] = {}
        self.generation = 0
        self._rows: dict[tuple[str, str, str], ResourceInfo] = {}
        self._index()

    def _index(self) -> None:
        custom = [info for infos in self._custom.values() for info in infos]
        self._rows = {(i.gvr.group, i.gvr.version, i.gvr.resource): i for i in (*custom, *self._builtin)}
        self.generation += 1

    def set_custom(self, crd: str, infos: Sequence[ResourceInfo]) -> None:
        """Serve the resources of a CRD (none: no longer)."""
        if infos:
            self._custom[crd] = tuple(infos)
        else:
            self._custom.pop(crd, None)
        self._index()

    def custom(self, crd: str) -> tuple[ResourceInfo, ...]:
        """What a CRD adds."""
        return self._custom.get(crd, ())

    def find(self, group: str, version: str, resource: str) -> ResourceInfo | None:
        """Return the resource, or None."""
        return self._rows.get((group, version, resource))

    def serves(self, info: ResourceInfo) -> bool:
        """Tell whether a row (or its successor after a change of its CRD) is served."""
        return (info.gvr.group, info.gvr.version, info.gvr.resource) in self._rows

    def all(self) -> Iterable[ResourceInfo]:
        """Every row."""
        return self._rows.values()

    def groups(self) -> dict[str, list[str]]:
        """Versions by group, the core group first, the preferred version first."""
        found: dict[str, set[str]] = {}
        for info in self._rows.values():
            found.setdefault(info.gvr.group, set()).add(info.gvr.version)
        return {group: sorted(found[group], key=version_rank) for group in sorted(found)}

    def in_version(self, group: str, version: str) -> list[ResourceInfo]:
        """The rows of one group and version, by name."""
        rows = [i for i in self._rows.values() if i.gvr.group == group and i.gvr.version == version]
        return sorted(rows, key=lambda i: i.gvr.resource)


def bucket_of(info: ResourceInfo) -> str:
    """Where the objects of a resource are stored, whatever the version: ``deployments.apps``."""
    return str(info.gvr)


def key_of(info: ResourceInfo, namespace: str, name: str) -> str:
    """The store's key: ``namespace/name``, or the name of a cluster-scoped object."""
    return f"{namespace}/{name}" if info.namespaced else name


def storage_api_version(info: ResourceInfo) -> str:
    """The apiVersion that stored objects carry."""
    version = info.storage_version or info.gvr.version
    return f"{info.gvr.group}/{version}" if info.gvr.group else version
