"""Pods on a real runtime, edged in a process that is killed: the same tests on host processes and on containerd."""

import base64
import json
import os
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from edgehive.edge.pods_garbage import LogRotation
from edgehive.edge.pods_reset import remove_all_pods
from edgehive.edge.pods_runtime import open_runtime
from tests.support.containerd import Containerd, why_not
from tests.support.edged_host import EdgedProcess
from tests.support.fakemeta import container, make_pod

LOOP = "trap 'exit 0' TERM; while :; do sleep 1 & wait $!; done"
"""Runs for ever and ends at once when asked."""


@pytest.fixture(scope="session")
def containerd() -> Iterator[Containerd]:
    if reason := why_not():
        pytest.skip(reason)
    with tempfile.TemporaryDirectory(prefix="ehc") as directory:  # short: a socket path has 108 bytes
        server = Containerd(Path(directory) / "d")
        try:
            server.start()
            yield server
        finally:
            server.stop()


@pytest.fixture(params=["process", pytest.param("containerd", marks=pytest.mark.containerd)])
def edged(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[EdgedProcess]:
    kind = request.param
    endpoint = "process://" if kind == "process" else request.getfixturevalue("containerd").endpoint
    process = EdgedProcess(tmp_path / "edged", endpoint)
    process.start()
    try:
        yield process
        process.want["pods"] = []
        process.want["connected"] = True
        process.write()
        if process._process is None:
            process.start()
        process.wait("everything is cleaned up", lambda: process.here() == [])
        volumes = list((process.base / "root" / "pods").glob("*"))
        assert volumes == []
        mounts = Path("/proc/self/mounts").read_text()
        assert str(process.base) not in mounts
    finally:
        process.kill()


def run(edged: EdgedProcess, *pods: dict[str, Any]) -> None:
    edged.want["pods"] = list(pods)
    edged.write()


def container_id(status: dict[str, Any]) -> str:
    return status["containerStatuses"][0]["containerID"]


def kill_container(edged: EdgedProcess, request: pytest.FixtureRequest, identifier: str) -> None:
    """Kill the command itself, behind edged's back."""
    kind, _, name = identifier.partition("://")
    if kind == "process":
        pid = (edged.base / "root" / "process" / "containers" / name / "pid").read_text().split()[0]
        os.kill(int(pid), signal.SIGKILL)
    else:
        request.getfixturevalue("containerd").ctr("tasks", "kill", "-s", "SIGKILL", name)


def configured_pod() -> dict[str, Any]:
    script = (
        'while :; do echo "cm=$(cat /cfg/a) sec=$(cat /sec/pw) tok=$(cat /tok/token) '
        'env=$FROM_CM,$FROM_SECRET,$POD,$BOTH"; sleep 0.2; done'
    )
    env = [
        {"name": "FROM_CM", "valueFrom": {"configMapKeyRef": {"name": "cm", "key": "a"}}},
        {"name": "FROM_SECRET", "valueFrom": {"secretKeyRef": {"name": "sec", "key": "pw"}}},
        {"name": "POD", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}},
        {"name": "BOTH", "value": "$(POD)-$(FROM_CM)"},
    ]
    mounts = [
        {"name": "cfg", "mountPath": "/cfg"},
        {"name": "sec", "mountPath": "/sec", "readOnly": True},
        {"name": "tok", "mountPath": "/tok"},
    ]
    token = {"serviceAccountToken": {"path": "token", "expirationSeconds": 3607}}
    volumes = [
        {"name": "cfg", "configMap": {"name": "cm"}},
        {"name": "sec", "secret": {"secretName": "sec", "defaultMode": 0o400}},
        {"name": "tok", "projected": {"sources": [token]}},
    ]
    return make_pod("web", container("c", script, env=env, volumeMounts=mounts), volumes=volumes)


def config_objects(value: str) -> list[Any]:
    secret = base64.b64encode(b"hidden").decode()
    return [
        ["configmap", "default", "cm", {"data": {"a": value}}],
        ["secret", "default", "sec", {"data": {"pw": secret}}],
    ]


@pytest.mark.skipif(os.geteuid() != 0, reason="bind mounts need root")
def test_a_killed_edged_adopts_everything_and_volumes_stay_live(edged: EdgedProcess) -> None:
    edged.want["objects"] = config_objects("one")
    run(edged, configured_pod())
    before = edged.wait_running("web")
    line = "cm=one sec=hidden tok=token-"
    edged.wait("the first line", lambda: line in edged.log_text("web"))
    assert "env=one,hidden,web,web-one" in edged.log_text("web")
    assert before["containerStatuses"][0]["restartCount"] == 0

    edged.kill()
    edged.want["pods"][0]["status"] = before
    edged.want["connected"] = False
    edged.want["objects"] = config_objects("two")
    edged.write()
    edged.start()
    edged.wait("the new value in the old container", lambda: "cm=two" in edged.log_text("web"))
    after = edged.wait_running("web")
    assert after["containerStatuses"] == before["containerStatuses"]
    assert after["startTime"] == before["startTime"]
    assert {c["type"]: c["lastTransitionTime"] for c in after["conditions"]} == {
        c["type"]: c["lastTransitionTime"] for c in before["conditions"]
    }

    edged.want["objects"] = config_objects("three")
    edged.write()
    edged.wait("a later change as well", lambda: "cm=three" in edged.log_text("web"))
    assert "cm= " not in edged.log_text("web"), "the volume was empty for a moment"


def test_a_container_that_died_while_edged_was_away_is_started_again_offline(
    edged: EdgedProcess, request: pytest.FixtureRequest
) -> None:
    run(edged, make_pod("web", container("c", LOOP)))
    before = edged.wait_running("web")
    edged.kill()
    kill_container(edged, request, container_id(before))
    edged.want["connected"] = False
    edged.want["pods"][0]["status"] = before
    edged.write()
    edged.start()
    edged.wait("a new container", lambda: container_id(edged.wait_running("web")) != container_id(before))
    status = edged.status("web")["containerStatuses"][0]
    assert status["restartCount"] == 1
    assert status["lastState"]["terminated"]["exitCode"] == 137
    assert container_id(before) == status["lastState"]["terminated"]["containerID"]


def test_crashes_back_off_and_the_count_goes_on(edged: EdgedProcess) -> None:
    run(edged, make_pod("crash", container("c", "echo run; exit 3")))

    def waiting() -> dict[str, Any]:
        states = edged.status("crash").get("containerStatuses") or [{}]
        return states[0].get("state", {}).get("waiting", {})

    edged.wait("CrashLoopBackOff", lambda: waiting().get("reason") == "CrashLoopBackOff")
    status = edged.status("crash")
    assert status["phase"] == "Running"
    assert status["containerStatuses"][0]["restartCount"] == 1
    assert status["containerStatuses"][0]["lastState"]["terminated"]["exitCode"] == 3
    assert any(e[1] == "BackOff" and e[2].startswith("Back-off restarting") for e in edged.got()["events"])
    assert "back-off 10s restarting failed container=c pod=crash_default(uid-crash)" in waiting()["message"]


def test_jobs_end_and_init_containers_run_first_in_order(edged: EdgedProcess) -> None:
    mounts = [{"name": "work", "mountPath": "/work"}]
    append = "echo {} >>/work/log" if os.geteuid() == 0 else "echo {} >>$EDGEHIVE_ROOT/work/log"
    show = "cat /work/log" if os.geteuid() == 0 else "cat $EDGEHIVE_ROOT/work/log"
    pod = make_pod(
        "job",
        container("main", show, volumeMounts=mounts),
        restartPolicy="Never",
        initContainers=[
            container("first", append.format("first"), volumeMounts=mounts),
            container("second", append.format("second"), volumeMounts=mounts),
        ],
        volumes=[{"name": "work", "emptyDir": {}}],
    )
    run(edged, pod)
    edged.wait("Succeeded", lambda: edged.status("job").get("phase") == "Succeeded")
    status = edged.status("job")
    conditions = {c["type"]: (c["status"], c.get("reason")) for c in status["conditions"]}
    assert conditions["Ready"] == ("False", "PodCompleted")
    assert conditions["Initialized"] == ("True", "PodCompleted")
    assert [one["state"]["terminated"]["exitCode"] for one in status["initContainerStatuses"]] == [0, 0]
    text = "\n".join(f.read_text() for f in edged.base.glob("logs/default_job_*/main/0.log"))
    assert text.index("first") < text.index("second")


def test_deletion_gives_grace_reports_and_asks_for_the_final_delete(edged: EdgedProcess) -> None:
    script = "trap 'echo bye; exit 0' TERM; echo ready; while :; do sleep 0.1; done"
    run(edged, make_pod("web", container("c", script)))
    edged.wait_running("web")
    edged.wait("the trap is set", lambda: "ready" in edged.log_text("web"))
    edged.want["pods"][0]["metadata"] |= {
        "deletionTimestamp": "2026-01-01T00:00:00Z",
        "deletionGracePeriodSeconds": 20,
    }
    started = time.monotonic()
    edged.write()
    edged.wait("the final delete", lambda: "uid-web" in edged.got()["deleted"])
    assert time.monotonic() - started < 10, "TERM was enough"
    assert ["web", "Killing", "Stopping container c"] in edged.got()["events"]
    edged.wait("gone", lambda: edged.here() == [])
    assert not list(edged.base.glob("logs/default_web_*"))


def test_a_stubborn_container_is_killed_when_the_grace_is_shortened(edged: EdgedProcess) -> None:
    run(edged, make_pod("web", container("c", "trap '' TERM; echo ready; while :; do sleep 0.2; done")))
    edged.wait_running("web")
    edged.wait("the trap is set", lambda: "ready" in edged.log_text("web"))
    meta = edged.want["pods"][0]["metadata"]
    meta |= {"deletionTimestamp": "2026-01-01T00:00:00Z", "deletionGracePeriodSeconds": 600}
    edged.write()
    edged.wait("it is being stopped", lambda: any(e[1] == "Killing" for e in edged.got()["events"]))
    meta["deletionGracePeriodSeconds"] = 0
    edged.write()
    edged.wait("the final delete", lambda: "uid-web" in edged.got()["deleted"])


def test_a_missing_configmap_holds_the_container_until_it_comes(edged: EdgedProcess) -> None:
    env = [{"name": "A", "valueFrom": {"configMapKeyRef": {"name": "late", "key": "a"}}}]
    run(edged, make_pod("web", container("c", f"echo got $A; {LOOP}", env=env)))

    def reason() -> str:
        states = edged.status("web").get("containerStatuses") or [{}]
        return states[0].get("state", {}).get("waiting", {}).get("reason", "")

    edged.wait("the reason", lambda: reason() == "CreateContainerConfigError")
    assert any(e[1] == "Failed" and 'configmap "late" not found' in e[2] for e in edged.got()["events"])
    edged.want["objects"] = [["configmap", "default", "late", {"data": {"a": "it"}}]]
    edged.write()
    edged.wait_running("web")
    edged.wait("the value", lambda: "got it" in edged.log_text("web"))


def test_a_changed_command_restarts_the_container_in_place(edged: EdgedProcess) -> None:
    run(edged, make_pod("web", container("c", f"echo old; {LOOP}")))
    before = edged.wait_running("web")
    edged.want["pods"][0]["spec"]["containers"][0]["command"] = ["sh", "-c", f"echo new; {LOOP}"]
    edged.write()
    edged.wait("the new command", lambda: "new" in edged.log_text("web"))
    edged.wait("the count", lambda: edged.status("web")["containerStatuses"][0]["restartCount"] == 1)
    after = edged.wait_running("web")
    assert container_id(after) != container_id(before)


def test_a_pod_deleted_while_edged_was_away_is_ended_as_an_orphan(edged: EdgedProcess) -> None:
    run(edged, make_pod("stay", container("c", LOOP)), make_pod("leave", container("c", LOOP)))
    edged.wait_running("stay")
    edged.wait_running("leave")
    stay = edged.status("stay")
    edged.kill()
    edged.want["pods"] = [json.loads(json.dumps(edged.want["pods"][0])) | {"status": stay}]
    edged.write()
    edged.start()
    # At first edged has not seen yet that there is an orphan.
    logs = edged.base / "logs"
    edged.wait("its logs are gone", lambda: not [d for d in logs.iterdir() if "leave" in d.name], 30)
    edged.wait("only one is left", lambda: edged.here() == ["default/stay"], 30)
    assert edged.wait_running("stay")["containerStatuses"] == stay["containerStatuses"]


def test_a_lost_database_stops_nothing_until_the_cloud_confirms(edged: EdgedProcess) -> None:
    run(edged, make_pod("web", container("c", "while :; do date +%s%N; sleep 0.1; done")))
    status = edged.wait_running("web")
    pods = edged.want["pods"]
    edged.kill()
    edged.want["pods"] = []
    edged.want["connected"] = False
    edged.write()
    edged.start()
    edged.wait("edged is up", lambda: edged.here() == [])
    size = len(edged.log_text("web"))
    edged.wait("it still writes", lambda: len(edged.log_text("web")) > size + 60)
    edged.want["pods"] = [pods[0] | {"status": status}]
    edged.write()
    edged.wait("it is adopted", lambda: edged.here() == ["default/web"])
    assert container_id(edged.wait_running("web")) == container_id(status)


async def test_a_node_can_be_emptied(edged: EdgedProcess) -> None:
    volume = {"name": "s", "secret": {"secretName": "sec"}}
    edged.want["objects"] = config_objects("one")
    mounts = [{"name": "s", "mountPath": "/sec"}]
    run(edged, make_pod("web", container("c", LOOP, volumeMounts=mounts), volumes=[volume]))
    edged.wait_running("web")
    edged.kill()
    root = edged.base / "root"
    for node, count in (("other", 0), ("edge1", 1), ("edge1", 0)):
        runtime = open_runtime(edged.endpoint, node_ip="127.0.0.1", root_directory=root, clock=time.time)
        if node != "other":
            assert await remove_all_pods(runtime, node=node, root_directory=root, grace=0.5) == count
        else:
            assert await remove_all_pods(runtime, node=node, root_directory=root / "other") == count
        await runtime.close()
    assert str(edged.base) not in Path("/proc/self/mounts").read_text()
    assert not list((edged.base / "logs").iterdir())


def test_hosts_and_last_words(edged: EdgedProcess) -> None:
    if edged.endpoint == "process://" and os.geteuid() != 0:
        pytest.skip("private mounts need root")
    there = Path("/dev/termination-log").exists()
    script = "grep alias /etc/hosts; echo said >/dev/termination-log; exit 4"
    last = container("log", "echo from the log; exit 5", terminationMessagePolicy="FallbackToLogsOnError")
    aliases = [{"ip": "10.9.9.9", "hostnames": ["alias.one", "two"]}]
    pod = make_pod("web", container("c", script), last, restartPolicy="Never", hostAliases=aliases)
    run(edged, pod)
    edged.wait("Failed", lambda: edged.status("web").get("phase") == "Failed")
    first, second = edged.status("web")["containerStatuses"]
    assert first["state"]["terminated"]["message"] == "said\n"
    assert second["state"]["terminated"]["message"] == "from the log\n"
    assert "10.9.9.9\talias.one\ttwo" in edged.log_text("web")
    run(edged)
    edged.wait("gone", lambda: edged.here() == [])
    assert list((edged.base / "root" / "pods").iterdir()) == []
    assert Path("/dev/termination-log").exists() == there, "what was made to mount something is removed"
    assert "alias.one" not in Path("/etc/hosts").read_text()


@pytest.mark.skipif(os.geteuid() != 0, reason="a small disk is a tmpfs")
def test_a_full_disk_holds_what_cannot_be_written_and_nothing_else(tmp_path: Path) -> None:
    edged = EdgedProcess(tmp_path / "edged", "process://")
    root = edged.base / "root"
    root.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", str(root)], check=True)
    data = {"a": "x" * 400_000}
    edged.want["objects"] = [["configmap", "default", "cm", {"data": data}]]
    volumes = [{"name": "v", "configMap": {"name": "cm"}}]
    big = make_pod("big", container("c", LOOP), volumes=volumes)
    edged.want["pods"] = [big, make_pod("small", container("c", LOOP))]
    edged.write()
    edged.start()
    try:
        edged.wait_running("small")
        edged.wait("told", lambda: any("No space left" in e[2] for e in edged.got()["events"]))
        data["a"] = "little"
        edged.write()
        before = edged.wait_running("big")
        with suppress(OSError), (root / "fill").open("wb", buffering=0) as fill:
            while True:
                fill.write(b"x" * 4096)
        name = container_id(before).rpartition("/")[2]
        pid = int((root / "process" / "containers" / name / "pid").read_text().split()[0])
        os.kill(pid, signal.SIGKILL)

        def waiting() -> str:
            return str(edged.status("big")["containerStatuses"][0]["state"].get("waiting"))

        edged.wait("the reason", lambda: "No space left" in waiting())
        assert edged.status("small")["phase"] == "Running"
        (root / "fill").unlink()
        edged.wait("it goes on", lambda: edged.status("big")["containerStatuses"][0]["ready"], 30)
        edged.want["pods"] = []
        edged.write()
        edged.wait("gone", lambda: edged.here() == [])
    finally:
        edged.kill()
        subprocess.run(["umount", "-l", str(root)], check=False)


@pytest.mark.containerd
async def test_a_log_is_rotated_under_a_running_container(tmp_path: Path, containerd: Containerd) -> None:
    edged = EdgedProcess(tmp_path / "edged", containerd.endpoint)
    edged.start()
    runtime = open_runtime(
        containerd.endpoint, node_ip="127.0.0.1", root_directory=tmp_path / "root", clock=time.time
    )
    try:
        run(
            edged,
            make_pod("chatty", container("c", "i=0; while :; do i=$((i+1)); echo line $i; sleep 0.02; done")),
        )
        edged.wait_running("chatty")
        edged.wait("some lines", lambda: "line 20" in edged.log_text("chatty"))
        (info,) = [
            c for c in await runtime.list_containers() if c.labels["io.kubernetes.pod.uid"] == "uid-chatty"
        ]
        rotation = LogRotation(runtime=runtime, max_size=100, max_files=3)
        assert await rotation.rotate([info]) == 1
        directory = Path(info.log_path).parent
        edged.wait("lines in the new file", lambda: "line" in Path(info.log_path).read_text())
        (old,) = directory.glob("0.log.*")
        text = old.read_text() + Path(info.log_path).read_text()
        numbers = [int(line.split()[-1]) for line in text.splitlines()]
        assert numbers == list(range(1, len(numbers) + 1)), "no line is lost"
        usage = await runtime.usage()
        assert usage[info.id].memory > 0
        run(edged)
        edged.wait("it ends", lambda: edged.here() == [])
    finally:
        edged.kill()
        await runtime.close()


@pytest.mark.containerd
def test_security_context_and_claims_in_real_containers(tmp_path: Path, containerd: Containerd) -> None:
    edged = EdgedProcess(tmp_path / "edged", containerd.endpoint)
    edged.start()
    disk = tmp_path / "disk"
    disk.mkdir()
    edged.want["objects"] = [
        ["persistentvolumeclaim", "default", "data", {"spec": {"volumeName": "pv1"}}],
        [
            "persistentvolume",
            "",
            "pv1",
            {"spec": {"claimRef": {"namespace": "default", "name": "data"}, "local": {"path": str(disk)}}},
        ],
    ]
    user = "id -u; id -g; id -G; grep -e CapEff -e NoNewPrivs -e Seccomp: /proc/self/status; echo x >/no || echo ro"
    secured = container(
        "c",
        f"{user}; echo kept >/data/file; {LOOP}",
        securityContext={
            "runAsUser": 1234,
            "runAsGroup": 2345,
            "readOnlyRootFilesystem": True,
            "allowPrivilegeEscalation": False,
            "capabilities": {"drop": ["ALL"]},
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        volumeMounts=[{"name": "data", "mountPath": "/data"}],
        resources={"limits": {"memory": "32Mi", "cpu": "500m"}},
    )
    mighty = container(
        "c",
        f"grep CapEff /proc/self/status; [ -w /sys ] && echo sys; {LOOP}",
        securityContext={"privileged": True},
    )
    try:
        run(
            edged,
            make_pod(
                "secured",
                secured,
                securityContext={"fsGroup": 3456, "supplementalGroups": [4567]},
                volumes=[{"name": "data", "persistentVolumeClaim": {"claimName": "data"}}],
            ),
            make_pod("mighty", mighty),
        )
        edged.wait_running("secured")
        edged.wait_running("mighty")
        edged.wait("their words", lambda: "ro\n" in edged.log_text("secured"))
        text = edged.log_text("secured")
        # Both streams land in one file, in no order of their own.
        words = [line.split(" ", 3)[3] for line in text.splitlines() if line.split(" ", 2)[1] == "stdout"]
        assert words[:2] == ["1234", "2345"]
        assert {"3456", "4567"} <= set(words[2].split())
        assert "CapEff:\t0000000000000000" in words
        assert "NoNewPrivs:\t1" in words
        assert "Seccomp:\t2" in words
        edged.wait("its file", lambda: (disk / "file").exists() and (disk / "file").read_text() == "kept\n")
        assert (disk / "file").stat().st_gid == 2345 or disk.stat().st_gid == 3456
        edged.wait("the other's", lambda: "CapEff" in edged.log_text("mighty"))
        assert "CapEff:\t0000000000000000" not in edged.log_text("mighty")
        run(edged)
        edged.wait("they end", lambda: edged.here() == [])
        assert (disk / "file").exists(), "the data stays"
    finally:
        edged.kill()


def test_an_ephemeral_container_joins_a_running_pod(edged: EdgedProcess) -> None:
    pod = make_pod("a", container("c", LOOP))
    run(edged, pod)
    before = container_id(edged.wait_running("a"))
    look = container("look", "echo looked; ls /proc | grep -c '^[0-9]'; exit 5")
    if edged.endpoint != "process://":
        look["targetContainerName"] = "c"
    pod["spec"]["ephemeralContainers"] = [look]
    run(edged, pod)

    def ended() -> dict[str, Any]:
        told = edged.status("a").get("ephemeralContainerStatuses") or [{}]
        return told[0].get("state", {}).get("terminated", {})

    edged.wait("it has looked", ended)
    assert ended()["exitCode"] == 5
    assert "looked" in edged.log_text("a")
    assert container_id(edged.wait_running("a")) == before
    edged.kill()
    edged.start()
    assert container_id(edged.wait_running("a")) == before
    assert ended()["exitCode"] == 5, "it is not started again"
