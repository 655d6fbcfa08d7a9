"""What the files of a configMap, secret, downwardAPI or projected volume are; pure once the sources are looked up."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from edgehive.edge.env import Key, PodFacts, field_value, object_data, resource_value
from edgehive.edge.pods_spec import JsonObject, Pod
from edgehive.edge.runtime import RuntimeFailure

DEFAULT_MODE = 0o644
GENERATED = ("configMap", "secret", "downwardAPI", "projected")
"""The volume sources whose content comes from objects."""


@dataclass(frozen=True, slots=True)
class FileContent:
    """One file of a volume."""

    data: bytes
    mode: int


@dataclass(frozen=True, slots=True)
class TokenRequest:
    """A service-account token that a projected volume wants."""

    path: str
    audience: str
    expiration: int | None
    mode: int


@dataclass(slots=True)
class Sources:
    """The objects and tokens a volume was made of."""

    objects: dict[Key, JsonObject] = field(default_factory=dict)
    tokens: dict[TokenRequest, str] = field(default_factory=dict)


def sources_of(volume: JsonObject) -> Iterator[tuple[str, JsonObject]]:
    """Yield (kind, source) for each part; a projected volume has several."""
    for kind in ("configMap", "secret", "downwardAPI"):
        if source := volume.get(kind):
            yield kind, source
    projected = volume.get("projected")
    if projected:
        for part in projected.get("sources") or ():
            for kind in ("configMap", "secret", "downwardAPI", "serviceAccountToken"):
                if kind in part:
                    yield kind, part[kind] | {"defaultMode": projected.get("defaultMode", DEFAULT_MODE)}
    elif "downwardAPI" in volume and not volume["downwardAPI"]:
        yield "downwardAPI", {}


def object_references(volume: JsonObject) -> Iterator[Key]:
    """Yield the configmaps and secrets `volume` shows."""
    for kind, source in sources_of(volume):
        if kind == "configMap":
            yield "configmap", str(source.get("name", ""))
        elif kind == "secret":
            yield "secret", str(source.get("secretName") or source.get("name", ""))


def token_requests(volume: JsonObject) -> Iterator[TokenRequest]:
    """Yield the tokens `volume` shows."""
    for kind, source in sources_of(volume):
        if kind == "serviceAccountToken":
            seconds = source.get("expirationSeconds")
            yield TokenRequest(
                _safe_path(str(source.get("path", "token"))),
                str(source.get("audience", "")),
                int(seconds) if seconds else None,
                _mode(source),
            )


def volume_files(pod: Pod, volume: JsonObject, sources: Sources, facts: PodFacts) -> dict[str, FileContent]:
    """Return the files of a generated volume by relative path.

    Raises:
        RuntimeFailure: An object or key that is not optional is missing, or a path leaves the volume.
    """
    files: dict[str, FileContent] = {}
    for kind, source in sources_of(volume):
        if kind == "downwardAPI":
            files.update(_downward(pod, source, facts))
        elif kind != "serviceAccountToken":
            key = next(iter(object_references({kind: source})))
            files.update(_object_files(pod, key, source, sources.objects.get(key)))
    for request, token in sources.tokens.items():
        files[request.path] = FileContent(token.encode(), request.mode)
    return files


def _object_files(pod: Pod, key: Key, source: JsonObject, found: JsonObject | None) -> dict[str, FileContent]:
    kind, name = key
    optional = bool(source.get("optional", False))
    if found is None:
        if optional:
            return {}
        raise RuntimeFailure("FailedMount", f'{kind} "{name}" not found')
    data = object_data(kind, found)
    mode = _mode(source)
    items = source.get("items")
    if not items:
        return {_safe_path(key): FileContent(value, mode) for key, value in data.items()}
    files = {}
    for item in items:
        wanted = str(item.get("key", ""))
        if wanted in data:
            path = _safe_path(str(item.get("path", "")))
            files[path] = FileContent(data[wanted], int(item.get("mode", mode)) & 0o777)
        elif not optional:
            text = f"references non-existent {kind} key: {wanted} in {pod.metadata.namespace}/{name}"
            raise RuntimeFailure("FailedMount", text)
    return files


def _downward(pod: Pod, source: JsonObject, facts: PodFacts) -> dict[str, FileContent]:
    files = {}
    for item in source.get("items") or ():
        if ref := item.get("fieldRef"):
            text = field_value(pod, str(ref.get("fieldPath", "")), facts)
        else:
            text = resource_value(pod, None, item.get("resourceFieldRef") or {}, facts)
        mode = int(item.get("mode", _mode(source))) & 0o777
        files[_safe_path(str(item.get("path", "")))] = FileContent(text.encode(), mode)
    return files


def _mode(source: Mapping[str, object]) -> int:
    mode = source.get("defaultMode", DEFAULT_MODE)
    return mode & 0o777 if isinstance(mode, int) else DEFAULT_MODE


def _safe_path(path: str) -> str:
    parts = path.split("/")
    if not path or path.startswith("/") or ".." in parts or parts[0].startswith("..") or "" in parts:
        raise RuntimeFailure("FailedMount", f"a volume file may not be called {path!r}")
    return path
