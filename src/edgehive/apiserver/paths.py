"""The grammar of Kubernetes' URLs: from a path to a resource, a name, a subresource."""

from dataclasses import dataclass
from urllib.parse import unquote

_NAMESPACE_PARTS = frozenset({"status", "finalize"})


@dataclass(frozen=True, slots=True)
class Target:
    """What a resource URL names; `watch` for the old ``/watch/`` form."""

    group: str
    version: str
    resource: str
    namespace: str = ""
    name: str = ""
    subresource: str = ""
    rest: str = ""
    watch: bool = False


def parse_target(raw_path: str) -> Target | None:
    """Read ``/api/v1/...`` and ``/apis/GROUP/VERSION/...``; None for anything else."""
    parts = [unquote(part) for part in raw_path.strip("/").split("/")]
    if len(parts) >= 3 and parts[0] == "api":
        group, version, parts = "", parts[1], parts[2:]
    elif len(parts) >= 4 and parts[0] == "apis":
        group, version, parts = parts[1], parts[2], parts[3:]
    else:
        return None
    if any(not part for part in parts[:3]):
        return None
    watch = parts[0] == "watch" and len(parts) > 1
    if watch:
        parts = parts[1:]
    namespace = ""
    if parts[0] == "namespaces" and len(parts) > 1:
        namespace = parts[1]
        if len(parts) > 2 and parts[2] not in _NAMESPACE_PARTS:
            parts = parts[2:]
    resource, *more = parts
    name = more[0] if more else ""
    subresource = more[1] if len(more) > 1 else ""
    if resource == "namespaces":
        namespace = name
    return Target(group, version, resource, namespace, name, subresource, "/".join(more[2:]), watch)
