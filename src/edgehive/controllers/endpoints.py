"""Which pods are behind a service: the content of its Endpoints and EndpointSlices. Pure."""

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from edgehive.controllers.objects import Pod, View, pod_finished, pod_ready, reader
from edgehive.kube.meta import Meta

SERVICE_LABEL = "kubernetes.io/service-name"
MANAGED_LABEL = "endpointslice.kubernetes.io/managed-by"
MANAGER = "endpointslice-controller.k8s.io"
SKIP_MIRROR = "endpointslice.kubernetes.io/skip-mirror"
_PER_SLICE = 100
_PER_ENDPOINTS = 1000


class ServicePort(View, frozen=True):
    """``spec.ports[]`` of a service."""

    name: str = ""
    protocol: str = "TCP"
    port: int = 0
    target_port: int | str | None = None
    app_protocol: str = ""


class ServiceSpec(View, frozen=True):
    """``spec`` of a service."""

    type: str = "ClusterIP"
    selector: dict[str, str] | None = None
    ports: tuple[ServicePort, ...] | None = None
    publish_not_ready_addresses: bool | None = None
    ip_families: tuple[str, ...] | None = None


class Service(View, frozen=True):
    """A service."""

    metadata: Meta = Meta()
    spec: ServiceSpec = ServiceSpec()


decode_service = reader(Service)


@dataclass(frozen=True, slots=True)
class Endpoint:
    """One address of one pod, with the ports the service has there."""

    ip: str
    pod: Pod
    ready: bool
    serving: bool
    terminating: bool
    ports: tuple[tuple[str, int, str, str], ...]
    """(name, number, protocol, application protocol)."""

    @property
    def family(self) -> str:
        """``IPv4`` or ``IPv6``."""
        return "IPv6" if ":" in self.ip else "IPv4"

    def target(self) -> dict[str, str]:
        """The reference to the pod."""
        meta = self.pod.metadata
        return {"kind": "Pod", "namespace": meta.namespace, "name": meta.name, "uid": meta.uid}


def selected(service: Service) -> bool:
    """Tell whether the service's endpoints are ours to keep."""
    return bool(service.spec.selector) and service.spec.type != "ExternalName"


def endpoints_of(service: Service, pods: Iterable[Pod]) -> list[Endpoint]:
    """Return the endpoints of `service` among the selected `pods`, in a stable order."""
    found = []
    for pod in pods:
        ips = [entry.ip for entry in pod.status.pod_ips or () if entry.ip] or [pod.status.pod_ip]
        terminating = pod.metadata.deletion_timestamp is not None
        serving = pod_ready(pod)
        ready = bool(service.spec.publish_not_ready_addresses) or (serving and not terminating)
        if pod_finished(pod):
            continue
        ports = _ports_on(service, pod)
        found += [Endpoint(ip, pod, ready, serving, terminating, ports) for ip in ips if ip]
    return sorted(found, key=lambda e: (e.ip, e.pod.metadata.name))


def _ports_on(service: Service, pod: Pod) -> tuple[tuple[str, int, str, str], ...]:
    ports = []
    for port in service.spec.ports or ():
        number = _number(port, pod)
        if number:
            ports.append((port.name, number, port.protocol, port.app_protocol))
    return tuple(ports)


def _number(port: ServicePort, pod: Pod) -> int:
    target = port.target_port
    if isinstance(target, int) and target:
        return target
    if not target:
        return port.port
    for container in pod.spec.containers or ():
        for entry in container.ports or ():
            if entry.name == target and entry.protocol == port.protocol:
                return entry.container_port
    return 0


def subsets(endpoints: Sequence[Endpoint]) -> list[dict[str, Any]]:
    """Return ``subsets`` of an Endpoints object; those about to end are left out."""
    groups: dict[tuple[tuple[str, int, str, str], ...], list[Endpoint]] = {}
    for endpoint in [e for e in endpoints if not e.terminating or e.ready][:_PER_ENDPOINTS]:
        groups.setdefault(endpoint.ports, []).append(endpoint)
    result = []
    for ports, members in sorted(groups.items()):
        subset: dict[str, Any] = {}
        for key, ready in (("addresses", True), ("notReadyAddresses", False)):
            addresses = [_address(e) for e in members if e.ready is ready]
            if addresses:
                subset[key] = addresses
        if ports:
            subset["ports"] = [_port(port) for port in ports]
        result.append(subset)
    return result


def _address(endpoint: Endpoint) -> dict[str, Any]:
    node = endpoint.pod.spec.node_name
    return {"ip": endpoint.ip, "targetRef": endpoint.target()} | ({"nodeName": node} if node else {})


def _port(port: tuple[str, int, str, str]) -> dict[str, Any]:
    name, number, protocol, application = port
    optional = ({"name": name} if name else {}) | ({"appProtocol": application} if application else {})
    return {"port": number, "protocol": protocol, **optional}


def slices(service: Service, endpoints: Sequence[Endpoint]) -> dict[str, dict[str, Any]]:
    """Return the EndpointSlices a service should have, by name.

    A name depends on address family, ports and number, so that a slice is changed, not replaced, as pods come
    and go.
    """
    families = service.spec.ip_families or ("IPv4",)
    groups: dict[tuple[str, tuple[tuple[str, int, str, str], ...]], list[Endpoint]] = {}
    for endpoint in endpoints:
        if endpoint.family in families:
            groups.setdefault((endpoint.family, endpoint.ports), []).append(endpoint)
    if not groups:
        groups[families[0], ()] = []
    meta = service.metadata
    labels: dict[str, str] = {**(meta.labels or {}), SERVICE_LABEL: meta.name, MANAGED_LABEL: MANAGER}
    result: dict[str, dict[str, Any]] = {}
    for (family, ports), members in groups.items():
        digest = hashlib.sha256(json.dumps([family, ports]).encode()).hexdigest()[:8]
        for number, start in enumerate(range(0, max(1, len(members)), _PER_SLICE)):
            name = f"{meta.name}-{digest}" + (f"-{number}" if number else "")
            result[name] = {
                "apiVersion": "discovery.k8s.io/v1",
                "kind": "EndpointSlice",
                "metadata": {
                    "name": name,
                    "namespace": meta.namespace,
                    "labels": labels,
                    "ownerReferences": [_owner(meta)],
                },
                "addressType": family,
                "endpoints": [_slice_entry(e) for e in members[start : start + _PER_SLICE]],
                "ports": [{**_port(port), "name": port[0]} for port in ports],
            }
    return result


def _owner(meta: Meta) -> dict[str, Any]:
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "name": meta.name,
        "uid": meta.uid,
        "controller": True,
        "blockOwnerDeletion": True,
    }


def _slice_entry(endpoint: Endpoint) -> dict[str, Any]:
    conditions = {"ready": endpoint.ready, "serving": endpoint.serving, "terminating": endpoint.terminating}
    entry: dict[str, Any] = {
        "addresses": [endpoint.ip],
        "conditions": conditions,
        "targetRef": endpoint.target(),
    }
    if endpoint.pod.spec.node_name:
        entry["nodeName"] = endpoint.pod.spec.node_name
    return entry


def same_content(found: Mapping[str, Any], wanted: Mapping[str, Any], keys: Iterable[str]) -> bool:
    """Tell whether two objects agree in `keys`; absent and empty are the same."""
    return all((found.get(key) or None) == (wanted.get(key) or None) for key in keys)
