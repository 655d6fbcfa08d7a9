"""What a ServiceAccountAccess says of a service account: the bindings that apply to it, and their roles' rules; pure."""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Final

import msgspec

from edgehive.kit.malformed import MALFORMED
from edgehive.kube.rbac import Who, binds, parse_binding
from edgehive.kube.selectors import LabelSelector
from edgehive.kube.status import ApiStatus

Object = dict[str, Any]
_ACCOUNT: Final = ("automountServiceAccountToken", "imagePullSecrets", "secrets")
_META: Final = ("name", "namespace", "labels")
_RULE: Final = ("verbs", "apiGroups", "resources", "resourceNames", "nonResourceURLs")


class Roles:
    """Every role and binding, as raw objects."""

    def __init__(
        self,
        *,
        roles: Iterable[bytes],
        cluster_roles: Iterable[bytes],
        bindings: Iterable[bytes],
        cluster_bindings: Iterable[bytes],
    ) -> None:
        self._roles = {(m["namespace"], m["name"]): o for o in map(_decode, roles) if (m := _meta(o))}
        self._cluster = {_meta(o)["name"]: o for o in map(_decode, cluster_roles)}
        self._bindings = list(bindings)
        self._cluster_bindings = list(cluster_bindings)

    def spec(self, account: bytes) -> Object:
        """The spec for a service account; the same for the same rights, whatever order things came in."""
        obj = _decode(account)
        meta = _meta(obj)
        namespace, name = meta["namespace"], meta["name"]
        groups = ("system:serviceaccounts", f"system:serviceaccounts:{namespace}", "system:authenticated")
        who = Who(f"system:serviceaccount:{namespace}:{name}", groups)
        shown = {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": _kept(meta, _META)}
        spec: Object = {
            "serviceAccount": shown | _kept(obj, _ACCOUNT),
            "serviceAccountUid": meta["uid"],
        }
        everywhere = list(self._applying(self._cluster_bindings, who, "clusterRoleBinding"))
        here = list(self._applying(self._bindings, who, "roleBinding", namespace))
        if everywhere:
            spec["accessClusterRoleBinding"] = everywhere
        if here:
            spec["accessRoleBinding"] = here
        return spec

    def _applying(self, bindings: Iterable[bytes], who: Who, kind: str, home: str = "") -> Iterator[Object]:
        found = []
        for raw in bindings:
            parsed = parse_binding(raw)
            if parsed is None or not binds(parsed, who):
                continue
            rules = self._rules(parsed.namespace if parsed.role_kind == "Role" else None, parsed.role)
            if rules:
                shown = _binding(_decode(raw), kind)
                if parsed.role_kind == "Role" and parsed.namespace != home:
                    # An edge of the original looks a Role up by its name among all of the account's namespace: another
                    # namespace's of the same name must not be taken for it.
                    shown["roleRef"]["name"] = f"{parsed.namespace}:{parsed.role}"
                name = _meta(_decode(raw))["name"]
                found.append(
                    (parsed.namespace != home, parsed.namespace, name, {kind: shown, "rules": rules})
                )
        for *_, applying in sorted(found, key=lambda f: f[:3]):
            yield applying

    def _rules(self, namespace: str | None, name: str) -> list[Object]:
        role = self._roles.get((namespace, name)) if namespace is not None else self._cluster.get(name)
        if role is None:
            return []
        rules = _objects(role.get("rules"))
        selectors = _objects(_object(role.get("aggregationRule")).get("clusterRoleSelectors"))
        if selectors and not rules:  # nobody has filled it in
            rules = [
                rule for other in self._selected(selectors, name) for rule in _objects(other.get("rules"))
            ]
        return [_kept(rule, _RULE) for rule in rules]

    def _selected(self, selectors: Iterable[Object], name: str) -> Iterator[Object]:
        try:
            tests = [LabelSelector.from_object(selector) for selector in selectors]
        except ApiStatus:
            return
        for other, role in sorted(self._cluster.items()):
            if other != name and any(test.matches(_labels(role)) for test in tests):
                yield role


def _binding(obj: Object, kind: str) -> Object:
    shown = {
        "apiVersion": "rbac.authorization.k8s.io/v1",
        "kind": kind[0].upper() + kind[1:],
        "metadata": _kept(_meta(obj), _META),
        "roleRef": _kept(_object(obj.get("roleRef")), ("apiGroup", "kind", "name")),
    }
    subjects = [_kept(s, ("apiGroup", "kind", "name", "namespace")) for s in _objects(obj.get("subjects"))]
    return shown | ({"subjects": subjects} if subjects else {})


def _kept(obj: Mapping[str, Any], keys: Iterable[str]) -> Object:
    return {key: obj[key] for key in keys if obj.get(key) not in (None, "", [], {})}


def _meta(obj: Object) -> Object:
    meta = _object(obj.get("metadata"))
    return meta | {key: str(meta.get(key) or "") for key in ("name", "namespace", "uid")}


def _labels(obj: Object) -> dict[str, str]:
    return {key: str(value) for key, value in _object(_meta(obj).get("labels")).items()}


def _object(value: Any) -> Object:
    return value if isinstance(value, dict) else {}


def _objects(value: Any) -> list[Object]:
    return [item for item in value if isinstance(item, dict)] if isinstance(value, list) else []


def _decode(raw: bytes) -> Object:
    try:
        found = msgspec.json.decode(raw)
    except MALFORMED:
        return {}
    return found if isinstance(found, dict) else {}
