"""The environment of a container: literals, configmaps, secrets, the pod's own fields, ``$(VAR)`` expansion.

Pure: what it refers to is looked up first (`references`) and passed in (`build_env`).
"""

import base64
import binascii
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from edgehive.edge.pods_settings import NodeFacts
from edgehive.edge.pods_spec import Container, JsonObject, Pod, parse_quantity
from edgehive.edge.runtime import RuntimeFailure

_REFERENCE = re.compile(r"\$\$|\$\(([^()$]+)\)")
_SUBSCRIPT = re.compile(r"metadata\.(labels|annotations)\['([^']*)'\]")

Key = tuple[str, str]
"""(``configmap`` or ``secret``, name)."""


class ConfigError(RuntimeFailure):
    """The container cannot be configured now: something it refers to is missing."""

    def __init__(self, message: str) -> None:
        super().__init__("CreateContainerConfigError", message)


@dataclass(frozen=True, slots=True)
class PodFacts:
    """What downward API fields need beyond the pod itself."""

    node: NodeFacts
    pod_ip: str


def references(container: Container) -> Iterator[tuple[Key, bool]]:
    """Yield every configmap and secret that the environment of `container` needs, and whether it is optional."""
    for source in container.env_from:
        for field, kind in (("configMapRef", "configmap"), ("secretRef", "secret")):
            if ref := source.get(field):
                yield (kind, str(ref.get("name", ""))), bool(ref.get("optional", False))
    for entry in container.env:
        origin = entry.get("valueFrom") or {}
        for field, kind in (("configMapKeyRef", "configmap"), ("secretKeyRef", "secret")):
            if ref := origin.get(field):
                yield (kind, str(ref.get("name", ""))), bool(ref.get("optional", False))


def build_env(
    pod: Pod,
    container: Container,
    objects: Mapping[Key, JsonObject],
    facts: PodFacts,
    base: Sequence[tuple[str, str]] = (),
) -> list[tuple[str, str]]:
    """Return the environment; later entries win, `base` is what the node gives to every container.

    Raises:
        ConfigError: A reference that is not optional leads nowhere.
    """
    env: dict[str, str] = dict(base)
    for source in container.env_from:
        env.update(_from_object(source, objects))
    for entry in container.env:
        name = str(entry.get("name", ""))
        if origin := entry.get("valueFrom"):
            value = _value_from(pod, container, origin, objects, facts)
            if value is None:
                continue
        else:
            value = expand(str(entry.get("value", "")), env)
        env[name] = value
    return list(env.items())


def expand(text: str, env: Mapping[str, str]) -> str:
    """Replace ``$(NAME)`` by its value, ``$$`` by ``$``; an unknown name stays as it is written."""

    def replace(match: re.Match[str]) -> str:
        if match[1] is None:
            return "$"
        return env.get(match[1], match[0])

    return _REFERENCE.sub(replace, text)


def missing(text: str, env: Mapping[str, str]) -> str:
    """Return the first name that ``expand`` would leave as it is written."""
    return next((m[1] for m in _REFERENCE.finditer(text) if m[1] is not None and m[1] not in env), "")


def object_text(kind: str, found: JsonObject) -> dict[str, bytes]:
    """The contents of a configmap or secret by key, as far as they can be variables: not a configmap's ``binaryData``."""
    given = (found.get("data") or {}).items()
    return {key: _decode(value) if kind == "secret" else str(value).encode() for key, value in given}


def object_data(kind: str, found: JsonObject) -> dict[str, bytes]:
    """The contents of a configmap or secret by key."""
    data = object_text(kind, found)
    for key, value in (found.get("binaryData") or {}).items():
        data[key] = _decode(value)
    return data


def field_value(pod: Pod, path: str, facts: PodFacts) -> str:
    """Return the field of the pod that a ``fieldRef`` names.

    Raises:
        ConfigError: There is no such field.
    """
    meta = pod.metadata
    if match := _SUBSCRIPT.fullmatch(path):
        return (meta.labels if match[1] == "labels" else meta.annotations).get(match[2], "")
    values = {
        "metadata.name": meta.name,
        "metadata.namespace": meta.namespace,
        "metadata.uid": meta.uid,
        "spec.nodeName": pod.spec.node_name or facts.node.name,
        "spec.serviceAccountName": pod.service_account,
        "status.hostIP": facts.node.ip,
        "status.hostIPs": facts.node.ip,
        "status.podIP": facts.pod_ip,
        "status.podIPs": facts.pod_ip,
    }
    if path == "metadata.labels":
        return _lines(meta.labels)
    if path == "metadata.annotations":
        return _lines(meta.annotations)
    if path not in values:
        raise ConfigError(f"unsupported fieldPath: {path}")
    return values[path]


def resource_value(pod: Pod, container: Container | None, ref: JsonObject, facts: PodFacts) -> str:
    """Return what a ``resourceFieldRef`` names, divided and rounded up; limits default to the node's.

    Raises:
        ConfigError: The container or the resource does not exist.
    """
    if name := ref.get("containerName"):
        container = pod.container(str(name))
    if container is None:
        raise ConfigError(f"no container {ref.get('containerName')!r}")
    resource = str(ref.get("resource", ""))
    kind, _, what = resource.partition(".")
    if kind not in ("limits", "requests") or not what:
        raise ConfigError(f"unsupported resource: {resource}")
    amounts = container.resources.limits if kind == "limits" else container.resources.requests
    if what in amounts:
        amount = parse_quantity(amounts[what])
    elif kind == "limits":
        amount = {"cpu": facts.node.cpu, "memory": float(facts.node.memory)}.get(what, 0.0)
    else:
        amount = parse_quantity(container.resources.limits.get(what, 0))
    divisor = parse_quantity(ref.get("divisor") or 1) or 1.0
    return str(math.ceil(round(amount / divisor, 6)))


def _from_object(source: JsonObject, objects: Mapping[Key, JsonObject]) -> dict[str, str]:
    prefix = str(source.get("prefix", ""))
    result: dict[str, str] = {}
    for field, kind in (("configMapRef", "configmap"), ("secretRef", "secret")):
        ref = source.get(field)
        if not ref:
            continue
        found = objects.get((kind, str(ref.get("name", ""))))
        if found is None:
            if ref.get("optional"):
                continue
            raise ConfigError(f'{kind} "{ref.get("name", "")}" not found')
        for key, value in object_text(kind, found).items():
            result[prefix + key] = value.decode(errors="replace")
    return result


def _value_from(
    pod: Pod, container: Container, origin: JsonObject, objects: Mapping[Key, JsonObject], facts: PodFacts
) -> str | None:
    if ref := origin.get("fieldRef"):
        return field_value(pod, str(ref.get("fieldPath", "")), facts)
    if ref := origin.get("resourceFieldRef"):
        return resource_value(pod, container, ref, facts)
    for field, kind in (("configMapKeyRef", "configmap"), ("secretKeyRef", "secret")):
        if not (ref := origin.get(field)):
            continue
        name, key, optional = str(ref.get("name", "")), str(ref.get("key", "")), bool(ref.get("optional"))
        found = objects.get((kind, name))
        if found is None:
            if optional:
                return None
            raise ConfigError(f'{kind} "{name}" not found')
        data = object_text(kind, found)
        if key not in data:
            if optional:
                return None
            raise ConfigError(f"couldn't find key {key} in {kind} {pod.metadata.namespace}/{name}")
        return data[key].decode(errors="replace")
    raise ConfigError("an environment variable has an unknown source")


def _decode(value: object) -> bytes:
    try:
        return base64.b64decode(str(value), validate=True)
    except (binascii.Error, ValueError):
        return b""


def _lines(pairs: Mapping[str, str]) -> str:
    quoted = ((k, v.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")) for k, v in pairs.items())
    return "\n".join(f'{k}="{v}"' for k, v in sorted(quoted))
