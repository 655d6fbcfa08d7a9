"""What a pod may contain, seen from inside of its running containers: a real containerd with a pod network."""

import asyncio
import base64
import json
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from edgehive.aio import cri_messages as cri
from edgehive.edge.cni import directories_of, set_up
from edgehive.edge.cri import CriRuntime
from edgehive.edge.pods_admission import apparmor_profile, check_apparmor, check_sysctls, normal_sysctl
from edgehive.edge.pods_spec import Pod, parse_pod
from edgehive.edge.runtime import RuntimeFailure
from tests.support.containerd import Containerd, apart, why_not_apart
from tests.support.edged_host import EdgedProcess
from tests.support.fakemeta import container, make_pod

LOOP = "trap 'exit 0' TERM; while :; do sleep 1 & wait $!; done"


@pytest.fixture(scope="module")
def box() -> Iterator[Containerd]:
    if reason := why_not_apart():
        pytest.skip(reason)
    with apart() as made:
        asyncio.run(give_network(made))
        yield made


async def give_network(made: Containerd) -> None:
    runtime = CriRuntime(endpoint=made.endpoint, node_ip="127.0.0.1")
    try:
        set_up(directories_of(await runtime.own_config()), "10.98.0.0/24")
        async with asyncio.timeout(20):
            while await runtime.network_problem():
                await asyncio.sleep(0.05)
    finally:
        await runtime.close()


async def handlers(made: Containerd) -> dict[str, str]:
    """The handlers of pods that have one, as the runtime tells it."""
    runtime = CriRuntime(endpoint=made.endpoint, node_ip="127.0.0.1")
    try:
        listed = (await runtime._call(cri.ListPodSandbox)).get("items", ())
        return {
            one["metadata"]["name"]: one["runtime_handler"] for one in listed if one.get("runtime_handler")
        }
    finally:
        await runtime.close()


class Site:
    """Edged, and words said inside of containers."""

    def __init__(self, edged: EdgedProcess, box: Containerd) -> None:
        self.edged = edged
        self.box = box

    def run(self, *pods: dict[str, Any]) -> None:
        self.edged.want["pods"] = list(pods)
        self.edged.write()
        for pod in pods:
            self.edged.wait_running(pod["metadata"]["name"])

    def inside(self, name: str, script: str, container: int = 0) -> str:
        """Run a script in a running container."""
        status = self.edged.status(name)["containerStatuses"][container]
        identity = status["containerID"].removeprefix("containerd://")
        label = f"t{abs(hash((script, identity)))}"
        return self.box.ctr("tasks", "exec", "--exec-id", label, identity, "sh", "-c", script).strip()

    def events(self, name: str, reason: str) -> list[str]:
        return [text for who, why, text in self.edged.got()["events"] if (who, why) == (name, reason)]


SETTINGS = {
    "default_pod_network": "cni",
    "cluster_dns": ["10.96.0.10"],
    "seccomp_default": True,
    "allowed_sysctls": ["net.ipv4.conf.*", "kernel.msgmax"],
}


@pytest.fixture
def site(box: Containerd, tmp_path: Path) -> Iterator[Site]:
    edged = EdgedProcess(tmp_path / "edged", box.endpoint, **SETTINGS)
    edged.start()
    made = Site(edged, box)
    try:
        yield made
        edged.want["pods"] = []
        edged.write()
        edged.wait("everything is gone", lambda: edged.here() == [])
        assert list((edged.base / "root" / "pods").glob("*")) == []
        assert str(edged.base) not in Path("/proc/self/mounts").read_text()
    finally:
        edged.kill()


pytestmark = [pytest.mark.timeout(120)]


@pytest.mark.containerd
def test_environment_from_everywhere(site: Site) -> None:
    site.edged.want["objects"] = [
        ["configmap", "default", "cm", {"data": {"COLOUR": "blue", "a-b": "odd"}}],
        ["secret", "default", "sec", {"data": {"PASSWORD": base64.b64encode(b"hidden").decode()}}],
    ]
    one = container(
        "c",
        LOOP,
        envFrom=[{"prefix": "CM_", "configMapRef": {"name": "cm"}}, {"secretRef": {"name": "sec"}}],
        env=[
            {"name": "NODE", "valueFrom": {"fieldRef": {"fieldPath": "spec.nodeName"}}},
            {"name": "ADDRESS", "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}},
            {"name": "APP", "valueFrom": {"fieldRef": {"fieldPath": "metadata.labels['app']"}}},
            {
                "name": "LIMIT",
                "valueFrom": {"resourceFieldRef": {"resource": "limits.memory", "divisor": "1Mi"}},
            },
            {"name": "BOTH", "value": "$(CM_COLOUR)-$(NODE)-$$(NODE)-$(NOBODY)"},
        ],
        resources={"limits": {"memory": "32Mi"}},
    )
    one["command"] = ["sh", "-c", "echo 'said $(BOTH)'; " + LOOP]
    site.run(make_pod("env", one))
    found = dict(
        line.split("=", 1) for line in site.inside("env", "cat /proc/1/environ | tr '\\0' '\\n'").splitlines()
    )
    assert (found["CM_COLOUR"], found["PASSWORD"], found["NODE"], found["APP"], found["LIMIT"]) == (
        "blue",
        "hidden",
        "edge1",
        "env",
        "32",
    )
    assert found["ADDRESS"] == site.edged.status("env")["podIP"]
    assert found["ADDRESS"].startswith("10.98.0.")
    assert found["BOTH"] == "blue-edge1-$(NODE)-$(NOBODY)"
    site.edged.wait("its words", lambda: "said blue-edge1-$(NODE)-$(NOBODY)" in site.edged.log_text("env"))


@pytest.mark.containerd
def test_volumes_of_every_local_kind(site: Site, tmp_path: Path) -> None:
    (tmp_path / "host").mkdir()
    (tmp_path / "host" / "there").write_text("from the host")
    site.edged.want["objects"] = [
        ["configmap", "default", "cm", {"data": {"a": "one", "b": "two"}}],
        ["secret", "default", "sec", {"data": {"pw": base64.b64encode(b"hidden").decode()}}],
    ]
    volumes = [
        {"name": "plain", "emptyDir": {}},
        {"name": "fast", "emptyDir": {"medium": "Memory", "sizeLimit": "2Mi"}},
        {"name": "host", "hostPath": {"path": str(tmp_path / "host"), "type": "Directory"}},
        {"name": "cm", "configMap": {"name": "cm", "items": [{"key": "a", "path": "deep/a", "mode": 0o440}]}},
        {
            "name": "facts",
            "downwardAPI": {"items": [{"path": "name", "fieldRef": {"fieldPath": "metadata.name"}}]},
        },
        {
            "name": "all",
            "projected": {
                "sources": [
                    {"configMap": {"name": "cm"}},
                    {"secret": {"name": "sec"}},
                    {"serviceAccountToken": {"path": "token", "expirationSeconds": 3600}},
                    {
                        "downwardAPI": {
                            "items": [{"path": "labels", "fieldRef": {"fieldPath": "metadata.labels"}}]
                        }
                    },
                ]
            },
        },
    ]
    mounts = [
        {"name": "plain", "mountPath": "/plain"},
        {"name": "plain", "mountPath": "/part", "subPathExpr": "of/$(NAME)"},
        {"name": "fast", "mountPath": "/fast"},
        {"name": "host", "mountPath": "/host", "readOnly": True},
        {"name": "cm", "mountPath": "/cm"},
        {"name": "all", "mountPath": "/one/b", "subPath": "b"},
        {"name": "facts", "mountPath": "/facts"},
        {"name": "all", "mountPath": "/all"},
    ]
    name = [{"name": "NAME", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}}]
    pair = [container(n, LOOP, env=name, volumeMounts=mounts) for n in ("c", "d")]
    site.run(make_pod("vol", *pair, volumes=volumes))

    def inside(script: str, which: int = 0) -> str:
        return site.inside("vol", script, which)

    inside("echo shared >/plain/f; echo mine >/part/f")
    assert inside("cat /plain/f /plain/of/vol/f", 1) == "shared\nmine", "both containers have them"
    assert "tmpfs" in inside("grep ' /fast ' /proc/mounts")
    assert inside("head -c 3000000 /dev/zero >/fast/big 2>/dev/null || echo full") == "full"
    assert (
        inside("rm /fast/big; cat /host/there; touch /host/no 2>/dev/null || echo readonly")
        == "from the hostreadonly"
    )
    assert inside("cat /cm/deep/a; ls -L /cm") == "onedeep"
    assert inside("cat /one/b; cat /facts/name") == "twovol"
    assert inside("cat /all/a /all/b /all/pw /all/labels") == 'onetwohiddenapp="vol"'
    assert len(inside("cat /all/token")) > 3
    site.edged.want["objects"][0][3] = {"data": {"a": "1", "b": "2"}}
    site.edged.write()
    site.edged.wait("the new content", lambda: inside("cat /all/a /all/b") == "12")
    assert inside("cat /one/b") == "two", "a file by subPath stays what it was, as in Kubernetes"


@pytest.mark.containerd
def test_names_and_addresses(site: Site) -> None:
    ports = [{"containerPort": 80, "hostPort": 18081}]
    answer = "while :; do echo hello | nc -l -p 80; done"
    web = make_pod(
        "web",
        container("c", answer, ports=ports),
        hostname="shop",
        hostAliases=[{"ip": "10.9.8.7", "hostnames": ["db", "db.local"]}],
        dnsPolicy="ClusterFirst",
        dnsConfig={"searches": ["corp.example"], "options": [{"name": "ndots", "value": "3"}]},
    )
    own = make_pod("own", container("c", LOOP), dnsPolicy="None", dnsConfig={"nameservers": ["9.9.9.9"]})
    node = make_pod("node", container("c", LOOP), hostNetwork=True, dnsPolicy="ClusterFirstWithHostNet")
    site.run(web, own, node)
    assert site.inside("web", "hostname") == "shop"
    hosts = site.inside("web", "cat /etc/hosts")
    assert "10.9.8.7\tdb\tdb.local" in hosts
    assert f"{site.edged.status('web')['podIP']}\tshop" in hosts
    resolv = site.inside("web", "cat /etc/resolv.conf").splitlines()
    assert "nameserver 10.96.0.10" in resolv
    assert "search default.svc.cluster.local svc.cluster.local cluster.local corp.example" in resolv
    assert "options ndots:3" in resolv
    assert site.inside("own", "cat /etc/resolv.conf") == "nameserver 9.9.9.9"
    assert "nameserver 10.96.0.10" in site.inside("node", "cat /etc/resolv.conf")
    addresses = {name: site.edged.status(name)["podIP"] for name in ("web", "own", "node")}
    assert len(set(addresses.values())) == 3
    assert addresses["node"] == "127.0.0.1", "the node's"
    ask = "for n in 1 2 3 4 5 6 7 8 9; do nc {} </dev/null && exit; sleep 1; done"
    assert site.inside("own", ask.format(f"{addresses['web']} 80")) == "hello"
    assert site.inside("own", ask.format("10.98.0.1 18081")) == "hello", "the port on the node"


@pytest.mark.containerd
def test_namespaces_are_shared_as_asked(site: Site) -> None:
    site.run(
        make_pod("apart", container("c", LOOP), container("d", LOOP)),
        make_pod(
            "together",
            container("c", LOOP),
            container("d", f"echo i am d; {LOOP}"),
            shareProcessNamespace=True,
        ),
        make_pod("node", container("c", LOOP), hostPID=True, hostIPC=True),
    )
    assert "sleep 2147483647" not in site.inside("apart", "ps")
    together = site.inside("together", "ps")
    assert "echo i am d" in together
    assert "sleep 2147483647" in together, "the pause container is the first"
    assert "edged_host" in site.inside("node", "cat /proc/*/cmdline 2>/dev/null | tr '\\0' ' '"), (
        "the node's processes"
    )
    own, other = (site.inside(name, "readlink /proc/1/ns/ipc") for name in ("apart", "together"))
    assert own != other
    here = subprocess.run(
        ["readlink", "/proc/self/ns/ipc"], capture_output=True, text=True, check=True
    ).stdout.strip()
    assert site.inside("node", "readlink /proc/self/ns/ipc") == here


@pytest.mark.containerd
def test_seccomp_by_default_by_name_and_by_file(site: Site) -> None:
    home = site.edged.base / "root" / "seccomp" / "mine"
    home.mkdir(parents=True)
    rule = {"names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_ERRNO"}
    (home / "no-mkdir.json").write_text(json.dumps({"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [rule]}))
    local = {"type": "Localhost", "localhostProfile": "mine/no-mkdir.json"}
    site.run(
        make_pod("default", container("c", LOOP)),
        make_pod("free", container("c", LOOP, securityContext={"seccompProfile": {"type": "Unconfined"}})),
        make_pod("local", container("c", LOOP), securityContext={"seccompProfile": local}),
    )
    state = "grep Seccomp: /proc/1/status"
    assert site.inside("default", state).split() == ["Seccomp:", "2"]
    assert site.inside("free", state).split() == ["Seccomp:", "0"]
    assert site.inside("local", state).split() == ["Seccomp:", "2"]
    assert site.inside("local", "mkdir /tmp/x 2>&1 || true").endswith("Operation not permitted")
    assert site.inside("default", "mkdir /tmp/x && echo made") == "made"
    local = {"type": "Localhost", "localhostProfile": "absent.json"}
    site.edged.want["pods"].append(
        make_pod("nowhere", container("c", LOOP, securityContext={"seccompProfile": local}))
    )
    site.edged.write()

    def waiting() -> dict[str, str]:
        states = site.edged.status("nowhere").get("containerStatuses") or [{}]
        found: dict[str, str] = states[0].get("state", {}).get("waiting", {})
        return found

    site.edged.wait("it is said", lambda: waiting().get("reason") == "CreateContainerError")
    assert "absent.json" in waiting()["message"]


@pytest.mark.containerd
def test_sysctls_that_are_safe_or_allowed_and_no_others(site: Site) -> None:
    def pod(name: str, *pairs: tuple[str, str], **more: Any) -> dict[str, Any]:
        sysctls = [{"name": key, "value": value} for key, value in pairs]
        return make_pod(name, container("c", LOOP), securityContext={"sysctls": sysctls}, **more)

    good = pod(
        "good",
        ("net.ipv4.ip_unprivileged_port_start", "81"),
        ("net/ipv4/conf/all/log_martians", "1"),
        ("kernel.msgmax", "9000"),
    )
    site.run(good)
    files = "/proc/sys/net/ipv4/ip_unprivileged_port_start /proc/sys/net/ipv4/conf/all/log_martians /proc/sys/kernel/msgmax"
    assert site.inside("good", f"cat {files}").split() == ["81", "1", "9000"]
    bad = [
        pod("unsafe", ("kernel.sem", "1 2 3 4")),
        pod("net", ("net.ipv4.tcp_syncookies", "1"), hostNetwork=True),
        pod("ipc", ("kernel.msgmax", "1"), hostIPC=True),
    ]
    site.edged.want["pods"] = [good, *bad]
    site.edged.write()
    for name, words in (
        ("unsafe", "not allowlisted"),
        ("net", "host net enabled"),
        ("ipc", "host ipc enabled"),
    ):
        site.edged.wait("the event", lambda name=name: site.events(name, "SysctlForbidden"))
        assert words in site.events(name, "SysctlForbidden")[0]
        assert site.edged.status(name)["phase"] == "Pending"


@pytest.mark.containerd
def test_apparmor_is_refused_where_the_host_has_none(site: Site) -> None:
    if Path("/sys/module/apparmor/parameters/enabled").exists():
        pytest.skip("this host has AppArmor")
    wanted = make_pod(
        "armed", container("c", LOOP, securityContext={"appArmorProfile": {"type": "RuntimeDefault"}})
    )
    free = make_pod("free", container("c", LOOP, securityContext={"appArmorProfile": {"type": "Unconfined"}}))
    site.run(free)
    site.edged.want["pods"] = [free, wanted]
    site.edged.write()
    site.edged.wait("the event", lambda: site.events("armed", "AppArmor"))
    assert "not enabled on the host" in site.events("armed", "AppArmor")[0]


@pytest.mark.containerd
def test_a_runtime_class_names_its_handler(site: Site) -> None:
    site.edged.want["objects"] = [["runtimeclass", "", "gentle", {"handler": "other"}]]
    gentle = make_pod("gentle", container("c", LOOP), runtimeClassName="gentle")
    site.run(gentle)
    assert asyncio.run(handlers(site.box)) == {"gentle": "other"}
    site.edged.want["pods"] = [gentle, make_pod("lost", container("c", LOOP), runtimeClassName="nowhere")]
    site.edged.write()
    site.edged.wait("the event", lambda: site.events("lost", "FailedCreatePodSandBox"))
    assert 'RuntimeClass "nowhere" not found' in site.events("lost", "FailedCreatePodSandBox")[0]


# --- the rules, without a runtime ---------------------------------------------------------------------------


def parsed(
    annotations: dict[str, str] | None = None, security: dict[str, Any] | None = None, **own: Any
) -> Pod:
    raw = make_pod("p", container("c", "x", securityContext=own), securityContext=security or {})
    raw["metadata"]["annotations"] = annotations or {}
    return parse_pod(json.dumps(raw).encode())


def test_both_spellings_of_a_sysctl() -> None:
    assert normal_sysctl("net/ipv4/conf/eth0.1/x") == "net.ipv4.conf.eth0/1.x"
    assert normal_sysctl("net.ipv4.conf.eth0/1.x") == "net.ipv4.conf.eth0/1.x"
    pod = parsed(security={"sysctls": [{"name": "net/core/somaxconn", "value": "1"}]})
    check_sysctls(pod, ["net.core.*"], node_network=False)
    with pytest.raises(RuntimeFailure, match="not allowlisted"):
        check_sysctls(pod, ["net.core"], node_network=False)


def test_where_an_apparmor_profile_comes_from() -> None:
    key = "container.apparmor.security.beta.kubernetes.io/c"
    for value, kind in (
        ("runtime/default", "RuntimeDefault"),
        ("unconfined", "Unconfined"),
        ("localhost/x", "Localhost"),
    ):
        pod = parsed({key: value})
        profile = apparmor_profile(pod, pod.spec.containers[0])
        assert profile is not None
        assert profile["type"] == kind
    assert profile["localhostProfile"] == "x"
    pod = parsed({key: "localhost/x"}, {"appArmorProfile": {"type": "RuntimeDefault"}})
    assert apparmor_profile(pod, pod.spec.containers[0]) == {"type": "RuntimeDefault"}, "a field is newer"
    pod = parsed(
        security={"appArmorProfile": {"type": "RuntimeDefault"}}, appArmorProfile={"type": "Unconfined"}
    )
    check_apparmor(pod, enabled=False)
    check_apparmor(parsed({key: "runtime/default"}), enabled=True)
    with pytest.raises(RuntimeFailure, match="not enabled"):
        check_apparmor(parsed({key: "runtime/default"}), enabled=False)
    assert apparmor_profile(parsed(), parsed().spec.containers[0]) is None
