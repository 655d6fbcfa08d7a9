"""`edgehive up` itself: the first minute, stopping, starting again, bad surroundings."""

import os
import re
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from edgehive.cli.up_configs import edgecore_config, remove_if_elsewhere, write_config
from edgehive.cli.up_layout import Layout, Ports
from tests.support.installation import Installation, eventually, pod_processes
from tests.support.manifests import deployment

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(240)]


def test_start_stop_start_finds_everything_as_it_was(make_installation):
    up: Installation = make_installation()
    begun = time.monotonic()
    said = up.start()
    assert time.monotonic() - begun < 60
    for expected in (
        "API server is up",
        "cloudcore is up",
        "node edge-1 is Ready",
        str(up.layout.kubeconfig),
    ):
        assert expected in said
    assert "kubectl apply -f" in said
    assert up.layout.kubeconfig.stat().st_mode & 0o777 == 0o600
    assert set(up.processes()) == {"control-plane", "cloudcore", "edgecore-edge-1"}

    up.apply(deployment("stays", 2))
    before = up.running("app=stays", 2)
    processes = set(pod_processes(up.root))
    node = up.get("node", "edge-1")
    children = [p for p in up.processes().values()]

    assert up.interrupt() == 0
    assert not any(child.alive() for child in children)
    assert up.processes() == {}
    assert processes <= set(pod_processes(up.root)), "the pods go on"

    up.start()
    after = up.running("app=stays", 2)
    assert up.get("node", "edge-1")["metadata"]["uid"] == node["metadata"]["uid"]
    assert {p["metadata"]["uid"] for p in after} == {p["metadata"]["uid"] for p in before}
    assert [s["restartCount"] for p in after for s in p["status"]["containerStatuses"]] == [0, 0]
    assert processes <= set(pod_processes(up.root))


def test_a_killed_supervisor_leaves_nothing_in_the_way(make_installation):
    up: Installation = make_installation()
    up.start()
    old = up.processes()
    up.kill()
    said = up.start()
    assert "left behind" in said
    assert not any(process.alive() for process in old.values())
    assert up.interrupt(signal.SIGTERM) == 0


def test_two_side_by_side_and_none_twice(make_installation):
    one: Installation = make_installation("one", "--runtime=process", "--nodes=2")
    one.start()
    two: Installation = make_installation("two", "--runtime=process", "--node-name=shop")
    two.start()
    assert sorted(n["metadata"]["name"] for n in one.get("nodes")["items"]) == ["edge-1", "edge-2"]
    assert [n["metadata"]["name"] for n in two.get("nodes")["items"]] == ["shop"]
    again = subprocess.run(one.command(), capture_output=True, text=True, timeout=30, check=False)
    assert again.returncode == 1
    assert "already runs" in again.stderr
    assert one.process is not None
    assert one.process.poll() is None
    two.apply(deployment("only-in-two"))
    two.running("app=only-in-two", 1)
    assert one.get("deployments")["items"] == []


def test_a_taken_port_is_named_with_the_flag_that_moves_it(make_installation):
    up: Installation = make_installation()
    for port, flag in ((up.api_port, "--api-port"), (up.ports_from + 2, "--ports-from")):
        with socket.socket() as taken:
            taken.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            taken.bind(("127.0.0.1", port))
            taken.listen()
            done = subprocess.run(up.command(), capture_output=True, text=True, timeout=30, check=False)
        assert done.returncode == 1
        assert str(port) in done.stderr
        assert flag in done.stderr
        assert "Traceback" not in done.stderr


def test_detached_it_returns_when_ready_and_down_stops_it(make_installation):
    up: Installation = make_installation()
    cli = [sys.executable, "-m", "edgehive"]
    place = f"--data-dir={up.root}"
    done = subprocess.run(up.command("--detach"), capture_output=True, text=True, timeout=90, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "node edge-1 is Ready" in done.stdout
    status = subprocess.run([*cli, "status", place], capture_output=True, text=True, timeout=30, check=False)
    assert status.returncode == 0
    assert "cloudcore" in status.stdout
    listed = subprocess.run(
        [*cli, "kubectl", place, "get", "nodes"],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        env={k: v for k, v in os.environ.items() if k != "KUBECONFIG"},
    )
    assert "edge-1" in listed.stdout, listed.stderr
    up.apply(deployment("left", replicas=2))
    up.running("app=left", 2)
    processes = up.processes()
    down = subprocess.run([*cli, "down", place], capture_output=True, text=True, timeout=90, check=False)
    assert down.returncode == 0
    assert "pods keep running" in down.stdout
    assert pod_processes(up.root)
    down = subprocess.run(
        [*cli, "down", place, "--pods"], capture_output=True, text=True, timeout=90, check=False
    )
    assert down.returncode == 0, down.stdout + down.stderr
    assert "2 pods ended" in down.stdout
    assert not pod_processes(up.root)
    assert str(up.root) not in Path("/proc/self/mounts").read_text()
    assert not any(process.alive() for process in processes.values())
    status = subprocess.run([*cli, "status", place], capture_output=True, text=True, timeout=30, check=False)
    assert status.returncode == 1
    assert "down" in status.stdout


def test_make_up_passes_the_flags_and_stops_on_its_own_sigint(make_installation, pytestconfig):
    """A SIGINT for make alone is not passed on by make; the installation stops all the same."""
    up: Installation = make_installation()
    flags = " ".join(up.command()[4:])
    up.root.mkdir()
    with (up.root / "up.out").open("wb") as out:
        up.process = subprocess.Popen(
            ["make", "--no-print-directory", "up", f"ARGS={flags}"],
            cwd=pytestconfig.rootpath, stdout=out, stderr=out, start_new_session=True,
        )  # fmt: skip
    eventually(lambda: "\nLogs: " in up.output(), seconds=90, what="make up comes up")
    processes = up.processes()
    up.interrupt()
    assert not any(process.alive() for process in processes.values())


class TestGarbage:
    """Bytes that mean nothing, on every port of a running installation."""

    NOISE = (
        b"\0" * 4096,
        b"\xff" * 4096,
        b"GET / HTTP/1.1\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00",
        b"A" * 200_000,
    )

    def test_every_port_refuses_it_and_goes_on(self, up: Installation):
        ports = [use.number for use in up_ports(up)]
        for port in ports:
            for noise in self.NOISE:
                try:
                    with socket.create_connection(("127.0.0.1", port), timeout=5) as sock:
                        sock.sendall(noise)
                        sock.shutdown(socket.SHUT_WR)
                        while sock.recv(65536):
                            pass
                except OSError:
                    continue  # refused or reset, as it may
        before = up.processes()
        up.apply(deployment("after-noise"))
        up.running("app=after-noise", 1)
        up.kubectl("delete", "deployment/after-noise")
        up.running("app=after-noise", 0)
        assert up.processes() == before, "no process died"
        assert "Traceback" not in up.logs(10_000)


def up_ports(up: Installation):
    from edgehive.cli.up_layout import Ports

    def listens(port: int) -> bool:
        with socket.socket() as sock:
            return sock.connect_ex(("127.0.0.1", port)) == 0

    return [use for use in Ports(up.api_port, up.ports_from).uses(1) if listens(use.number)]


class TestJoining:
    """An edgecore of its own against a running installation, wrongly configured."""

    def edge(
        self, up: Installation, tmp_path, node: str, *, token: str, certificate_of: str = ""
    ) -> "Joiner":
        return Joiner(up, tmp_path / node, node, token, certificate_of)

    def token(self, up: Installation) -> str:
        done = subprocess.run(
            [sys.executable, "-m", "edgehive", "gettoken", f"--kubeconfig={up.layout.kubeconfig}"],
            capture_output=True, text=True, timeout=30, check=True,
        )  # fmt: skip
        return done.stdout.strip()

    def test_the_right_token_joins(self, up: Installation, tmp_path):
        with self.edge(up, tmp_path, "guest", token=self.token(up)):
            eventually(lambda: re.search(r"guest\s+Ready", up.kubectl("get", "nodes")), what="guest is Ready")
        up.kubectl("delete", "node", "guest")

    def test_a_token_with_a_wrong_signature_is_refused(self, up: Installation, tmp_path):
        token = self.token(up)
        with self.edge(
            up, tmp_path, "thief", token=token[:-6] + ("AAAAAA" if token[-6:] != "AAAAAA" else "BBBBBB")
        ) as edge:
            eventually(lambda: re.search("token", edge.said(), re.IGNORECASE), what="it says why")
            assert "thief" not in up.kubectl("get", "nodes")
            assert "Traceback" not in edge.said()

    def test_a_wrong_ca_hash_is_refused_before_anything_is_sent(self, up: Installation, tmp_path):
        digest, _, jwt = self.token(up).partition(".")
        wrong = ("0" if digest[0] != "0" else "1") + digest[1:]
        with self.edge(up, tmp_path, "misled", token=f"{wrong}.{jwt}") as edge:
            eventually(lambda: re.search("hash|CA", edge.said()), what="it says why")
            assert "misled" not in up.kubectl("get", "nodes")
            assert not (tmp_path / "misled" / "certs" / "server.crt").exists()

    def test_a_certificate_of_another_node_is_refused(self, up: Installation, tmp_path):
        with self.edge(up, tmp_path, "impostor", token="", certificate_of="edge-1") as edge:
            eventually(lambda: re.search("certificate|token", edge.said(), re.IGNORECASE), what="it says why")
            assert "impostor" not in up.kubectl("get", "nodes")


class Joiner:
    """One edgecore process with a configuration of its own."""

    def __init__(self, up: Installation, home, node: str, token: str, certificate_of: str) -> None:
        import shutil

        self._layout, self._node = Layout(home), node
        layout = self._layout
        config = edgecore_config(
            layout, Ports(up.api_port, up.ports_from), node, 3, runtime_endpoint=f"process://{home}/p"
        )
        config["modules"]["edgeHub"]["token"] = token
        write_config(home / "edgecore.yaml", "edgecore", config)
        if certificate_of:
            for part in ("ca", "certs"):
                shutil.copytree(up.layout.edge(certificate_of) / part, layout.edge(node) / part)
        self._log = home / "edgecore.log"
        self._home = home

    def __enter__(self) -> "Joiner":
        with self._log.open("wb") as out:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "edgehive", "edgecore", f"--config={self._home / 'edgecore.yaml'}"],
                stdout=out, stderr=out,
                env=os.environ | {"EDGECORE_BOOTSTRAP_FILE": str(self._home / "none")},
            )  # fmt: skip
        return self

    def __exit__(self, *_: object) -> None:
        self._process.terminate()
        try:
            self._process.wait(15)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
            raise
        finally:
            remove_if_elsewhere(self._layout, self._node)

    def said(self) -> str:
        return self._log.read_text(errors="replace")
