"""Following a log while the runtime is away for a moment."""

import itertools
from pathlib import Path

from edgehive.aio.http import Request
from edgehive.edge.kubelet_api import KubeletApi
from edgehive.edge.pods_actions import CONTAINER_NAME, POD_NAME, POD_NAMESPACE
from edgehive.edge.runtime import ContainerInfo, RuntimeFailure, State
from edgehive.kit.errors import Unreachable


class Runtime:
    """One container with a log; the runtime is killed, started again, and forgets the container."""

    def __init__(self, log: Path) -> None:
        labels = {POD_NAMESPACE: "default", POD_NAME: "web", CONTAINER_NAME: "main"}
        self.info = ContainerInfo(
            "c", "s", "main", 0, State.RUNNING, 1.0, 1.0, 0, 0, "", "", "", "", labels, {}, str(log)
        )
        self.log = log
        self.asked = itertools.count()

    async def list_containers(self, pod_uid: str = "") -> list[ContainerInfo]:
        return [self.info]

    async def container_status(self, container_id: str) -> ContainerInfo:
        number = next(self.asked)
        with self.log.open("a") as log:
            log.write(f"2026-01-01T00:00:00Z stdout F line {number}\n")
        if number == 1:
            raise Unreachable("no gRPC server")
        if number == 3:
            raise RuntimeFailure("NotFound", "no such container")
        return self.info


async def test_a_follower_outlives_the_runtime(tmp_path: Path) -> None:
    runtime = Runtime(tmp_path / "0.log")
    api = KubeletApi(runtime=runtime, streams=None, wall=lambda: 0.0, stats=lambda: None)  # type: ignore[arg-type]
    path = "/containerLogs/default/web/main"
    found = await api.answer(Request("GET", path, raw_query="follow=true", remote="127.0.0.1:1"))
    assert found is not None
    assert found.stream is not None
    text = b"".join([piece async for piece in found.stream]).decode()
    assert text.splitlines() == [f"line {number}" for number in range(4)]
