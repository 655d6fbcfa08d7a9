"""KubeEdge's own resource definitions that cloudcore cannot work without, created when they are missing."""

import asyncio
import logging
from typing import Any, Final

import msgspec

from edgehive.kit.errors import UserError
from edgehive.kube.api import KubeApi, ListOptions
from edgehive.kube.refs import CLUSTEROBJECTSYNCS, CRDS, GVR, OBJECTSYNCS
from edgehive.kube.status import ApiStatus

log = logging.getLogger(__name__)

_TEXT: Final = {"type": "string"}
_NEEDED: Final = (
    (OBJECTSYNCS, "ObjectSync", "Namespaced"),
    (CLUSTEROBJECTSYNCS, "ClusterObjectSync", "Cluster"),
)
_SERVED_WITHIN = 30.0  # seconds a new definition may take to be served


def sync_crd(gvr: GVR, kind: str, scope: str) -> dict[str, Any]:
    """The definition of one of the two record kinds."""
    spec = {
        "type": "object",
        "description": "The object and the node it was sent to.",
        "properties": {
            "objectAPIVersion": _TEXT | {"description": "apiVersion of the object."},
            "objectKind": _TEXT | {"description": "Kind of the object."},
            "objectName": _TEXT | {"description": "Name of the object."},
        },
    }
    status = {
        "type": "object",
        "description": "What the node has acknowledged.",
        "properties": {
            "objectResourceVersion": _TEXT | {"description": "Version of the object that the node has."}
        },
    }
    schema = {
        "type": "object",
        "description": f"{kind} records the state of one object on one edge node.",
        "properties": {
            "apiVersion": _TEXT,
            "kind": _TEXT,
            "metadata": {"type": "object"},
            "spec": spec,
            "status": status,
        },
    }
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": f"{gvr.resource}.{gvr.group}"},
        "spec": {
            "group": gvr.group,
            "names": {
                "kind": kind,
                "listKind": f"{kind}List",
                "plural": gvr.resource,
                "singular": kind.lower(),
            },
            "scope": scope,
            "versions": [
                {
                    "name": gvr.version,
                    "served": True,
                    "storage": True,
                    "schema": {"openAPIV3Schema": schema},
                    "subresources": {"status": {}},
                }
            ],
        },
    }


async def ensure_crds(api: KubeApi, *, install: bool) -> None:
    """Make sure that both record kinds are served.

    Raises:
        UserError: they are missing and may not be created.
        Unreachable: the API server is not there.
    """
    for gvr, kind, scope in _NEEDED:
        if await _served(api, gvr):
            continue
        hint = "apply KubeEdge's CRDs (build/crds/reliablesyncs), or let cloudcore create them"
        if not install:
            raise UserError(f"the cluster does not serve {gvr}, and edgehive.installCrds is false", hint=hint)
        try:
            await api.create(CRDS, msgspec.json.encode(sync_crd(gvr, kind, scope)))
            log.info("created the resource definition %s", gvr)
        except ApiStatus as exc:
            if exc.reason != "AlreadyExists":
                raise UserError(f"the resource definition {gvr} cannot be created: {exc}", hint=hint) from exc
        await _wait_served(api, gvr)


async def _served(api: KubeApi, gvr: GVR) -> bool:
    try:
        await api.list(gvr, ListOptions(limit=1))
    except ApiStatus as exc:
        if exc.code == 404:
            return False
        raise
    return True


async def _wait_served(api: KubeApi, gvr: GVR) -> None:
    loop = asyncio.get_running_loop()
    until = loop.time() + _SERVED_WITHIN
    while not await _served(api, gvr):
        if loop.time() > until:
            raise UserError(f"the cluster has the definition of {gvr} but does not serve it")
        await asyncio.sleep(0.1)
