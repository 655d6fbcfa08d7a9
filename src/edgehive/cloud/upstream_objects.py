"""What an edge reads from the cluster, and the events and certificate requests it hands in."""

import base64
from collections.abc import Callable, Mapping
from typing import Any, Final

import msgspec

from edgehive.aio.pki import CertificateError, parse_csr, pem_csr_to_der
from edgehive.cloud.edgerequest import Answers, EdgeRequest
from edgehive.kube.api import STRATEGIC_PATCH, KubeApi
from edgehive.kube.refs import CONFIGMAPS, CSRS, EVENTS, GVR, SECRETS, SERVICEACCOUNTS, is_dns_subdomain
from edgehive.kube.status import bad_request, forbidden
from edgehive.wire import resource as res
from edgehive.wire.endpoint import NODE_USER_PREFIX, NODES_ORGANIZATION

PERSISTENT_VOLUMES: Final = GVR("", "v1", "persistentvolumes")
PERSISTENT_VOLUME_CLAIMS: Final = GVR("", "v1", "persistentvolumeclaims")
VOLUME_ATTACHMENTS: Final = GVR("storage.k8s.io", "v1", "volumeattachments")
RUNTIME_CLASSES: Final = GVR("node.k8s.io", "v1", "runtimeclasses")
CSI_DRIVERS: Final = GVR("storage.k8s.io", "v1", "csidrivers")

_SIGNERS: Final = frozenset({"kubernetes.io/kubelet-serving", "kubernetes.io/kube-apiserver-client-kubelet"})
"""Who signs for nodes; an original edge asks the first for its MetaServer."""

_CACHED: Final[Mapping[str, GVR]] = {res.CONFIGMAP: CONFIGMAPS, res.SECRET: SECRETS}
_LIVE: Final[Mapping[str, tuple[GVR, str, bool]]] = {
    res.PERSISTENT_VOLUME: (PERSISTENT_VOLUMES, "PersistentVolume", False),
    res.PERSISTENT_VOLUME_CLAIM: (PERSISTENT_VOLUME_CLAIMS, "PersistentVolumeClaim", True),
    # The edge names a namespace for attachments and certificate requests although they have none.
    res.VOLUME_ATTACHMENT: (VOLUME_ATTACHMENTS, "VolumeAttachment", False),
    res.CSI_DRIVER: (CSI_DRIVERS, "CSIDriver", False),
    res.RUNTIME_CLASS: (RUNTIME_CLASSES, "RuntimeClass", False),
    res.CSR: (CSRS, "CertificateSigningRequest", False),
}


class ObjectRequests:
    """Handlers for configmaps, secrets, volumes, tokens, certificate requests and events."""

    def __init__(
        self,
        *,
        api: KubeApi,
        lookup: Callable[[GVR, str, str], bytes | None],
        node_of: Callable[[str, str], str | None],
    ) -> None:
        """Wire up; `lookup` reads a watch cache, `node_of` tells which node a pod is on."""
        self._api = api
        self._lookup = lookup
        self._node_of = node_of

    async def query_cached(self, request: EdgeRequest) -> Answers:
        """A ConfigMap or Secret: from the watch cache, else from the API server, which may know better."""
        gvr = _CACHED[request.target.type]
        found = None
        if not request.impersonate:
            found = self._lookup(gvr, request.namespace, request.name)
        raw = found or await self._api.get(gvr, request.name, request.options(request.namespace))
        return request.query_answer(raw)

    async def query_live(self, request: EdgeRequest) -> Answers:
        """A volume object or certificate request."""
        gvr, _, namespaced = _LIVE[request.target.type]
        options = request.options(request.namespace if namespaced else None)
        return request.query_answer(await self._api.get(gvr, request.name, options))

    async def create_csr(self, request: EdgeRequest) -> Answers:
        """Hand in a certificate request, for the node's own name only: an ``ObjectResp``.

        It goes under cloudcore's name, so that nothing but what makes a node a node may be asked for: in another group,
        or of another signer, an administrator might approve it for cloudcore's sake.
        """
        body = request.body()
        spec = body.get("spec")
        wanted = spec if isinstance(spec, dict) else {}
        if _subject(wanted.get("request")) != (NODE_USER_PREFIX + request.node, (NODES_ORGANIZATION,)):
            raise forbidden(f'the certificate request is not for node "{request.node}"')
        if wanted.get("signerName") not in _SIGNERS:
            raise forbidden(f"a node may ask only {' and '.join(sorted(_SIGNERS))} for a certificate")
        body |= {"apiVersion": CSRS.api_version, "kind": "CertificateSigningRequest"}
        raw = await self._api.create(CSRS, msgspec.json.encode(body), request.options())
        return request.object_answer(raw, version=False)

    async def create_token(self, request: EdgeRequest) -> Answers:
        """A token for a service account; bound to a pod, that pod must be on this node."""
        body = request.body() | {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest"}
        spec = body.get("spec")
        bound = spec.get("boundObjectRef") if isinstance(spec, dict) else None
        if isinstance(bound, dict) and bound.get("kind") == "Pod":
            owner = self._node_of(request.namespace, str(bound.get("name")))
            if owner is not None and owner != request.node:
                raise forbidden(f'the token is for a pod that is not on node "{request.node}"')
        raw = await self._api.create(
            SERVICEACCOUNTS,
            msgspec.json.encode(body),
            request.options(request.namespace, "token"),
            request.name,
        )
        return request.query_answer(raw)

    async def write_event(self, request: EdgeRequest) -> Answers:
        """Create, update or patch an Event; never answered."""
        body = request.body()
        operation = request.message.operation
        event: dict[str, Any] = body
        if operation == "patch":
            inner = body.get("event")
            event = inner if isinstance(inner, dict) else {}
        meta = event.get("metadata")
        name = str(meta.get("name") or "") if isinstance(meta, dict) else ""
        namespace = str(meta.get("namespace") or "") if isinstance(meta, dict) else ""
        namespace = namespace or request.target.namespace or "default"
        if not is_dns_subdomain(namespace) or (name and not is_dns_subdomain(name)):
            raise bad_request("the event's namespace and name must be those of Kubernetes objects")
        options = request.options(namespace)
        event |= {"apiVersion": "v1", "kind": "Event"}
        if operation == "insert":
            await self._api.create(EVENTS, msgspec.json.encode(event), options)
            return None
        if name == "":
            raise bad_request("event needs a name")
        if operation == "update":
            await self._api.update(EVENTS, name, msgspec.json.encode(event), options)
        else:
            patch = body.get("patchData")
            if not isinstance(patch, str):
                raise bad_request("an event patch needs patchData")
            await self._api.patch(EVENTS, name, patch.encode(), STRATEGIC_PATCH, options)
        return None


def _subject(request: object) -> tuple[str, tuple[str, ...]]:
    """Whom a certificate request (base64 of PEM) is for, and in which groups; nobody when it is none."""
    try:
        csr = parse_csr(pem_csr_to_der(base64.b64decode(str(request or ""))))
    except (CertificateError, ValueError):
        return "", ()
    return csr.common_name, csr.organizations
