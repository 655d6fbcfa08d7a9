"""The whole edgecore with its cloud away: what ran goes on, what crashes comes back, and the cloud is told truly."""

import datetime
import json
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec

from edgehive.edge.config import EdgeCoreConfig
from edgehive.edge.pods_config import pod_settings
from edgehive.edge.pods_spec import parse_time
from edgehive.wire.message import Message
from tests.edge.test_edge_app import edgecore
from tests.edge.test_pods_static import until

SCRIPT = 'cat "$EDGEHIVE_ROOT/token/token" "$EDGEHIVE_ROOT/config/key"; echo; exec sleep 1000'


def a_pod() -> dict[str, Any]:
    mounts = [{"name": n, "mountPath": f"/edgehive-test-autonomy/{n}"} for n in ("token", "config")]
    script = SCRIPT.replace("$EDGEHIVE_ROOT/", "$EDGEHIVE_ROOT/edgehive-test-autonomy/")
    one = {"name": "main", "image": "none", "command": ["sh", "-c", script], "volumeMounts": mounts}
    token = {"serviceAccountToken": {"path": "token", "expirationSeconds": 3607}}
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "a", "namespace": "default", "uid": "u-a", "resourceVersion": "7"},
        "spec": {
            "nodeName": "edge-1",
            "terminationGracePeriodSeconds": 1,
            "serviceAccountName": "default",
            "containers": [one],
            "volumes": [
                {"name": "token", "projected": {"sources": [token]}},
                {"name": "config", "configMap": {"name": "settings"}},
            ],
        },
        "status": {"phase": "Pending"},
    }


def with_kubelet(config: EdgeCoreConfig, **changes: Any) -> EdgeCoreConfig:
    """The configuration with other values in ``modules.edged.tailoredKubeletConfig``."""
    edged = config.modules.edged
    kubelet = msgspec.structs.replace(edged.tailored_kubelet_config, **changes)
    edged = msgspec.structs.replace(edged, tailored_kubelet_config=kubelet)
    return msgspec.structs.replace(config, modules=msgspec.structs.replace(config.modules, edged=edged))


def answer_token(message: Message) -> bytes | None:
    """A token whose time to be renewed has come the moment it is there."""
    if message.operation != "query" or "/serviceaccounttoken/" not in message.resource:
        return None
    expires = datetime.datetime.now(datetime.UTC) + datetime.timedelta(seconds=60)
    body = json.loads(message.content)
    body["spec"]["audiences"] = ["https://kubernetes.default.svc"]
    body["status"] = {"token": "the-token", "expirationTimestamp": expires.strftime("%Y-%m-%dT%H:%M:%SZ")}
    return json.dumps(body).encode()


def logs(base: Path) -> list[str]:
    """What each run has said; the lines carry a time, a stream and a tag before it."""
    texts = [file.read_text() for file in sorted(base.glob("default_a_u-a/main/*.log"))]
    return [
        "".join(line.split(" ", 3)[3] for line in text.splitlines() if line.count(" ") > 2) for text in texts
    ]


def process(root: Path) -> int:
    files = list((root / "process" / "containers").glob("*/pid"))
    alive = []
    for file in files:
        words = file.read_text().split()
        pid = int(words[0]) if words else 0  # it is just being written
        if pid and Path(f"/proc/{pid}").exists():
            alive.append(pid)
    return alive[0] if len(alive) == 1 else 0


async def test_offline_a_crashed_pod_with_a_token_past_its_renewal_comes_back(
    cloud: Any, tmp_path: Path
) -> None:
    config = with_kubelet(cloud.config(), pod_logs_dir=str(tmp_path / "logs"), static_pod_path="")
    cloud.install(config)
    cloud.answers.append(answer_token)
    cloud.objects["default/configmap/settings"] = {
        "metadata": {"name": "settings", "namespace": "default"},
        "data": {"key": "-value"},
    }
    pod = cloud.objects["default/pod/a"] = a_pod()
    root = Path(config.modules.edged.root_directory)

    def status() -> dict[str, Any]:
        return dict(cloud.objects["default/pod/a"].get("status", {}))

    async def cloud_has(condition: Callable[[], Any]) -> None:
        await cloud.until(condition, timeout=20)

    async with edgecore(config):
        await cloud.message("insert", "null/node/edge-1")
        await cloud.ack_of(await cloud.push("insert", "default/pod/a", pod, version=7))
        await cloud_has(lambda: status().get("phase") == "Running")
        await until("its words", lambda: logs(tmp_path / "logs") == ["the-token-value"])
        first = process(root)
        volumes = {p: p.stat().st_ino for p in (root / "pods/u-a/volumes").glob("*/*")}
        assert len(volumes) == 2

        await cloud.stop()
        os.kill(first, signal.SIGKILL)
        await until("it is back", lambda: logs(tmp_path / "logs")[1:] == ["the-token-value"])
    # Not even a restart of edgecore needs the cloud, and it touches neither processes nor mounts.
    second = process(root)
    async with edgecore(config):
        await until("it is adopted", lambda: process(root) == second)
        os.kill(second, signal.SIGKILL)
        await until("it is back again", lambda: process(root) not in (0, second))
        third = process(root)
        assert {p: p.stat().st_ino for p in (root / "pods/u-a/volumes").glob("*/*")} == volumes
        started = Path(f"/proc/{third}").stat().st_mtime

        await cloud.start()
        await cloud_has(
            lambda: (
                status()["containerStatuses"][0]["restartCount"] == 2
                and "running" in status()["containerStatuses"][0]["state"]
            )
        )
        told = status()["containerStatuses"][0]
        assert abs(parse_time(told["state"]["running"]["startedAt"]) - started) < 3
        assert told["lastState"]["terminated"]["exitCode"] == 137
        assert process(root) == third, "coming back online disturbs nothing"

        gone = pod | {"metadata": pod["metadata"] | {"resourceVersion": "900"}}
        gone["metadata"] |= {"deletionTimestamp": "2026-01-01T00:00:00Z", "deletionGracePeriodSeconds": 0}
        cloud.version = 1000
        cloud.objects["default/pod/a"]["metadata"] = dict(gone["metadata"])
        await cloud.push("update", "default/pod/a", gone, version=900)
        await cloud.message("delete", "default/pod/a")
        await cloud.ack_of(await cloud.push("delete", "default/pod/a", gone, version=901))
        await until("nothing is left", lambda: not list((root / "pods").glob("*")))


def test_the_configuration_reaches_edged(cloud: Any) -> None:
    settings = pod_settings(cloud.config().modules.edged, None)
    assert settings.static_pod_path == Path("/etc/kubeedge/manifests")
    assert settings.eviction.hard["memory.available"] == "100Mi"
    assert settings.images.high_percent == 85
    assert settings.images.minimum_age == 120.0
    assert settings.log_max_size == 10 << 20
    assert settings.log_max_files == 5
