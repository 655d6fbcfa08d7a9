"""An operator in a pod that knows only the in-cluster configuration, with and without a cloud."""

import http.client
import json
import os
import signal
import ssl
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.installation import Installation, eventually, find_kubectl, is_ready, pod_processes
from tests.support.manifests import pod
from tests.support.metaserver_things import THINGS

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(240)]

LIBRARIES = os.pathsep.join(path for path in sys.path if path)
OPERATOR = Path(__file__).parents[1] / "support" / "clients" / "thing_operator.py"


def thing(name: str, value: str) -> dict:
    return {
        "apiVersion": "clients.example.com/v1",
        "kind": "Thing",
        "metadata": {"name": name},
        "spec": {"v": value},
    }


def rights(account: str, *rules: dict) -> list[dict]:
    rbac = "rbac.authorization.k8s.io"
    return [
        {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": account}},
        {
            "apiVersion": f"{rbac}/v1",
            "kind": "ClusterRole",
            "metadata": {"name": account},
            "rules": list(rules),
        },
        {
            "apiVersion": f"{rbac}/v1",
            "kind": "ClusterRoleBinding",
            "metadata": {"name": account},
            "roleRef": {"apiGroup": rbac, "kind": "ClusterRole", "name": account},
            "subjects": [
                {"kind": "ServiceAccount", "name": account, "namespace": "default"},
                {"kind": "User", "name": "system:cloudcore", "apiGroup": rbac},  # it carries the writes
            ],
        },
    ]


def operator_pod() -> dict:
    command = [sys.executable, "-m", "kopf", "run", "--standalone", "-n", "default", str(OPERATOR)]
    body = pod(
        "operator", container={"command": command, "env": [{"name": "PYTHONPATH", "value": LIBRARIES}]}
    )
    body["spec"]["serviceAccountName"] = "operator"
    return body


def status(port: int, tls: ssl.SSLContext, path: str, headers: dict) -> int:
    connection = http.client.HTTPSConnection("127.0.0.1", port, context=tls, timeout=10)
    try:
        connection.request("GET", path, headers=headers)
        return connection.getresponse().status
    finally:
        connection.close()


class Kubectl:
    """kubectl over TLS, as a service account."""

    def __init__(self, up: Installation, port: int, token: str) -> None:
        ca = up.layout.edge("edge-1") / "metaserver" / "ca.crt"
        server = f"https://127.0.0.1:{port}"
        self._begin = [
            find_kubectl(),
            "-s",
            server,
            f"--certificate-authority={ca}",
            f"--token={token}",
            "-n",
            "default",
        ]
        self._env = os.environ | {"KUBECONFIG": "/dev/null", "HOME": str(up.root)}

    def __call__(self, *words: str) -> tuple[int, str]:
        done = subprocess.run(
            [*self._begin, *words], capture_output=True, text=True, timeout=60, check=False, env=self._env
        )
        return done.returncode, done.stdout


def value(up: Installation, name: str) -> str:
    return up.kubectl("get", "configmap", f"of-{name}", "-o", "jsonpath={.data.v}", check=False)


def at_the_edge(up: Installation, *words: str, stdin: str = "") -> str:
    """kubectl against MetaServer."""
    server = f"http://127.0.0.1:{up.ports_from + 101}"
    done = subprocess.run(
        [find_kubectl(), "-s", server, "-n", "default", *words],
        input=stdin,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        env=os.environ | {"KUBECONFIG": "/dev/null", "HOME": str(up.root)},
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def post(up: Installation, path: str, body: str = "") -> tuple[int, str]:
    connection = http.client.HTTPConnection("127.0.0.1", up.ports_from + 101, timeout=30)
    connection.request("POST", path, body, {"User-Agent": "keadm/v1.22"})
    answer = connection.getresponse()
    found = answer.status, answer.read().decode()
    connection.close()
    return found


def test_logs_commands_restarts_and_held_pods_need_no_cloud(up: Installation):
    held = pod("held")
    held["metadata"]["annotations"] = {"edge.kubeedge.io/hold-upgrade": "true"}
    up.apply(pod("talker", "echo one; echo two; exec sleep 4444"), held)
    eventually(lambda: is_ready(up.get("pod", "talker")), what="talker runs")
    at_the_edge(up, "get", "pods")  # so that kubectl knows what there is
    cloudcore = up.pid("cloudcore")
    os.kill(cloudcore, signal.SIGSTOP)
    try:
        assert at_the_edge(up, "logs", "talker") == "one\ntwo\n"
        assert at_the_edge(up, "logs", "talker", "--tail=1", "-c", "main") == "two\n"
        assert at_the_edge(up, "exec", "talker", "--", "echo", "here") == "here\n"
        assert at_the_edge(up, "exec", "-i", "talker", "--", "cat", stdin="over") == "over"
        pods = "/api/v1/namespaces/default/pods"
        code, text = post(up, f"{pods}/talker/exec?command=echo&command=there&container=main")
        assert (code, json.loads(text)["runOutMessages"]) == (200, ["there"])
        before = [pid for pid, line in pod_processes(up.root).items() if "sleep 4444" in line]
        code, text = post(up, f"{pods}/restart", '["talker"]')
        assert (code, json.loads(text)["LogMessages"]) == (200, ["default/talker"])
        eventually(
            lambda: {p for p, line in pod_processes(up.root).items() if "sleep 4444" in line} - set(before),
            what="talker is started again",
        )
        assert post(up, "/api/v1/pods/unhold-upgrade", "default/none")[0] == 404
        assert post(up, "/api/v1/nodes/unhold-upgrade", "other")[0] == 400
        assert post(up, "/api/v1/services/unhold-upgrade", "x")[0] == 400
        assert post(up, "/api/v1/nodes/confirm-upgrade")[0] == 400
        assert post(up, "/api/v1/pods/unhold-upgrade", "default/held")[0] == 200
    finally:
        os.kill(cloudcore, signal.SIGCONT)
    eventually(lambda: is_ready(up.get("pod", "held")), what="the held pod runs")


@pytest.mark.skipif(os.geteuid() != 0, reason="token and CA are mounted at their paths for root only")
def test_an_operator_runs_unchanged_through_a_cut_and_an_offline_restart(make_installation):
    up: Installation = make_installation("gated", "--runtime=process", "--require-authorization")
    up.start()
    things = {"apiGroups": ["clients.example.com"], "resources": ["things", "things/status"], "verbs": ["*"]}
    maps = {"apiGroups": [""], "resources": ["configmaps"], "verbs": ["get", "create", "update"]}
    scan = {
        "apiGroups": ["apiextensions.k8s.io"],
        "resources": ["customresourcedefinitions"],
        "verbs": ["list", "watch"],
    }
    spaces = {"apiGroups": [""], "resources": ["namespaces"], "verbs": ["list", "watch"]}
    up.apply(THINGS, *rights("operator", things, maps, scan, spaces))
    up.apply(operator_pod())
    try:
        up.apply(thing("one", "1"))
        eventually(lambda: value(up, "one") == "1", seconds=60, what="the operator sees the first thing")
        eventually(
            lambda: up.kubectl("get", "thing", "one", "-o", "jsonpath={.status.seen}") == "1",
            what="and says so",
        )

        # who may not, may not: neither without a token, nor with the wrong rights
        port = up.ports_from + 101
        tls = ssl.create_default_context(cafile=str(up.layout.edge("edge-1") / "metaserver" / "ca.crt"))
        for headers, code in (({}, 403), ({"Authorization": "Bearer a.b.c"}, 401)):
            assert status(port, tls, "/api/v1/secrets", headers) == code
        assert status(port, tls, "/version", {}) == 200
        asks = Kubectl(up, port, up.kubectl("create", "token", "operator").strip())
        assert asks("auth", "can-i", "list", "things.clients.example.com") == (0, "yes\n")
        assert asks("auth", "can-i", "list", "secrets") == (1, "no\n")
        assert asks("get", "things", "-o", "name") == (0, "thing.clients.example.com/one\n")
        assert asks("get", "secrets")[0] == 1

        # the cloud stops answering; meanwhile the world changes, edgecore and the operator start again
        cloudcore = up.pid("cloudcore")
        os.kill(cloudcore, signal.SIGSTOP)
        up.apply(thing("one", "2"), thing("two", "1"))
        up.kill_child("edgecore-edge-1")
        (operator,) = [
            pid for pid, line in pod_processes(up.root).items() if "kopf" in line and "run" in line
        ]
        os.kill(operator, signal.SIGKILL)
        eventually(
            lambda: [p for p, line in pod_processes(up.root).items() if "kopf" in line and p != operator],
            seconds=30,
            what="the operator starts again, offline",
        )
        os.kill(cloudcore, signal.SIGCONT)
        eventually(lambda: value(up, "one") == "2", seconds=90, what="the operator catches up")
        eventually(lambda: value(up, "two") == "1", seconds=30, what="with everything")
    except AssertionError as exc:
        said = up.kubectl("logs", "operator", "--tail=40", check=False)
        raise AssertionError(f"{exc}\n{said}\n{up.logs()}") from exc
