"""What a cluster starts with: namespaces, the service that names the API server itself, KubeEdge's device kinds."""

import ipaddress

from edgehive.apiserver.bootstrap_roles import default_roles
from edgehive.apiserver.catalog import bucket_of, key_of
from edgehive.apiserver.codec import Object
from edgehive.apiserver.context import LOCAL, Call
from edgehive.apiserver.registry import Registry
from edgehive.kube.crd_devices import device_crds
from edgehive.kube.refs import CRDS, GVR, NAMESPACES, SERVICES
from edgehive.kube.status import ApiStatus

_NAMESPACES = ("default", "kube-system", "kube-public", "kube-node-lease", "kubeedge")
_ENDPOINTS = GVR("", "v1", "endpoints")


async def bootstrap(registry: Registry, *, address: str, port: int, service_address: str = "") -> None:
    """Create what is missing; safe to repeat."""
    for name in _NAMESPACES:
        await _ensure(registry, NAMESPACES, "", {"metadata": {"name": name}})
    for key, _ in list(registry.storage.scan("namespaces")):
        await registry.furnish(key)
    for crd in device_crds():
        await _ensure(registry, CRDS, "", crd)
    ports = [{"name": "https", "port": 443, "protocol": "TCP", "targetPort": port}]
    for gvr, obj in default_roles():
        await _ensure(registry, gvr, "", obj)
    labels = {"component": "apiserver", "provider": "kubernetes"}
    spec: Object = {"type": "ClusterIP", "ports": ports, "sessionAffinity": "None"}
    if service_address:
        spec["clusterIP"] = service_address
    service = {"metadata": {"name": "kubernetes", "labels": labels}, "spec": spec}
    await _ensure(registry, SERVICES, "default", service)
    if _is_reachable(address):
        subset = {
            "addresses": [{"ip": address}],
            "ports": [{"name": "https", "port": port, "protocol": "TCP"}],
        }
        endpoints = {"metadata": {"name": "kubernetes", "labels": labels}, "subsets": [subset]}
        await _ensure(registry, _ENDPOINTS, "default", endpoints)


async def _ensure(registry: Registry, gvr: GVR, namespace: str, obj: Object) -> None:
    info = registry.catalog.find(gvr.group, gvr.version, gvr.resource)
    if info is None:
        return
    if registry.storage.get(bucket_of(info), key_of(info, namespace, obj["metadata"]["name"])) is not None:
        return
    try:
        await registry.create(
            Call(info, LOCAL, namespace, manager="apiserver", field_validation="Ignore"), obj
        )
    except ApiStatus as exc:
        if exc.reason != "AlreadyExists":
            raise


def _is_reachable(address: str) -> bool:
    """Endpoints may not be loopback or unspecified: Kubernetes refuses them, and nobody could use them."""
    try:
        parsed = ipaddress.ip_address(address)
    except ValueError:
        return False
    return not (parsed.is_loopback or parsed.is_unspecified or parsed.is_link_local)
