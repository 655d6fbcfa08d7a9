"""What edges are shown differently from the cluster.

The EndpointSlice ``default/kubernetes`` leads to the edge's own MetaServer, so that clients with the in-cluster
configuration find the API where it is. KubeEdge rewrites every slice of a list that begins with one; here it is this
one slice alone.
"""

from typing import Any, Final

import msgspec

from edgehive.kube.meta import decode_partial
from edgehive.kube.refs import GVR

METASERVER_PORT: Final = 10550
_SLICES: Final = ("discovery.k8s.io", "endpointslices")
_ADDRESS: Final = "127.0.0.1"


def for_edges(gvr: GVR, raw: bytes) -> bytes:
    """An object as edges see it."""
    if (gvr.group, gvr.resource) != _SLICES or not _is_master(raw):
        return raw
    return msgspec.json.encode(_rewritten(msgspec.json.decode(raw)))


def for_edges_list(gvr: GVR, raw: bytes) -> bytes:
    """A list as edges see it."""
    if (gvr.group, gvr.resource) != _SLICES or b'"kubernetes"' not in raw:
        return raw
    found = msgspec.json.decode(raw)
    found["items"] = [_rewritten(item) if _named(item) else item for item in found.get("items") or ()]
    return msgspec.json.encode(found)


def _is_master(raw: bytes) -> bool:
    meta = decode_partial(raw).metadata
    return (meta.namespace, meta.name) == ("default", "kubernetes")


def _named(item: Any) -> bool:
    meta = item.get("metadata") or {}
    return (meta.get("namespace"), meta.get("name")) == ("default", "kubernetes")


def _rewritten(slice_: dict[str, Any]) -> dict[str, Any]:
    endpoints = slice_.get("endpoints") or []
    if not endpoints:
        return slice_
    ports = [
        port | {"port": METASERVER_PORT} if port.get("name") == "https" else port
        for port in slice_.get("ports") or ()
    ]
    return slice_ | {"endpoints": [endpoints[0] | {"addresses": [_ADDRESS]}], "ports": ports}
