"""Kinds and resources guessed from one another, as KubeEdge does where nobody looks them up.

The results travel (the type of a watch event, the kind of a list), so the errors of the guess are kept:
``configmaps`` becomes ``Configmap`` and ``leases`` becomes ``Leases``.
"""

from typing import Final

_KINDS: Final = {
    "endpoints": "Endpoints",
    "endpointslices": "EndpointSlice",
    "nodes": "Node",
    "namespaces": "Namespace",
    "services": "Service",
    "podstatus": "PodStatus",
    "nodestatus": "NodeStatus",
    "customresourcedefinitions": "CustomResourceDefinition",
    "customresourcedefinitionlist": "CustomResourceDefinitionList",
    "leases": "Leases",
}
_RESOURCES: Final = {
    "Endpoints": "endpoints",
    "PodStatus": "podstatus",
    "NodeStatus": "nodestatus",
    "CustomResourceDefinition": "customresourcedefinitions",
    "CustomResourceDefinitionList": "customresourcedefinitionlist",
    "Leases": "leases",
}


def resource_to_kind(resource: str) -> str:
    """``pods`` becomes ``Pod``, ``networkpolicies`` ``Networkpolicy``."""
    known = _KINDS.get(resource)
    if known is not None:
        return known
    title = resource[:1].upper() + resource[1:]
    if title.endswith("ies"):
        return title[:-3] + "y"
    if title.endswith("ses"):
        return title[:-2]
    return title.removesuffix("s")


def kind_to_resource(kind: str) -> str:
    """``Pod`` becomes ``pods``, ``NetworkPolicy`` ``networkpolicies``."""
    known = _RESOURCES.get(kind)
    if known is not None or not kind:
        return known or ""
    plain = kind.lower()
    if plain.endswith("s"):
        return plain + "es"
    if plain.endswith("y"):
        return plain[:-1] + "ies"
    return plain + "s"
