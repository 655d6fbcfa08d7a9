"""kubectl logs, exec, port-forward and cp on a fresh `edgehive up`, over the tunnel; processes and containers."""

import base64
import json
import os
import shutil
import socket
import subprocess
import urllib.request
from pathlib import Path

import pytest
import yaml

from tests.support.installation import Installation, eventually, find_kubectl
from tests.support.manifests import pod

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(240)]


@pytest.fixture(scope="module")
def noisy(either: Installation) -> Installation:
    """An installation with a pod ``noisy`` that has said ten lines."""
    say = "for n in 1 2 3 4 5 6 7 8 9 10; do echo line $n; done; while :; do sleep 1; echo more; done"
    either.apply(pod("noisy", say, hostNetwork=True, terminationGracePeriodSeconds=0))
    either.running("app=noisy", 1)
    eventually(lambda: "line 10" in either.kubectl("logs", "noisy", check=False), what="it has spoken")
    return either


def kubectl(
    made: Installation, *arguments: str, stdin: bytes = b"", legacy: bool = False
) -> tuple[int, bytes, bytes]:
    """Run kubectl; `legacy` has it speak SPDY, as those before 1.31 do."""
    done = subprocess.run(
        [find_kubectl(), f"--kubeconfig={made.layout.kubeconfig}", *arguments],
        input=stdin,
        capture_output=True,
        timeout=60,
        check=False,
        env=os.environ
        | {"HOME": str(made.root)}
        | (
            {"KUBECTL_REMOTE_COMMAND_WEBSOCKETS": "false", "KUBECTL_PORT_FORWARD_WEBSOCKETS": "false"}
            if legacy
            else {}
        ),
    )
    return done.returncode, done.stdout, done.stderr


def test_logs_tail_limit_and_follow(noisy: Installation) -> None:
    lines = noisy.kubectl("logs", "noisy").splitlines()
    assert lines[:10] == [f"line {n}" for n in range(1, 11)]
    assert len(noisy.kubectl("logs", "noisy", "--tail=3").splitlines()) == 3
    assert noisy.kubectl("logs", "noisy", "--limit-bytes=6") == "line 1"
    command = [find_kubectl(), f"--kubeconfig={noisy.layout.kubeconfig}", "logs", "-f", "noisy", "--tail=1"]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as follower:
        assert follower.stdout is not None
        seen = [follower.stdout.readline() for _ in range(3)]
        follower.terminate()
    assert seen[1:] == [b"more\n", b"more\n"]


def test_a_wrong_container_is_said(noisy: Installation) -> None:
    code, _, error = kubectl(noisy, "logs", "noisy", "-c", "other")
    assert code != 0
    assert b"container other is not valid for pod noisy" in error


@pytest.mark.parametrize("legacy", [False, True])
def test_exec_has_both_outputs_the_exit_code_and_input(noisy: Installation, legacy: bool) -> None:
    code, out, error = kubectl(
        noisy, "exec", "noisy", "--", "sh", "-c", "echo out; echo err >&2; exit 7", legacy=legacy
    )
    assert (code, out) == (7, b"out\n")
    assert error.startswith(b"err\n")
    data = os.urandom(300_000)
    assert kubectl(noisy, "exec", "-i", "noisy", "--", "cat", stdin=data, legacy=legacy)[:2] == (0, data)


def test_cp_goes_there_and_back(noisy: Installation, tmp_path: Path) -> None:
    there, back = tmp_path / "there", tmp_path / "back"
    there.write_bytes(os.urandom(100_000))
    target = f"/tmp/edgehive-{os.getpid()}"  # noqa: S108 - inside of the pod
    prepare = '[ -e /bin/tar ] || [ -e /usr/bin/tar ] || ln -s "$(command -v busybox)" /bin/tar; mkdir -p /tmp'  # a bare image
    kubectl(noisy, "exec", "noisy", "--", "sh", "-c", prepare)
    code, _, error = kubectl(noisy, "cp", str(there), f"noisy:{target}")
    assert code == 0, error
    assert kubectl(noisy, "cp", f"noisy:{target}", str(back))[0] == 0
    assert back.read_bytes() == there.read_bytes()
    kubectl(noisy, "exec", "noisy", "--", "rm", target)


def test_debug_adds_a_container_to_a_running_pod(noisy: Installation) -> None:
    before = noisy.get("pod", "noisy")
    said = noisy.kubectl(
        "debug", "noisy", "--image=busybox:1.36", "--container=spy", "--target=main", "--profile=general",
        "--attach=false", "--", "sh", "-c", "echo spying; sleep 300",
    )  # fmt: skip
    assert "panic" not in said
    eventually(
        lambda: noisy.get("pod", "noisy")["status"]["ephemeralContainerStatuses"][0]["state"]["running"],
        what="it runs beside",
    )
    assert noisy.kubectl("logs", "noisy", "-c", "spy") == "spying\n"
    assert noisy.kubectl("exec", "noisy", "-c", "spy", "--", "echo", "hello") == "hello\n"
    after = noisy.get("pod", "noisy")
    states = [pod["status"]["containerStatuses"][0]["containerID"] for pod in (before, after)]
    assert states[0] == states[1], "what ran runs on"


@pytest.mark.parametrize("legacy", [False, True])
def test_port_forward_reaches_a_port_and_says_when_there_is_none(noisy: Installation, legacy: bool) -> None:
    port = json.loads(noisy.kubectl("get", "node", "edge-1", "-o", "json"))["status"]["daemonEndpoints"][
        "kubeletEndpoint"
    ]["Port"]
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        local = probe.getsockname()[1]
    environment = os.environ | ({"KUBECTL_PORT_FORWARD_WEBSOCKETS": "false"} if legacy else {})
    command = [
        find_kubectl(),
        f"--kubeconfig={noisy.layout.kubeconfig}",
        "port-forward",
        "pod/noisy",
        f"{local}:{port}",
    ]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment
    ) as forward:
        assert forward.stdout is not None
        assert b"Forwarding" in forward.stdout.readline()
        for _ in range(3):
            with urllib.request.urlopen(f"http://127.0.0.1:{local}/healthz", timeout=10) as answer:
                assert answer.read() == b"ok"
        forward.terminate()


def test_the_node_s_own_pages_are_reached_by_the_node_s_name(noisy: Installation) -> None:
    assert noisy.kubectl("get", "--raw", "/api/v1/nodes/edge-1/proxy/healthz/ping", check=False) == "ok"


def test_an_api_server_reaches_nodes_through_cloudcore_as_its_proxy(
    noisy: Installation, tmp_path: Path
) -> None:
    """What kube-apiserver's egress selector does: CONNECT over TLS, then TLS to the node inside of it."""
    if shutil.which("curl") is None:
        pytest.skip("there is no curl")
    user = yaml.safe_load(noisy.layout.kubeconfig.read_text())["users"][0]["user"]
    for name in ("certificate", "key"):
        (tmp_path / name).write_bytes(base64.b64decode(user[f"client-{name}-data"]))
    certificate, key = str(tmp_path / "certificate"), str(tmp_path / "key")
    cloudcore = yaml.safe_load(next(noisy.root.glob("**/cloudcore*.yaml")).read_text())
    proxy = f"https://127.0.0.1:{cloudcore['modules']['cloudStream']['streamPort']}"

    def curl(url: str, *flags: str) -> "subprocess.CompletedProcess[bytes]":
        command = [
            "curl",
            "-sS",
            "--max-time",
            "20",
            "--proxytunnel",
            "--proxy",
            proxy,
            "--proxy-insecure",
            "-k",
            *flags,
        ]
        return subprocess.run([*command, url], capture_output=True, check=False)

    identity = ["--cert", certificate, "--key", key]
    through = ["--proxy-cert", certificate, "--proxy-key", key]
    path = "/containerLogs/default/noisy/main?limitBytes=6"
    # No name of the node is resolved, and no port of it is open.
    assert curl(f"https://edge-1:10250{path}", *identity, *through).stdout == b"line 1"
    assert curl(f"https://edge-1:10250{path}", *identity).returncode != 0, "a proxy for nobody else"
    # What is no edge is reached directly: the API server sends all that is meant for the cluster this way.
    api = curl(f"https://127.0.0.1:{noisy.api_port}/version", *identity, *through)
    assert b"gitVersion" in api.stdout
    gone = curl("https://no-such-node.invalid:10250/", *identity, *through)
    assert b"502" in gone.stderr


def resident(made: Installation, name: str) -> int:
    """Resident memory of one process, in bytes."""
    status = Path(f"/proc/{made.pid(name)}/status").read_text()
    return next(int(line.split()[1]) << 10 for line in status.splitlines() if line.startswith("VmRSS"))


def test_a_log_that_nobody_reads_holds_nobody_up_and_costs_no_memory(noisy: Installation) -> None:
    """The whole way is full: the edge waits for a window, and everybody else goes on."""
    size = 24 << 20
    noisy.apply(
        pod(
            "flood",
            f"yes 0123456789abcdef | head -c {size}; exec sleep 1000",
            terminationGracePeriodSeconds=0,
        )
    )
    noisy.running("app=flood", 1)
    eventually(lambda: noisy.kubectl("logs", "flood", "--tail=1"), what="it has begun")
    names = [
        name for name in noisy.processes() if name.startswith(("cloudcore", "control-plane", "edgecore"))
    ]
    before = {name: resident(noisy, name) for name in names}
    command = [find_kubectl(), f"--kubeconfig={noisy.layout.kubeconfig}", "logs", "-f", "flood"]
    followers = [subprocess.Popen(command, stdout=subprocess.PIPE) for _ in range(3)]
    try:
        for follower in followers:
            assert follower.stdout is not None
            assert follower.stdout.read(1) == b"0", "it has come as far as to its reader"
        for _ in range(5):
            assert noisy.kubectl("exec", "noisy", "--", "echo", "through") == "through\n"
            assert len(noisy.kubectl("logs", "noisy", "--tail=3").splitlines()) == 3
        grown = {name: resident(noisy, name) - before[name] for name in names}
        assert all(amount < 12 << 20 for amount in grown.values()), grown
        assert all(follower.poll() is None for follower in followers)
    finally:
        for follower in followers:
            follower.kill()
            follower.wait()
            assert follower.stdout is not None
            follower.stdout.close()
    assert noisy.kubectl("exec", "noisy", "--", "echo", "after") == "after\n"
    noisy.kubectl("delete", "pod", "flood")
