"""Static pods: manifests run whatever the cloud says, and the cluster's mirror pods follow them."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from edgehive.edge.pods_manager import PodManager
from edgehive.edge.pods_settings import NodeFacts, PodSettings
from edgehive.edge.pods_static import Manifests
from edgehive.edge.process import ProcessRuntime
from edgehive.edge.runtime import State
from tests.support.fakemeta import FakeMeta, container, make_pod

NAME = ("default", "web-edge1")
MANIFEST = """\
apiVersion: v1
kind: Pod
metadata: {name: web, labels: {app: web}}
spec:
  terminationGracePeriodSeconds: 1
  containers:
  - {name: c, image: any, command: [sleep, "%d"]}
"""


class Site:
    """Edged over processes, with a directory of manifests."""

    def __init__(self, base: Path) -> None:
        self.base = base
        self.meta = FakeMeta()
        self.meta.node_uid = "node-uid"
        self.manifests = base / "manifests"
        self.manifests.mkdir()
        self.now = 1_000_000.0

    def write(self, seconds: int = 1000, name: str = "web.yaml") -> None:
        (self.manifests / name).write_text(MANIFEST % seconds)

    @asynccontextmanager
    async def edged(self) -> AsyncIterator[PodManager]:
        ids = iter(range(10_000))
        runtime = ProcessRuntime(
            state_directory=self.base / "process",
            node_ip="10.0.0.1",
            version="1",
            clock=lambda: self.now,
            new_id=lambda: f"{self.now:.0f}-{next(ids)}",
        )
        manager = PodManager(
            runtime=runtime,
            meta=self.meta,
            node=NodeFacts("edge1", "10.0.0.1"),
            settings=PodSettings(
                root_directory=self.base / "root",
                log_directory=self.base / "logs",
                relist_seconds=0.02,
                static_pod_path=self.manifests,
                static_check_seconds=0.02,
            ),
            clock=lambda: self.now,
        )
        async with asyncio.TaskGroup() as group:
            task = group.create_task(manager.run())
            yield manager
            task.cancel()
        await runtime.close()
        self.now += 1

    def mirror(self) -> dict[str, Any]:
        return self.meta.rows.get(NAME, {})

    def mirror_runs(self) -> bool:
        return bool(self.mirror().get("status", {}).get("phase") == "Running")


async def until(what: str, condition: Callable[[], Any]) -> None:
    try:
        async with asyncio.timeout(10):
            while not condition():
                await asyncio.sleep(0.005)
    except TimeoutError:
        pytest.fail(f"not in time: {what}")


def running(manager: PodManager) -> list[tuple[str, str]]:
    return [(pod.uid, c.id) for pod, c in manager.containers() if c.state is State.RUNNING]


@pytest.fixture
async def site(tmp_path: Path) -> AsyncIterator[Site]:
    made = Site(tmp_path)
    yield made
    for file in made.manifests.iterdir():
        file.unlink()
    async with made.edged() as manager:
        await until("nothing is left", lambda: manager.ready and not [*manager.pods()])
        async with asyncio.timeout(5):
            while [*(tmp_path / "process").glob("containers/*")]:
                await asyncio.sleep(0.01)


async def test_a_manifest_runs_and_is_mirrored(site: Site) -> None:
    site.write()
    async with site.edged() as manager:
        await until("its mirror shows it running", site.mirror_runs)
        ((uid, _),) = running(manager)
    meta = site.meta.created[0]["metadata"]
    assert meta["name"] == "web-edge1"
    assert meta["namespace"] == "default"
    assert meta["ownerReferences"] == [
        {"apiVersion": "v1", "kind": "Node", "name": "edge1", "uid": "node-uid", "controller": True}
    ]
    annotations = meta["annotations"]
    assert annotations["kubernetes.io/config.hash"] == uid == annotations["kubernetes.io/config.mirror"]
    assert annotations["kubernetes.io/config.source"] == "file"
    assert annotations["kubernetes.io/config.seen"] == "1970-01-12T13:46:40Z"
    assert site.meta.created[0]["spec"]["nodeName"] == "edge1"
    assert uid not in site.meta.deleted


async def test_it_runs_without_a_cloud_and_is_mirrored_when_the_cloud_comes(site: Site) -> None:
    site.meta.connected = False
    site.write()
    async with site.edged() as manager:
        await until("it runs", lambda: running(manager))
        before = running(manager)
        assert not site.meta.created
        site.meta.connected = True
        manager._mirrors.wake()
        await until("its mirror shows it running", site.mirror_runs)
        assert running(manager) == before


async def test_deleting_the_mirror_brings_a_new_mirror_and_leaves_the_pod_alone(site: Site) -> None:
    site.write()
    async with site.edged() as manager:
        await until("mirrored", site.mirror_runs)
        before = running(manager)
        first = site.mirror()["metadata"]["uid"]
        site.meta.mark_deleted(*NAME)
        await until("the final delete", lambda: first in site.meta.deleted)
        await until(
            "a new mirror with the status", lambda: len(site.meta.created) == 2 and site.mirror_runs()
        )
        site.meta.remove_pod(*NAME)
        await until("and again", lambda: len(site.meta.created) == 3 and site.mirror_runs())
        assert running(manager) == before


async def test_a_changed_file_restarts_the_pod_and_a_removed_one_ends_it(site: Site) -> None:
    site.write(1000)
    async with site.edged() as manager:
        await until("mirrored", site.mirror_runs)
        ((old, _),) = running(manager)
        site.write(2000)
        await until(
            "the new one runs alone",
            lambda: len(running(manager)) == 1 and running(manager)[0][0] != old,
        )
        await until(
            "and is mirrored",
            lambda: (
                site.mirror_runs() and site.mirror()["spec"]["containers"][0]["command"] == ["sleep", "2000"]
            ),
        )
        (site.manifests / "web.yaml").unlink()
        await until("it ends", lambda: not [*manager.pods()])
        await until("its mirror goes", lambda: not site.mirror())


async def test_a_broken_or_half_written_file_ends_nothing_also_over_a_restart(site: Site) -> None:
    site.write()
    async with site.edged() as manager:
        await until("it runs", lambda: running(manager))
        before = running(manager)
        (site.manifests / "web.yaml").write_text("apiVersion: v1\nkind: Pod\nmetadata: {name: [")
        await until("the file was read", lambda: not manager._manifests.complete)
        assert running(manager) == before
    async with site.edged() as manager:
        await until("the runtime was read", lambda: manager.ready and manager._labels is not None)
        await asyncio.sleep(0.1)
        infos = await manager._runtime.list_containers()
        assert [c.state for c in infos] == [State.RUNNING]
        site.write()
        await until("it is adopted", lambda: running(manager) == before)


async def test_a_file_changed_while_edged_was_down_replaces_what_runs_also_offline(site: Site) -> None:
    site.write(1000)
    async with site.edged() as manager:
        await until("it runs", lambda: running(manager))
        ((old, _),) = running(manager)
    site.meta.connected = False
    site.meta.rows.clear()
    site.write(2000)
    async with site.edged() as manager:
        await until("the new one runs", lambda: running(manager) and running(manager)[0][0] != old)
        assert len(running(manager)) == 1
        assert [pod.uid for pod, _ in manager.pods()] == [running(manager)[0][0]]


async def test_a_static_pod_does_not_make_an_empty_database_believable(site: Site) -> None:
    site.write()
    site.meta.put_pod(make_pod("api", container("c", "exec sleep 1000")))
    async with site.edged() as manager:
        await until("both run", lambda: len(running(manager)) == 2)
        before = sorted(running(manager))
    site.meta.rows.clear()
    site.meta.connected = False
    async with site.edged() as manager:
        await until("the static one is adopted", lambda: running(manager))
        await asyncio.sleep(0.1)
        states = {c.id: c.state for c in await manager._runtime.list_containers()}
        assert states == {c: State.RUNNING for _, c in before}
        site.meta.connected = True
        manager._relist_now.set()
        await until("the connection is noticed", lambda: manager._connected_since is not None)
        site.now += 100
        manager._relist_now.set()
        await until("the lost one is ended", lambda: len(list((site.base / "root/pods").glob("*"))) <= 1)


@pytest.mark.parametrize(
    "text",
    ["", "[]", "kind: Pod", "{apiVersion: v1, kind: List, items: []}", "\x00\xff", "a: [", "kind: &a [*a]"],
)
def test_what_is_not_a_manifest_is_passed_over(tmp_path: Path, text: str) -> None:
    (tmp_path / "x.yaml").write_text(text)
    (tmp_path / ".hidden").write_text(MANIFEST % 1)
    manifests = Manifests(tmp_path, node="edge1", clock=lambda: 0.0)
    assert not manifests.read()
    assert not manifests.pods
    assert not manifests.complete


def test_json_manifests_are_read_and_the_uid_depends_on_content_and_node(tmp_path: Path) -> None:
    pod = make_pod("p", container("c", "x"))
    del pod["metadata"]["uid"]
    (tmp_path / "p.json").write_text(json.dumps(pod))
    uids = set()
    for node in ("edge1", "edge2"):
        manifests = Manifests(tmp_path, node=node, clock=lambda: 0.0)
        assert manifests.read()
        assert not manifests.read(), "nothing has changed"
        uids |= manifests.pods.keys()
    assert len(uids) == 2
