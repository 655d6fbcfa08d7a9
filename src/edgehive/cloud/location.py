"""Which nodes need which ConfigMaps and Secrets: derived from the pods on them, and shrinking with them.

Counted are volumes (also projected ones), environment variables of all containers (init and ephemeral ones too,
which the original forgets) and image pull secrets.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Literal, TypeVar

import msgspec

from edgehive.kit.malformed import MALFORMED
from edgehive.kube.reflector import Key

_K = TypeVar("_K")

Kind = Literal["configmap", "secret"]
Reference = tuple[Kind, str, str]
"""(kind, namespace, name)."""


class _Named(msgspec.Struct, gc=False):
    name: str = ""


class _EnvSource(msgspec.Struct, rename="camel", gc=False):
    config_map_key_ref: _Named | None = None
    secret_key_ref: _Named | None = None


class _Env(msgspec.Struct, rename="camel", gc=False):
    value_from: _EnvSource | None = None


class _EnvFrom(msgspec.Struct, rename="camel", gc=False):
    config_map_ref: _Named | None = None
    secret_ref: _Named | None = None


class _Container(msgspec.Struct, rename="camel", gc=False):
    env: list[_Env] | None = None
    env_from: list[_EnvFrom] | None = None


class _SecretVolume(msgspec.Struct, rename="camel", gc=False):
    secret_name: str = ""


class _Source(msgspec.Struct, rename="camel", gc=False):
    config_map: _Named | None = None
    secret: _Named | None = None


class _Projected(msgspec.Struct, gc=False):
    sources: list[_Source] | None = None


class _Volume(msgspec.Struct, rename="camel", gc=False):
    config_map: _Named | None = None
    secret: _SecretVolume | None = None
    projected: _Projected | None = None


class _Spec(msgspec.Struct, rename="camel", gc=False):
    node_name: str = ""
    containers: list[_Container] | None = None
    init_containers: list[_Container] | None = None
    ephemeral_containers: list[_Container] | None = None
    volumes: list[_Volume] | None = None
    image_pull_secrets: list[_Named] | None = None


class _Pod(msgspec.Struct, gc=False):
    spec: _Spec = msgspec.field(default_factory=_Spec)


class _NodeSpec(msgspec.Struct, rename="camel", gc=False):
    node_name: str = ""


class _PodNode(msgspec.Struct, gc=False):
    spec: _NodeSpec = msgspec.field(default_factory=_NodeSpec)


class _Condition(msgspec.Struct, gc=False):
    type: str = ""
    status: str = ""


class _Status(msgspec.Struct, gc=False):
    conditions: list[_Condition] | None = None


class _Shape(msgspec.Struct, gc=False):
    metadata: dict[str, msgspec.Raw]
    spec: msgspec.Raw = msgspec.Raw(b"null")
    status: _Status | None = None


_pod = msgspec.json.Decoder(_Pod)
_pod_node = msgspec.json.Decoder(_PodNode)
_shape = msgspec.json.Decoder(_Shape)

_UNSHAPELY = frozenset({"resourceVersion", "generation", "managedFields"})


def pod_node(raw: bytes) -> str:
    """The node a pod is bound to; empty while it is not, or when the pod cannot be read."""
    try:
        return _pod_node.decode(raw).spec.node_name
    except MALFORMED:
        return ""


def pod_references(raw: bytes, namespace: str) -> frozenset[Reference]:
    """The ConfigMaps and Secrets a pod needs."""
    try:
        spec = _pod.decode(raw).spec
    except MALFORMED:
        return frozenset()
    pairs = [("secret", s.name) for s in spec.image_pull_secrets or ()]
    for volume in spec.volumes or ():
        pairs += _volume_names(volume)
    for containers in (spec.containers, spec.init_containers, spec.ephemeral_containers):
        for container in containers or ():
            pairs += _container_names(container)
    return frozenset(
        ("configmap" if kind == "configmap" else "secret", namespace, name) for kind, name in pairs if name
    )


def _volume_names(volume: _Volume) -> Iterator[tuple[str, str]]:
    if volume.config_map:
        yield "configmap", volume.config_map.name
    if volume.secret:
        yield "secret", volume.secret.secret_name
    for source in (volume.projected.sources if volume.projected else None) or ():
        if source.config_map:
            yield "configmap", source.config_map.name
        if source.secret:
            yield "secret", source.secret.name


def _container_names(container: _Container) -> Iterator[tuple[str, str]]:
    for env in container.env or ():
        if env.value_from and env.value_from.config_map_key_ref:
            yield "configmap", env.value_from.config_map_key_ref.name
        if env.value_from and env.value_from.secret_key_ref:
            yield "secret", env.value_from.secret_key_ref.name
    for source in container.env_from or ():
        if source.config_map_ref:
            yield "configmap", source.config_map_ref.name
        if source.secret_ref:
            yield "secret", source.secret_ref.name


def pod_shape(raw: bytes) -> int:
    """A fingerprint of what an edge must hear of: everything but the status and bookkeeping fields.

    Unlike in the original, a status write that only touches ``managedFields`` does not count. Of the status the mark
    counts that a node controller puts on the pods of a node it does not hear of: it is for the node to take it off
    again, which has to know of it for that.
    """
    try:
        shape = _shape.decode(raw)
    except MALFORMED:
        return hash(raw)
    meta = sorted((key, bytes(value)) for key, value in shape.metadata.items() if key not in _UNSHAPELY)
    return hash((tuple(meta), bytes(shape.spec), _is_marked(shape)))


def _is_marked(shape: _Shape) -> bool:
    """Whether somebody says that the pod is not ready although all its containers are: no node says so itself.

    But for readiness gates, which are others' to set.
    """
    found = (shape.status.conditions if shape.status is not None else None) or ()
    states = {condition.type: condition.status for condition in found}
    marked = states.get("Ready") == "False" and states.get("ContainersReady") == "True"
    return marked and b'"readinessGates"' not in bytes(shape.spec)


@dataclass(frozen=True, slots=True)
class PodPlace:
    """Where a pod is and what it needs; `version` is that of its last change an edge must hear of."""

    node: str
    references: frozenset[Reference]
    shape: int
    version: str


class LocationIndex:
    """Pods by node, and nodes by reference."""

    def __init__(self) -> None:
        self._places: dict[Key, PodPlace] = {}
        self._pods: dict[str, set[Key]] = {}
        self._uses: dict[Reference, dict[str, int]] = {}
        self._needs: dict[str, dict[Reference, int]] = {}

    def place(self, pod: Key) -> PodPlace | None:
        """What is known of a pod on some node."""
        return self._places.get(pod)

    def pods(self, node: str) -> Iterable[Key]:
        """The pods on `node`."""
        return tuple(self._pods.get(node, ()))

    def nodes(self, reference: Reference) -> Iterable[str]:
        """The nodes that need the object."""
        return tuple(self._uses.get(reference, ()))

    def references(self, node: str) -> Iterable[Reference]:
        """What the pods on `node` need."""
        return tuple(self._needs.get(node, ()))

    def put(self, pod: Key, place: PodPlace) -> frozenset[Reference]:
        """Note a pod; returns the references that are new to its node."""
        old = self._places.get(pod)
        if old is not None and old.node == place.node and old.references == place.references:
            self._places[pod] = place
            return frozenset()
        needed = frozenset(self._needs.get(place.node, ()))
        self.remove(pod)
        self._places[pod] = place
        self._pods.setdefault(place.node, set()).add(pod)
        for reference in place.references:
            _count(self._uses.setdefault(reference, {}), place.node, 1)
            _count(self._needs.setdefault(place.node, {}), reference, 1)
        return place.references - needed

    def remove(self, pod: Key) -> None:
        """Forget a pod, and what only it needed."""
        place = self._places.pop(pod, None)
        if place is None:
            return
        pods = self._pods[place.node]
        pods.discard(pod)
        if not pods:
            del self._pods[place.node]
        for reference in place.references:
            uses, needs = self._uses[reference], self._needs[place.node]
            _count(uses, place.node, -1)
            _count(needs, reference, -1)
            if not uses:
                del self._uses[reference]
            if not needs:
                del self._needs[place.node]


def _count(counts: dict[_K, int], key: _K, change: int) -> None:
    total = counts.get(key, 0) + change
    if total:
        counts[key] = total
    else:
        del counts[key]
