"""The roles every cluster has: what ``kubectl create rolebinding --clusterrole=view`` counts on."""

from collections.abc import Iterator

from edgehive.apiserver.codec import Object
from edgehive.kube.rbac import GROUP
from edgehive.kube.refs import CLUSTERROLEBINDINGS, CLUSTERROLES, GVR

_READ = ["get", "list", "watch"]
_WRITE = ["create", "update", "patch", "delete", "deletecollection"]
_CORE = [
    "configmaps", "endpoints", "persistentvolumeclaims", "pods", "serviceaccounts", "services",
    "podtemplates",
]  # fmt: skip
_LABELS = {"kubernetes.io/bootstrapping": "rbac-defaults"}
_AGGREGATE = "rbac.authorization.k8s.io/aggregate-to-"


def _rule(verbs: list[str], groups: list[str], resources: list[str]) -> Object:
    return {"verbs": verbs, "apiGroups": groups, "resources": resources}


def _paths(*paths: str) -> Object:
    return {"verbs": ["get"], "nonResourceURLs": list(paths)}


_VIEW = [
    _rule(
        _READ,
        [""],
        [*_CORE, "events", "namespaces", "pods/log", "pods/status", "services/status", "bindings"],
    ),
    _rule(_READ, ["apps"], ["daemonsets", "deployments", "deployments/scale", "replicasets"]),
    _rule(_READ, ["discovery.k8s.io"], ["endpointslices"]),
    _rule(_READ, ["devices.kubeedge.io"], ["*"]),
    _rule(["get", "list"], ["metrics.k8s.io"], ["nodes", "pods"]),  # as a metrics server's own role has it
]
_EDIT = [
    _rule(_WRITE, [""], _CORE),
    _rule([*_READ, *_WRITE], [""], ["secrets"]),
    _rule(["create"], [""], ["pods/eviction", "serviceaccounts/token"]),
    _rule([*_READ, *_WRITE], [""], ["pods/attach", "pods/exec", "pods/portforward", "pods/proxy"]),
    _rule(["impersonate"], [""], ["serviceaccounts"]),
    _rule(_WRITE, ["apps"], ["daemonsets", "deployments", "deployments/scale", "replicasets"]),
    _rule([*_READ, *_WRITE], ["coordination.k8s.io"], ["leases"]),
    _rule(_WRITE, ["devices.kubeedge.io"], ["*"]),
]
_ADMIN = [
    _rule([*_READ, *_WRITE], [GROUP], ["rolebindings", "roles"]),
    _rule(["create"], ["authorization.k8s.io"], ["localsubjectaccessreviews"]),
]
_HEALTH = ("/healthz", "/livez", "/readyz", "/version", "/version/")
_DISCOVERY = (*_HEALTH, "/api", "/api/*", "/apis", "/apis/*", "/openapi", "/openapi/*")


def default_roles() -> Iterator[tuple[GVR, Object]]:
    """Every cluster role, then every binding."""
    everything = [
        _rule(["*"], ["*"], ["*"]),
        {"verbs": ["*"], "nonResourceURLs": ["*"]},
    ]
    yield _role("cluster-admin", everything)
    for name, feeds, rules in (
        ("view", ("view", "edit", "admin"), _VIEW),
        ("edit", ("edit", "admin"), _EDIT),
        ("admin", ("admin",), _ADMIN),
    ):
        # "edit" has what is meant for viewers by the labels of the role that carries it.
        labels = {f"{_AGGREGATE}{target}": "true" for target in feeds}
        yield _role(f"system:aggregate-to-{name}", rules, labels)
        selectors = [{"matchLabels": {f"{_AGGREGATE}{name}": "true"}}]
        gvr, role = _role(name, [])
        yield gvr, role | {"aggregationRule": {"clusterRoleSelectors": selectors}}
    yield _role("system:discovery", [_paths(*_DISCOVERY)])
    yield _role("system:public-info-viewer", [_paths(*_HEALTH)])
    reviews = ["selfsubjectaccessreviews", "selfsubjectrulesreviews"]
    yield _role(
        "system:basic-user",
        [
            _rule(["create"], ["authorization.k8s.io"], reviews),
            _rule(["create"], ["authentication.k8s.io"], ["selfsubjectreviews"]),
        ],
    )
    yield _binding("cluster-admin", "system:masters")
    yield _binding("system:discovery", "system:authenticated")
    yield _binding("system:basic-user", "system:authenticated")
    yield _binding("system:public-info-viewer", "system:authenticated", "system:unauthenticated")


def _role(name: str, rules: list[Object], labels: dict[str, str] | None = None) -> tuple[GVR, Object]:
    return CLUSTERROLES, {"metadata": {"name": name, "labels": {**_LABELS, **(labels or {})}}, "rules": rules}


def _binding(role: str, *groups: str) -> tuple[GVR, Object]:
    return CLUSTERROLEBINDINGS, {
        "metadata": {"name": role, "labels": dict(_LABELS)},
        "roleRef": {"apiGroup": GROUP, "kind": "ClusterRole", "name": role},
        "subjects": [{"apiGroup": GROUP, "kind": "Group", "name": group} for group in groups],
    }
