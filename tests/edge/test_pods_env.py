"""Environment, quantities, QoS, specifications: the pure parts around a pod."""

import base64
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgehive.edge.cri_spec import check_non_root, container_config, sandbox_config
from edgehive.edge.env import ConfigError, PodFacts, build_env, expand, references
from edgehive.edge.pods_build import container_spec, oom_score, sandbox_spec
from edgehive.edge.pods_files import PodFiles, hosts_text
from edgehive.edge.pods_images import credentials, registry_of
from edgehive.edge.pods_settings import NodeFacts, PodSettings
from edgehive.edge.pods_spec import Pod, parse_pod, parse_quantity, parse_time
from edgehive.edge.podstatus import status_patch
from edgehive.edge.runtime import RuntimeFailure
from edgehive.kit.errors import ProtocolError
from tests.support.fakemeta import container, make_pod

NODE = NodeFacts("edge1", "10.0.0.1", 4.0, 8 << 30)
FACTS = PodFacts(NODE, "10.1.0.9")


def parse(raw: dict[str, Any]) -> Pod:
    return parse_pod(msgspec.json.encode(raw))


def env_of(
    env: list[Any], env_from: list[Any] | None = None, objects: Any = None, **more: Any
) -> dict[str, str]:
    pod = parse(make_pod("p", container("c", "x", env=env, envFrom=env_from or [], **more)))
    return dict(build_env(pod, pod.spec.containers[0], objects or {}, FACTS, (("BASE", "b"),)))


def test_binary_data_of_a_configmap_is_for_files_alone() -> None:
    objects = {("configmap", "cm"): {"data": {"a": "1"}, "binaryData": {"b": "/wA="}}}
    assert env_of([], [{"configMapRef": {"name": "cm"}}], objects) == {"BASE": "b", "a": "1"}
    with pytest.raises(ConfigError, match="couldn't find key b"):
        env_of([{"name": "B", "valueFrom": {"configMapKeyRef": {"name": "cm", "key": "b"}}}], None, objects)


def test_every_source_of_a_variable() -> None:
    objects = {
        ("configmap", "cm"): {"data": {"a": "1"}, "binaryData": {"bin": base64.b64encode(b"z").decode()}},
        ("secret", "s"): {"data": {"pw": base64.b64encode(b"hidden").decode()}},
    }
    env = [
        {"name": "LITERAL", "value": "x"},
        {"name": "CM", "valueFrom": {"configMapKeyRef": {"name": "cm", "key": "a"}}},
        {"name": "SECRET", "valueFrom": {"secretKeyRef": {"name": "s", "key": "pw"}}},
        {"name": "NAME", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}},
        {"name": "LABEL", "valueFrom": {"fieldRef": {"fieldPath": "metadata.labels['app']"}}},
        {"name": "NODE", "valueFrom": {"fieldRef": {"fieldPath": "spec.nodeName"}}},
        {"name": "IP", "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}},
        {"name": "CPU", "valueFrom": {"resourceFieldRef": {"resource": "limits.cpu"}}},
        {"name": "MEM", "valueFrom": {"resourceFieldRef": {"resource": "limits.memory", "divisor": "1Mi"}}},
        {"name": "EMPTY"},
        {"name": "NOT", "valueFrom": {"secretKeyRef": {"name": "none", "key": "k", "optional": True}}},
        {"name": "ALL", "value": "$(LITERAL)-$(SECRET)-$(P_a)-$(LATER)-$$(LITERAL)"},
        {"name": "LATER", "value": "y"},
    ]
    env_from = [
        {"prefix": "P_", "configMapRef": {"name": "cm"}},
        {"secretRef": {"name": "none", "optional": True}},
    ]
    found = env_of(env, env_from, objects, resources={"limits": {"memory": "64Mi"}})
    assert found == {
        "BASE": "b",
        "P_a": "1",
        "LITERAL": "x",
        "CM": "1",
        "SECRET": "hidden",
        "NAME": "p",
        "LABEL": "p",
        "NODE": "edge1",
        "IP": "10.1.0.9",
        "CPU": "4",
        "MEM": "64",
        "EMPTY": "",
        "ALL": "x-hidden-1-$(LATER)-$(LITERAL)",
        "LATER": "y",
    }
    pod = parse(make_pod("p", container("c", "x", env=env, envFrom=env_from)))
    assert dict(references(pod.spec.containers[0])) == {
        ("configmap", "cm"): False,
        ("secret", "s"): False,
        ("secret", "none"): True,
    }


@pytest.mark.parametrize(
    ("env", "text"),
    [
        ({"configMapKeyRef": {"name": "none", "key": "k"}}, 'configmap "none" not found'),
        ({"secretKeyRef": {"name": "s", "key": "k"}}, "couldn't find key k in secret default/s"),
        ({"fieldRef": {"fieldPath": "spec.secret"}}, "unsupported fieldPath"),
        ({"resourceFieldRef": {"resource": "nonsense"}}, "unsupported resource"),
        ({"what": {}}, "unknown source"),
    ],
)
def test_what_leads_nowhere_is_named(env: dict[str, Any], text: str) -> None:
    with pytest.raises(ConfigError, match=text) as caught:
        env_of([{"name": "A", "valueFrom": env}], objects={("secret", "s"): {"data": {}}})
    assert caught.value.reason == "CreateContainerConfigError"


@given(st.text(alphabet="$()AB x", max_size=30))
def test_expansion_never_fails_and_leaves_text_without_references_alone(text: str) -> None:
    expanded = expand(text, {"A": "1", "B": "$(A)"})
    if "$" not in text:
        assert expanded == text


@pytest.mark.parametrize(
    ("text", "value"),
    [("100m", 0.1), ("2", 2), ("1Gi", 1 << 30), ("1e3", 1000), ("1.5k", 1500), (3, 3), ("", 0), ("x", 0)],
)
def test_quantities(text: object, value: float) -> None:
    assert parse_quantity(text) == pytest.approx(value)


@pytest.mark.parametrize("text", ["1e999", "9" * 400, "99999999E"])
def test_a_quantity_without_measure_is_the_largest_there_is(text):
    assert 2**62 < int(parse_quantity(text)) < 2**63
    assert -(2**63) < int(parse_quantity(f"-{text}")) < -(2**62)


def test_quality_of_service() -> None:
    def qos(*resources: dict[str, Any]) -> str:
        return parse(
            make_pod("p", *(container(f"c{n}", "x", resources=r) for n, r in enumerate(resources)))
        ).qos_class

    full = {"limits": {"cpu": "1", "memory": "1Gi"}}
    assert qos({}) == "BestEffort"
    assert qos(full) == "Guaranteed"
    assert qos(full | {"requests": {"cpu": "1000m", "memory": "1024Mi"}}) == "Guaranteed"
    assert qos(full, {}) == "Burstable"
    assert qos({"requests": {"cpu": "1"}}) == "Burstable"
    assert qos(full | {"requests": {"cpu": "500m"}}) == "Burstable"


def test_hostile_names_never_become_paths() -> None:
    for field, value in [("uid", "../../etc"), ("name", "a/b"), ("namespace", ".."), ("uid", "")]:
        raw = make_pod("p", container("c", "x"))
        raw["metadata"][field] = value
        with pytest.raises(ProtocolError):
            parse(raw)
    for raw in (
        make_pod("p", container("../c", "x")),
        make_pod("p", container("c", "x"), volumes=[{"name": "a/../b", "emptyDir": {}}]),
        make_pod("p", container("c", "x"), containers="text"),
    ):
        with pytest.raises(ProtocolError):
            parse(raw)
    with pytest.raises(ProtocolError):
        parse_pod(b"[]")


def test_nulls_are_absence() -> None:
    raw = make_pod("p", container("c", "x", env=None, resources=None), volumes=None, hostname=None)
    raw["metadata"]["labels"] = None
    assert parse(raw).spec.containers[0].env == []


def test_specifications_for_the_runtime() -> None:
    limits = {"limits": {"cpu": "500m", "memory": "64Mi"}, "requests": {"cpu": "250m", "memory": "32Mi"}}
    raw = make_pod(
        "p",
        container("c", "echo $(NAME)", resources=limits, ports=[{"containerPort": 80, "hostPort": 8080}]),
        securityContext={"runAsUser": 7, "fsGroup": 9, "sysctls": [{"name": "net.x", "value": "1"}]},
        dnsConfig={"nameservers": ["9.9.9.9"], "options": [{"name": "ndots", "value": "2"}]},
    )
    raw["spec"]["containers"][0]["securityContext"] = {
        "runAsUser": 8,
        "capabilities": {"add": ["NET_ADMIN"], "drop": ["ALL"]},
        "allowPrivilegeEscalation": False,
    }
    pod = parse(raw)
    settings = PodSettings(root_directory=Path("/r"), log_directory=Path("/l"), cluster_dns=["10.96.0.10"])
    sandbox = sandbox_spec(pod, 3, settings, NODE)
    assert sandbox.labels["io.kubernetes.pod.uid"] == "uid-p"
    config = sandbox_config(sandbox)
    assert config["dns_config"] == {
        "servers": ["10.96.0.10", "9.9.9.9"],
        "searches": ["default.svc.cluster.local", "svc.cluster.local", "cluster.local"],
        "options": ["ndots:2"],
    }
    assert config["port_mappings"] == [
        {"protocol": 0, "container_port": 80, "host_port": 8080, "host_ip": ""}
    ]
    assert config["linux"]["sysctls"] == {"net.x": "1"}
    spec = container_spec(
        pod,
        pod.spec.containers[0],
        attempt=2,
        image="img",
        env=[("NAME", "me")],
        mounts=[],
        node=NODE,
        settings=settings,
    )
    assert spec.command[-1] == "echo me"
    assert (spec.cpu_shares, spec.cpu_quota, spec.memory_limit) == (256, 50_000, 64 << 20)
    linux = container_config(spec, sandbox)["linux"]
    context = linux["security_context"]
    assert context["run_as_user"] == {"value": 8}
    assert context["supplemental_groups"] == [9]
    assert context["capabilities"] == {"add_capabilities": ["NET_ADMIN"], "drop_capabilities": ["ALL"]}
    assert context["no_new_privs"] is True
    assert "/proc/kcore" in context["masked_paths"]
    assert oom_score(pod, pod.spec.containers[0], NODE) == 1000 - int(1000 * (32 << 20) / (8 << 30))


def test_run_as_non_root_is_checked_against_the_image() -> None:
    raw = make_pod("p", container("c", "x", securityContext={"runAsNonRoot": True}))
    pod = parse(raw)

    def check(user: str, **security: Any) -> None:
        raw["spec"]["containers"][0]["securityContext"] = {"runAsNonRoot": True} | security
        pod = parse(raw)
        spec = container_spec(
            pod,
            pod.spec.containers[0],
            attempt=0,
            image="i",
            env=[],
            mounts=[],
            node=NODE,
            settings=PodSettings(Path("/r"), Path("/l")),
        )
        check_non_root(spec, user)

    check("1000")
    check("", runAsUser=5)
    for user, security in [("", {}), ("0", {}), ("app", {}), ("1000", {"runAsUser": 0})]:
        with pytest.raises(RuntimeFailure):
            check(user, **security)
    assert pod.qos_class == "BestEffort"


def test_pull_secrets_apply_to_their_registry_alone() -> None:
    auth = base64.b64encode(b"me:secret").decode()
    data = {
        ".dockerconfigjson": msgspec.json.encode(
            {"auths": {"https://index.docker.io/v1/": {"auth": auth}, "reg.example:5000": {"username": "u"}}}
        )
    }
    assert registry_of("busybox") == "docker.io"
    assert registry_of("team/app:1") == "docker.io"
    assert registry_of("reg.example:5000/team/app") == "reg.example:5000"
    assert credentials(data, "busybox")[0] == {"username": "me", "password": "secret", "identity_token": ""}
    assert credentials(data, "reg.example:5000/x")[0]["username"] == "u"
    assert credentials(data, "other.example/x") == []
    assert credentials({".dockerconfigjson": b"{bad"}, "busybox") == []


def test_pull_secrets_may_be_for_a_part_of_a_registry_or_for_several() -> None:
    names = [
        "*.example.org",
        "reg.example/team",
        "https://reg.example/v2/",
        "reg.example/team/app",
        "*.*.example:5000",
    ]
    auths = {name: {"username": name, "password": "x"} for name in names} | {"reg.example/none": "nonsense"}
    data = {".dockerconfigjson": msgspec.json.encode({"auths": auths})}

    def users(image: str) -> list[str]:
        return [one["username"] for one in credentials(data, image)]

    assert users("reg.example/team/app:1") == [
        "reg.example/team/app",
        "reg.example/team",
        "https://reg.example/v2/",
    ]
    assert users("reg.example/other") == ["https://reg.example/v2/"]
    assert users("a.example.org/x") == ["*.example.org"]
    assert users("a.b.example.org/x") == []
    assert users("a.b.example:5000/x") == ["*.*.example:5000"]
    assert users("a.b.example/x") == []
    assert users("example.org/x") == []


def test_default_pull_policies() -> None:
    def policy(image: str) -> str:
        raw = make_pod("p", container("c", "x", image=image, imagePullPolicy=""))
        return parse(raw).spec.containers[0].pull_policy

    assert policy("busybox") == policy("reg:5000/x") == policy("x:latest") == "Always"
    assert policy("x:1") == policy("reg:5000/x:1") == policy("x@sha256:00") == "IfNotPresent"


def test_the_patch_removes_what_is_not_true_any_more() -> None:
    sent = {
        "reason": "Old",
        "podIPs": [{"ip": "1.1.1.1"}],
        "hostIPs": [{"ip": "3.3.3.3"}],
        "conditions": [{"type": "Ready", "status": "False", "reason": "X", "message": "m"}],
    }
    status = {
        "phase": "Running",
        "podIPs": [{"ip": "2.2.2.2"}],
        "hostIPs": [{"ip": "3.3.3.3"}],
        "conditions": [{"type": "Ready", "status": "True"}],
    }
    patch = status_patch("u", status, sent)
    assert patch["metadata"] == {"uid": "u"}
    assert patch["status"]["reason"] is None
    assert patch["status"]["podIPs"] == [{"ip": "2.2.2.2"}, {"$patch": "delete", "ip": "1.1.1.1"}]
    assert patch["status"]["hostIPs"] == [{"ip": "3.3.3.3"}]
    assert patch["status"]["conditions"] == [
        {"type": "Ready", "status": "True", "reason": None, "message": None}
    ]


def test_a_hosts_file_of_a_pod_with_its_own_address() -> None:
    pod = parse(make_pod("p", container("c", "x"), subdomain="sub"))
    settings = PodSettings(root_directory=Path("/r"), log_directory=Path("/l"))
    text = hosts_text(pod, sandbox_spec(pod, 0, settings, NODE), "10.1.0.9")
    assert "127.0.0.1\tlocalhost\n" in text
    assert text.endswith("10.1.0.9\tp.sub.default.svc p\n")


def test_times_that_are_not_times_are_zero() -> None:
    assert parse_time("2026-01-01T00:00:00Z") == 1767225600
    assert parse_time(None) == parse_time("yesterday") == 0


def test_what_a_container_has_written_over_its_hosts_is_replaced_at_the_next_start(tmp_path: Path) -> None:
    settings = PodSettings(root_directory=tmp_path, log_directory=tmp_path)
    pod = parse(make_pod("p", container("c", "x")))
    files, sandbox = PodFiles(tmp_path), sandbox_spec(pod, 0, settings, NODE)
    mounted = files.mounts(pod, pod.spec.containers[0], 0, sandbox, "10.1.0.9")
    hosts = next(Path(one.host_path) for one in mounted if one.container_path == "/etc/hosts")
    text = hosts.read_bytes()
    for written in (b"\xff\xfe", text + b"more", b""):
        hosts.write_bytes(written)
        files.mounts(pod, pod.spec.containers[0], 1, sandbox, "10.1.0.9")
        assert hosts.read_bytes() == text
