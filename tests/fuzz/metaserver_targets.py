"""What MetaServer reads of its clients and of the cloud, as targets of the fuzzer."""

from collections.abc import Callable, Sequence
from typing import Any

Targets = dict[str, tuple[Callable[[bytes], Any], tuple[type[BaseException], ...], Sequence[bytes]]]


def targets() -> Targets:
    """Paths, tokens, accesses, roles."""
    from edgehive.apiserver.paths import parse_target
    from edgehive.cloud.policy_rules import Roles
    from edgehive.edge.metaserver_claims import parse_access, parse_token
    from edgehive.kube.rules import Attributes

    claims = b'{"iss":"i","exp":1,"aud":["a"],"kubernetes.io":{"namespace":"n","serviceaccount":{"name":"a","uid":"u"}}}'
    rule = b'{"verbs":["get"],"apiGroups":[""],"resources":["pods"],"resourceNames":["p"]}'
    access = (
        b'{"metadata":{"name":"a","namespace":"n"},"spec":{"serviceAccount":{"metadata":{"name":"a"}},'
        b'"serviceAccountUid":"u","accessRoleBinding":[{"roleBinding":{"metadata":{"namespace":"n"}},"rules":['
        + rule
        + b']}],"accessClusterRoleBinding":[{"rules":['
        + rule
        + b"]}]}}"
    )
    role = b'{"metadata":{"name":"r","namespace":"n"},"rules":[' + rule + b"]}"
    binding = (
        b'{"metadata":{"name":"b","namespace":"n"},"roleRef":{"kind":"Role","name":"r"},"subjects":['
        b'{"kind":"ServiceAccount","name":"a","namespace":"n"}]}'
    )
    account = b'{"metadata":{"name":"a","namespace":"n","uid":"u"}}'

    def token_target(data: bytes) -> None:
        import base64

        body = base64.urlsafe_b64encode(data).rstrip(b"=").decode()
        found = parse_token(f"e30.{body}.c2ln")
        if found is not None:
            assert found.claims.user().name.startswith("system:serviceaccount:")
            assert isinstance(found.claims.audiences, tuple)
        parse_token(data.decode("latin-1"))

    def access_target(data: bytes) -> None:
        found = parse_access(data)
        for one in found.rules if found is not None else ():
            one.allows(Attributes("get", resource="pods", namespace="n", name="p"))
            one.describe()

    def roles_target(data: bytes) -> None:
        for roles in (
            Roles(roles=[data], cluster_roles=[data], bindings=[binding], cluster_bindings=[binding]),
            Roles(roles=[role], cluster_roles=[role], bindings=[data], cluster_bindings=[data]),
        ):
            roles.spec(account)
            roles.spec(data)

    return {
        "metaserver-token": (token_target, (), [claims, b"a.b.c"]),
        "metaserver-access": (access_target, (), [access]),
        "policy-roles": (roles_target, (), [role, binding, account]),
        "api-path": (
            lambda data: parse_target(data.decode("latin-1")),
            (),
            [b"/api/v1/namespaces/n/pods/p/log", b"/apis/g/v1/watch/x", b"/api/v1/namespaces/n/finalize"],
        ),
    }
