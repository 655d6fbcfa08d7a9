"""Built-in admission: what Kubernetes' own plugins do to an object before it is stored.

NamespaceLifecycle, ServiceAccount, Priority, DefaultStorageClass, StorageObjectInUseProtection and the allocation of
service addresses; and KubeEdge's for devices.
"""

import ipaddress
from collections.abc import Callable
from typing import Any

from edgehive.aio.storage import Storage
from edgehive.apiserver.admission_devices import admit_device
from edgehive.apiserver.admission_volumes import admit_claim, admit_volume, hold
from edgehive.apiserver.codec import Object, decode
from edgehive.apiserver.context import Call, Clock, qualified
from edgehive.apiserver.crdshape import schema_shape
from edgehive.kube.crd import crd_status, crd_warnings, validate_crd
from edgehive.kube.fielderror import invalid_value, raise_if_any
from edgehive.kube.status import ApiStatus, not_found

PROTECTED_NAMESPACES = frozenset({"default", "kube-system", "kube-public"})
TOKEN_MOUNT = "/var/run/secrets/kubernetes.io/serviceaccount"  # noqa: S105 - a path
ROOT_CA_CONFIGMAP = "kube-root-ca.crt"
CRD_FINALIZER = "customresourcecleanup.apiextensions.k8s.io"
_TOKEN_SECONDS = 3607
_PRIORITIES = {"system-node-critical": 2000001000, "system-cluster-critical": 2000000000}
_UNSCHEDULED = ("node.kubernetes.io/not-ready", "node.kubernetes.io/unreachable")
_MIRROR = "kubernetes.io/config.mirror"


def _say_who_asks(call: Call, obj: Object) -> None:
    """Write into a certificate request who made it: approvers go by that."""
    spec = obj.get("spec")
    if isinstance(spec, dict):
        for key in ("username", "groups", "uid", "extra"):
            spec.pop(key, None)
        spec |= {"username": call.user.name, "groups": list(call.user.groups)}
        spec |= {key: value for key, value in (("uid", call.user.uid), ("extra", call.user.extra)) if value}


def forbidden(call: Call, name: str, why: str, causes: list[dict[str, str]] | None = None) -> ApiStatus:
    """403, in the words of an admission plugin."""
    details: dict[str, Any] = {"name": name, "kind": call.resource}
    if call.group:
        details["group"] = call.group
    if causes:
        details["causes"] = causes
    return ApiStatus(403, "Forbidden", f'{qualified(call.info)} "{name}" is forbidden: {why}', details)


class Admission:
    """Mutates and refuses objects on their way in.

    `token` draws random name parts; `guard` refuses what the caller may not grant to others.
    """

    def __init__(
        self,
        *,
        storage: Storage,
        clock: Clock,
        token: Callable[[int], str],
        service_network: str = "10.96.0.0/16",
        node_ports: range = range(30000, 32768),
        guard: Callable[[Call, Object], None] = lambda call, obj: None,
    ) -> None:
        self._clock = clock
        self._storage = storage
        self._network = ipaddress.ip_network(service_network)
        self._token = token
        self._guard = guard
        self._node_ports = node_ports
        self._next_address = 0
        self._next_port = 0

    def create(self, call: Call, obj: Object) -> None:
        """Admit a new object.

        Raises:
            ApiStatus: 403, 404, 422.
        """
        if call.info.namespaced:
            self._namespace(call, obj)
        self._guard(call, obj)
        match qualified(call.info):
            case "pods":
                self._pod(call, obj)
            case "services":
                self._service(obj)
            case "customresourcedefinitions.apiextensions.k8s.io":
                hold(obj, CRD_FINALIZER)
                self._crd(call, obj)
            case "persistentvolumeclaims":
                admit_claim(obj, self._storage)
            case "persistentvolumes":
                admit_volume(obj)
            case "certificatesigningrequests.certificates.k8s.io":
                _say_who_asks(call, obj)
            case "devices.devices.kubeedge.io":
                admit_device(call, obj, None, self._storage)
            case _:
                pass

    def update(self, call: Call, obj: Object, old: Object | None = None) -> None:
        """Admit a changed object, `old` being what it was.

        Raises:
            ApiStatus: 422.
        """
        if call.subresource:
            return
        self._guard(call, obj)
        match qualified(call.info):
            case "services":
                self._service(obj)
            case "customresourcedefinitions.apiextensions.k8s.io":
                self._crd(call, obj)
            case "devices.devices.kubeedge.io":
                admit_device(call, obj, old, self._storage)
            case _:
                pass

    def delete(self, call: Call) -> None:
        """Admit a deletion.

        Raises:
            ApiStatus: 403.
        """
        if qualified(call.info) == "namespaces" and call.name in PROTECTED_NAMESPACES:
            raise forbidden(call, call.name, "this namespace may not be deleted")

    # -- namespaces

    def _namespace(self, call: Call, obj: Object) -> None:
        record = self._storage.get("namespaces", call.namespace)
        if record is None:
            raise not_found("namespaces", call.namespace)
        meta = decode(record.value)["metadata"]
        if meta.get("deletionTimestamp"):
            name = str(obj["metadata"].get("name") or "")
            message = f"namespace {call.namespace} is being terminated"
            cause = {"reason": "NamespaceTerminating", "message": message, "field": "metadata.namespace"}
            why = f"unable to create new content in namespace {call.namespace} because it is being terminated"
            raise forbidden(call, name, why, [cause])

    # -- pods

    def _pod(self, call: Call, obj: Object) -> None:
        spec = obj["spec"]
        if not isinstance(spec, dict):
            return
        self._priority(call, obj, spec)
        self._tolerations(spec)
        mirror = _MIRROR in (obj["metadata"].get("annotations") or {})
        if not mirror:
            self._service_account(call, obj, spec)

    @staticmethod
    def _tolerations(spec: dict[str, Any]) -> None:
        """A pod stays on a node that is gone for five minutes, unless it says otherwise."""
        tolerations = spec.get("tolerations")
        tolerations = list(tolerations) if isinstance(tolerations, list) else []
        for key in _UNSCHEDULED:
            if not any(_tolerates(t, key) for t in tolerations):
                tolerations.append(
                    {"key": key, "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 300}
                )
        spec["tolerations"] = tolerations

    def _priority(self, call: Call, obj: Object, spec: dict[str, Any]) -> None:
        name = spec.get("priorityClassName") or ""
        if not name:
            spec.setdefault("priority", 0)
            spec.setdefault("preemptionPolicy", "PreemptLowerPriority")
            return
        record = self._storage.get("priorityclasses.scheduling.k8s.io", name)
        if record is not None:
            found = decode(record.value)
            spec["priority"] = found.get("value", 0)
            spec.setdefault("preemptionPolicy", found.get("preemptionPolicy", "PreemptLowerPriority"))
        elif name in _PRIORITIES:
            spec["priority"] = _PRIORITIES[name]
            spec.setdefault("preemptionPolicy", "PreemptLowerPriority")
        else:
            pod = str(obj["metadata"].get("name", ""))
            raise forbidden(call, pod, f"no PriorityClass with name {name} was found")

    def _service_account(self, call: Call, obj: Object, spec: dict[str, Any]) -> None:
        account = spec.get("serviceAccountName") or spec.get("serviceAccount") or "default"
        spec["serviceAccountName"] = spec["serviceAccount"] = account
        record = self._storage.get("serviceaccounts", f"{call.namespace}/{account}")
        if record is None:
            why = f"error looking up service account {call.namespace}/{account}: "
            why += f'serviceaccount "{account}" not found'
            raise forbidden(call, str(obj["metadata"].get("name", "")), why)
        found = decode(record.value)
        if not spec.get("imagePullSecrets") and found.get("imagePullSecrets"):
            spec["imagePullSecrets"] = found["imagePullSecrets"]
        mount = spec.get("automountServiceAccountToken", found.get("automountServiceAccountToken"))
        if mount is not False:
            self._mount_token(spec)

    def _mount_token(self, spec: dict[str, Any]) -> None:
        """Add the projected token volume to every container that mounts nothing at its place."""
        volumes = list(spec.get("volumes") or ())
        name = next(
            (v["name"] for v in volumes if str(v.get("name", "")).startswith("kube-api-access-")),
            f"kube-api-access-{self._token(5)}",
        )
        used = False
        for kind in ("initContainers", "containers"):
            for container in spec.get(kind) or ():
                mounts = list(container.get("volumeMounts") or ())
                if any(m.get("mountPath") == TOKEN_MOUNT for m in mounts):
                    continue
                mounts.append({"name": name, "readOnly": True, "mountPath": TOKEN_MOUNT})
                container["volumeMounts"] = mounts
                used = True
        if used and not any(v.get("name") == name for v in volumes):
            spec["volumes"] = [*volumes, {"name": name, "projected": _token_sources()}]

    # -- custom resource definitions

    def _crd(self, call: Call, obj: Object) -> None:
        name = obj["metadata"].get("name")
        shapes = [
            error
            for index, version in enumerate((obj.get("spec") or {}).get("versions") or ())
            if "openAPIV3Schema" in (version.get("schema") or {})
            for error in schema_shape(
                version["schema"]["openAPIV3Schema"], f"spec.versions[{index}].schema.openAPIV3Schema"
            )
        ]
        raise_if_any("CustomResourceDefinition", str(name), shapes or validate_crd(obj), call.group)
        call.warnings.extend(text for text in crd_warnings(obj) if text not in call.warnings)
        bucket = qualified(call.info)
        others = [decode(r.value) for key, r in self._storage.scan(bucket) if key != name]
        obj["status"] = crd_status(obj, others, now=self._clock.stamp())

    # -- services

    def _service(self, obj: Object) -> None:
        spec = obj.setdefault("spec", {})
        kind = spec.get("type") or "ClusterIP"
        if kind == "ExternalName":
            return
        self._cluster_ip(obj, spec)
        if kind in {"NodePort", "LoadBalancer"} and spec.get("allocateLoadBalancerNodePorts", True):
            self._allocate_node_ports(obj, spec)

    def _cluster_ip(self, obj: Object, spec: dict[str, Any]) -> None:
        given = spec.get("clusterIP") or ""
        if given == "None":
            spec["clusterIPs"] = ["None"]
        else:
            mine = obj["metadata"].get("uid")
            taken = self._taken_addresses(mine)
            if not given:
                given = self._free_address(taken)
            elif given in taken:
                cause = invalid_value("spec.clusterIPs", [given], "provided IP is already allocated")
                raise_if_any("Service", str(obj["metadata"].get("name", "")), [cause])
            spec["clusterIP"] = given
            spec["clusterIPs"] = [given]
        spec.setdefault("internalTrafficPolicy", "Cluster")
        spec.setdefault("ipFamilies", ["IPv6" if ":" in given else "IPv4"])
        spec.setdefault("ipFamilyPolicy", "SingleStack")

    def _services(self) -> list[Object]:
        return [decode(record.value) for _, record in self._storage.scan("services")]

    def _taken_addresses(self, mine: str | None) -> set[str]:
        return {
            str((s.get("spec") or {}).get("clusterIP") or "")
            for s in self._services()
            if not mine or s["metadata"].get("uid") != mine
        }

    def _free_address(self, taken: set[str]) -> str:
        """The next free one, going round: two creations under way must not get the same.

        The lowest sixteenth comes last: it is left for addresses chosen by hand.
        """
        size = min(self._network.num_addresses, 1 << 16)
        low = min(max(size // 16, 1), 256)
        usable = size - 1 - low
        for step in range(usable):
            offset = low + (self._next_address + step) % usable
            address = str(self._network[offset])
            if address not in taken:
                self._next_address = offset - low + 1
                return address
        address = next((a for o in range(2, low) if (a := str(self._network[o])) not in taken), "")
        if not address:
            raise ApiStatus(500, "InternalError", "Internal error occurred: no free service address is left")
        return address

    def _free_port(self, taken: set[Any]) -> int:
        """The next free one, going round."""
        ports = self._node_ports
        for step in range(len(ports)):
            number = ports[(self._next_port + step) % len(ports)]
            if number not in taken:
                self._next_port = number - ports.start + 1
                return number
        raise ApiStatus(500, "InternalError", "Internal error occurred: no free node port is left")

    def _allocate_node_ports(self, obj: Object, spec: dict[str, Any]) -> None:
        mine = obj["metadata"].get("uid")
        taken = {
            port.get("nodePort")
            for service in self._services()
            if not mine or service["metadata"].get("uid") != mine
            for port in (service.get("spec") or {}).get("ports") or ()
        }
        for index, port in enumerate(spec.get("ports") or ()):
            number = port.get("nodePort")
            if number and number in taken:
                field = f"spec.ports[{index}].nodePort"
                cause = invalid_value(field, number, "provided port is already allocated")
                raise_if_any("Service", str(obj["metadata"].get("name", "")), [cause])
            if not number:
                number = port["nodePort"] = self._free_port(taken)
            taken.add(number)


def _token_sources() -> dict[str, Any]:
    namespace = {"path": "namespace", "fieldRef": {"apiVersion": "v1", "fieldPath": "metadata.namespace"}}
    return {
        "sources": [
            {"serviceAccountToken": {"expirationSeconds": _TOKEN_SECONDS, "path": "token"}},
            {"configMap": {"name": ROOT_CA_CONFIGMAP, "items": [{"key": "ca.crt", "path": "ca.crt"}]}},
            {"downwardAPI": {"items": [namespace]}},
        ],
        "defaultMode": 420,
    }


def _tolerates(toleration: Any, key: str) -> bool:
    if not isinstance(toleration, dict):
        return False
    if toleration.get("effect") not in {None, "", "NoExecute"}:
        return False
    return toleration.get("key") == key or (
        not toleration.get("key") and toleration.get("operator") == "Exists"
    )
