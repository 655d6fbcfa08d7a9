"""CSI volumes against a driver made with grpcio: its rules are kept, nothing is left, and a restart changes nothing."""

import asyncio
import base64
import json
import os
import shutil
import tempfile
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest

from edgehive.aio.unix_socket import bind_unix
from edgehive.edge.csi_records import BOOT, load, save
from edgehive.edge.csi_spec import DriverFacts, driver_facts, inline, persistent
from edgehive.edge.csi_volumes import give_to_group
from edgehive.edge.env import PodFacts
from edgehive.edge.plugin_registry import PluginRegistry
from edgehive.edge.plugins import DRIVERS_ANNOTATION, NODE_ID_ANNOTATION, NodePlugins
from edgehive.edge.pods_objects import PodObjects
from edgehive.edge.pods_settings import NodeFacts
from edgehive.edge.pods_spec import Pod, parse_pod
from edgehive.edge.runtime import RuntimeFailure
from edgehive.edge.volumes import VolumeManager
from edgehive.edge.volumes_files import mounts_below
from tests.support.containerd import Containerd, why_not
from tests.support.edged_host import EdgedProcess
from tests.support.fakemeta import FakeMeta, container, make_pod
from tests.support.plugin_peer import ROOT, CsiDriverPeer

FACTS = PodFacts(NodeFacts("edge1", "10.0.0.1"), "10.1.0.1")
DRIVER = "fake.csi.example.org"
DELETED = {"deletionTimestamp": "2026-01-01T00:00:00Z", "deletionGracePeriodSeconds": 0}
OTHER = make_pod("other", container("c", "exec sleep 1000"))


@pytest.fixture
def base() -> Iterator[Path]:
    """A short directory: paths of sockets are limited."""
    made = Path(tempfile.mkdtemp(prefix="ehcsi-"))
    yield made
    assert mounts_below(made) == []
    shutil.rmtree(made)


@pytest.fixture
def containerd() -> Iterator[Containerd]:
    if reason := why_not():
        pytest.skip(reason)
    with tempfile.TemporaryDirectory(prefix="ehc") as directory:
        server = Containerd(Path(directory) / "d")
        try:
            server.start()
            yield server
        finally:
            server.stop()


@pytest.fixture
def driver(base: Path) -> Iterator[CsiDriverPeer]:
    made = CsiDriverPeer(base / "root", base / "store")
    yield made
    made.end()
    assert made.violations == []


@pytest.fixture
def meta() -> FakeMeta:
    made = FakeMeta()
    made.objects["csidriver", "", DRIVER] = {
        "spec": {"attachRequired": False, "podInfoOnMount": True, "volumeLifecycleModes": ["Persistent"]}
    }
    put_claim(made)
    return made


class Node:
    """A node's volumes and plugins, without its pods."""

    def __init__(self, base: Path, meta: FakeMeta) -> None:
        self.now = 1000.0
        self.plugins = NodePlugins(base / "root")
        self.volumes = VolumeManager(
            objects=PodObjects(meta),
            root=base / "root",
            clock=lambda: self.now,
            node="edge1",
            plugins=self.plugins,
        )
        self._changes = asyncio.Event()
        self.plugins.on_change(self._changes.set)

    async def until(self, met: Callable[[], Any]) -> None:
        async with asyncio.timeout(10):
            while not met():
                await self._changes.wait()
                self._changes.clear()

    async def registered(self) -> None:
        await self.until(lambda: self.plugins.driver(DRIVER) is not None)


@pytest.fixture
async def node(base: Path, meta: FakeMeta, driver: CsiDriverPeer) -> AsyncIterator[Node]:
    made = Node(base, meta)
    async with asyncio.TaskGroup() as group:
        running = group.create_task(made.plugins.run())
        driver.run()
        await made.registered()
        yield made
        running.cancel()


def put_claim(meta: FakeMeta, name: str = "data", volume: str = "pv1", **source: Any) -> None:
    meta.objects["persistentvolumeclaim", "default", name] = {
        "metadata": {"uid": f"claim-{name}"},
        "spec": {"volumeName": volume},
    }
    given = {
        "driver": DRIVER,
        "volumeHandle": f"handle-{volume}",
        "volumeAttributes": {"size": "big"},
    } | source
    meta.objects["persistentvolume", "", volume] = {
        "metadata": {"name": volume},
        "spec": {
            "claimRef": {"namespace": "default", "name": name, "uid": f"claim-{name}"},
            "accessModes": ["ReadWriteOnce"],
            "mountOptions": ["noatime"],
            "csi": given,
        },
    }


def secret(meta: FakeMeta, name: str, **data: str) -> None:
    encoded = {key: base64.b64encode(value.encode()).decode() for key, value in data.items()}
    meta.objects["secret", "default", name] = {"data": encoded}


def pod_dict(name: str = "a", claim: str = "data", **spec: Any) -> dict[str, Any]:
    one = container(
        "c",
        "cat /edgehive-test/csi/name $EDGEHIVE_ROOT/edgehive-test/csi/name; echo; exec sleep 1000",
        volumeMounts=[{"name": "v", "mountPath": "/edgehive-test/csi"}],
    )
    source = spec.pop("source", {"persistentVolumeClaim": {"claimName": claim}})
    return make_pod(name, one, volumes=[{"name": "v"} | source], **spec)


def pod(name: str = "a", **more: Any) -> Pod:
    return parse_pod(json.dumps(pod_dict(name, **more)).encode())


async def drop(node: Node, one: Pod) -> None:
    await node.volumes.unpublish(one.uid)
    await node.volumes.teardown(one.uid)


async def test_a_claim_is_staged_once_published_for_each_pod_and_undone_in_reverse(
    node: Node, driver: CsiDriverPeer, meta: FakeMeta, base: Path
) -> None:
    secret(meta, "stage", user="root")
    secret(meta, "publish", password="guess")  # noqa: S106
    put_claim(
        meta,
        fsType="ext4",
        nodeStageSecretRef={"name": "stage", "namespace": "default"},
        nodePublishSecretRef={"name": "publish", "namespace": "default"},
    )
    first, second = pod("a"), pod("b")
    for one in (first, second):
        await node.volumes.mount(one, FACTS)
        (mount,) = node.volumes.mounts(one, one.spec.containers[0], {})
        assert Path(mount.host_path, "name").read_text() == "handle-pv1"
        assert mount.host_path == str(base / f"root/pods/{one.uid}/volumes/kubernetes.io~csi/pv1/mount")
    assert [name for name, _ in driver.calls] == ["stage", "publish", "publish"]
    stage, publish = driver.last("stage"), driver.last("publish")
    assert dict(stage.secrets) == {"user": "root"}
    assert dict(stage.volume_context) == {"size": "big"}
    assert stage.volume_capability.mount.fs_type == "ext4"
    assert list(stage.volume_capability.mount.mount_flags) == ["noatime"]
    assert stage.volume_capability.access_mode.mode == 1
    assert dict(publish.secrets) == {"password": "guess"}
    assert publish.volume_context["csi.storage.k8s.io/pod.name"] == "b"
    assert publish.volume_context["csi.storage.k8s.io/ephemeral"] == "false"
    assert publish.volume_context["size"] == "big"
    assert not publish.readonly

    await drop(node, first)
    assert driver.count("unstage") == 0
    await drop(node, second)
    assert [name for name, _ in driver.calls][3:] == ["unpublish", "unpublish", "unstage"]
    assert driver.staged == driver.published == {}
    assert not (base / "root/pods/uid-a").exists()
    assert list((base / "root/plugins/kubernetes.io/csi" / DRIVER).iterdir()) == []


async def test_what_is_published_is_not_published_again_by_the_next_edgecore(
    node: Node, driver: CsiDriverPeer, meta: FakeMeta, base: Path
) -> None:
    one = pod()
    await node.volumes.mount(one, FACTS)
    await node.volumes.mount(one, FACTS)
    later = Node(base, meta)
    later.plugins.set_driver(DRIVER, node.plugins.driver(DRIVER))
    await later.volumes.mount(one, FACTS)
    assert (driver.count("stage"), driver.count("publish")) == (1, 1)
    (mount,) = later.volumes.mounts(one, one.spec.containers[0], {})
    assert Path(mount.host_path, "name").read_text() == "handle-pv1"
    await drop(later, one)
    assert driver.staged == driver.published == {}


async def test_after_a_reboot_everything_is_staged_and_published_again(
    node: Node, driver: CsiDriverPeer, base: Path
) -> None:
    one = pod()
    await node.volumes.mount(one, FACTS)
    homes = [
        base / "root/pods/uid-a/volumes/kubernetes.io~csi/pv1",
        *(base / "root/plugins/kubernetes.io/csi" / DRIVER).iterdir(),
    ]
    for home in homes:
        save(home, load(home) | {BOOT: "an earlier one"})
    await node.volumes.mount(one, FACTS)
    assert (driver.count("stage"), driver.count("publish")) == (2, 2)
    await drop(node, one)


async def test_a_publication_that_failed_is_undone_all_the_same(node: Node, driver: CsiDriverPeer) -> None:
    driver.failures["publish"] = (grpc.StatusCode.INTERNAL, "no disk today")
    one = pod()
    with pytest.raises(RuntimeFailure, match="no disk today"):
        await node.volumes.mount(one, FACTS)
    driver.failures.clear()
    await drop(node, one)
    assert driver.staged == {}
    assert driver.count("unpublish") == driver.count("unstage") == 1


async def test_a_pod_stays_until_its_driver_has_taken_the_volume_back(
    node: Node, driver: CsiDriverPeer, base: Path
) -> None:
    one = pod()
    await node.volumes.mount(one, FACTS)
    driver.failures["unpublish"] = (grpc.StatusCode.INTERNAL, "busy")
    with pytest.raises(RuntimeFailure, match="busy"):
        await node.volumes.unpublish(one.uid)
    driver.end()
    await node.until(lambda: node.plugins.driver(DRIVER) is None)
    with pytest.raises(RuntimeFailure, match="not found in the list of registered CSI drivers"):
        await node.volumes.unpublish(one.uid)
    assert (base / "root/pods/uid-a").exists()
    driver.failures.clear()
    driver.run()
    await node.registered()
    await drop(node, one)
    assert driver.staged == {}


async def test_a_volume_that_does_not_exist_any_more_is_done(node: Node, driver: CsiDriverPeer) -> None:
    one = pod()
    await node.volumes.mount(one, FACTS)
    for path in [*driver.published, *driver.staged.values()]:
        from tests.support.plugin_peer import _unbind

        _unbind(Path(path))
    driver.failures = dict.fromkeys(("unpublish", "unstage"), (grpc.StatusCode.NOT_FOUND, "gone"))
    await drop(node, one)
    driver.published.clear()


async def test_what_a_killed_edgecore_left_staged_is_unstaged(
    node: Node, driver: CsiDriverPeer, base: Path
) -> None:
    one = pod()
    await node.volumes.mount(one, FACTS)
    driver.failures["unstage"] = (grpc.StatusCode.INTERNAL, "killed here")
    with pytest.raises(RuntimeFailure):
        await node.volumes.unpublish(one.uid)
    await node.volumes.teardown(one.uid)
    assert driver.staged
    driver.failures.clear()
    await node.volumes.sweep()
    assert driver.staged == {}
    assert list((base / "root/plugins/kubernetes.io/csi" / DRIVER).iterdir()) == []


async def test_a_volume_is_waited_for_until_the_cluster_has_attached_it(
    node: Node, driver: CsiDriverPeer, meta: FakeMeta
) -> None:
    meta.objects["csidriver", "", DRIVER] = {"spec": {"attachRequired": True}}
    one = pod()
    with pytest.raises(
        RuntimeFailure, match=r"waiting for the cluster to attach volume handle-pv1.*csi-[0-9a-f]{64}"
    ):
        await node.volumes.mount(one, FACTS)
    name = persistent("pv1", {"driver": DRIVER, "volumeHandle": "handle-pv1"}).attachment("edge1")
    status: dict[str, Any] = {"attached": False, "attachError": {"message": "no such disk"}}
    meta.objects["volumeattachment", "", name] = {"status": status}
    with pytest.raises(RuntimeFailure, match="no such disk"):
        await node.volumes.mount(one, FACTS)
    assert driver.calls == []
    meta.objects["volumeattachment", "", name] = {
        "status": {"attached": True, "attachmentMetadata": {"device": "/dev/xvdz"}}
    }
    await node.volumes.mount(one, FACTS)
    assert dict(driver.last("stage").publish_context) == {"device": "/dev/xvdz"}
    assert dict(driver.last("publish").publish_context) == {"device": "/dev/xvdz"}
    # Without podInfoOnMount a driver is not told whose pod it is.
    assert dict(driver.last("publish").volume_context) == {"size": "big"}
    in_use: dict[str, Any] = {"capacity": {}, "allocatable": {}}
    node.plugins.node_facts(in_use)
    assert in_use["volumesInUse"] == [f"kubernetes.io/csi/{DRIVER}^handle-pv1"]
    await drop(node, one)
    node.plugins.node_facts(in_use)
    assert in_use["volumesInUse"] == []


async def test_an_inline_volume_lives_with_its_pod_and_is_never_staged(
    node: Node, driver: CsiDriverPeer, meta: FakeMeta
) -> None:
    secret(meta, "own", key="s3")
    source = {
        "csi": {
            "driver": DRIVER,
            "readOnly": True,
            "volumeAttributes": {"k": "v"},
            "nodePublishSecretRef": {"name": "own"},
        }
    }
    one = pod(source=source)
    with pytest.raises(RuntimeFailure, match="does not support Ephemeral volumes"):
        await node.volumes.mount(one, FACTS)
    del meta.objects["csidriver", "", DRIVER]
    node.now += 1000
    await node.volumes.mount(one, FACTS)
    publish = driver.last("publish")
    assert driver.count("stage") == 0
    assert publish.volume_id.startswith("csi-")
    assert publish.readonly
    assert dict(publish.secrets) == {"key": "s3"}
    assert publish.volume_context["csi.storage.k8s.io/ephemeral"] == "true"
    assert publish.volume_context["csi.storage.k8s.io/pod.uid"] == "uid-a"
    (mount,) = node.volumes.mounts(one, one.spec.containers[0], {})
    assert mount.readonly
    await drop(node, one)
    assert driver.count("unpublish") == 1
    assert driver.count("unstage") == 0


async def test_a_driver_that_wants_tokens_is_asked_again_with_new_ones(
    node: Node, driver: CsiDriverPeer, meta: FakeMeta
) -> None:
    meta.objects["csidriver", "", DRIVER] = {
        "spec": {
            "attachRequired": False,
            "requiresRepublish": True,
            "tokenRequests": [{"audience": "vault", "expirationSeconds": 600}],
        }
    }
    one = pod()
    assert await node.volumes.mount(one, FACTS) == node.now + 60
    key = "csi.storage.k8s.io/serviceAccount.tokens"
    first = json.loads(driver.last("publish").volume_context[key])
    assert first["vault"]["token"] == "token-1"
    assert first["vault"]["expirationTimestamp"]
    await node.volumes.mount(one, FACTS)
    assert json.loads(driver.last("publish").volume_context[key])["vault"]["token"] == "token-2"
    driver.failures["publish"] = (grpc.StatusCode.INTERNAL, "not now")
    assert await node.volumes.mount(one, FACTS) is not None  # the container keeps what it has
    assert driver.count("stage") == 1
    driver.failures.clear()
    await drop(node, one)


@pytest.mark.skipif(not ROOT, reason="needs root")
async def test_fs_group_is_applied_by_whoever_the_driver_says(
    node: Node, driver: CsiDriverPeer, meta: FakeMeta, base: Path
) -> None:
    one = pod(securityContext={"fsGroup": 4242})
    put_claim(meta, fsType="ext4")
    await node.volumes.mount(one, FACTS)
    (mount,) = node.volumes.mounts(one, one.spec.containers[0], {})
    assert Path(mount.host_path).stat().st_gid == Path(mount.host_path, "name").stat().st_gid == 4242
    await drop(node, one)

    put_claim(meta, volume="pv2")  # no fsType: the default policy leaves it alone
    await node.volumes.mount(one, FACTS)
    (mount,) = node.volumes.mounts(one, one.spec.containers[0], {})
    assert Path(mount.host_path).stat().st_gid != 4242
    await drop(node, one)

    driver.end()
    await node.until(lambda: node.plugins.driver(DRIVER) is None)
    driver.rpcs = [1, 6]
    driver.run()
    await node.registered()
    await node.volumes.mount(one, FACTS)
    assert driver.last("publish").volume_capability.mount.volume_mount_group == "4242"
    await drop(node, one)


async def test_a_driver_is_told_what_became_of_its_registration(
    node: Node, driver: CsiDriverPeer, base: Path
) -> None:
    assert await asyncio.to_thread(driver.told.get, True, 5) == (True, "")
    found = node.plugins.driver(DRIVER)
    assert found is not None
    assert (found.node_id, found.max_volumes) == ("the-node", 8)
    labels, annotations = node.plugins.node_facts({"capacity": {}, "allocatable": {}})
    assert annotations[NODE_ID_ANNOTATION] == f'{{"{DRIVER}":"the-node"}}'
    assert json.loads(annotations[DRIVERS_ANNOTATION] or "") == [
        {"name": DRIVER, "nodeID": "the-node", "allocatable": {"count": 8}}
    ]
    assert labels == {}
    other = CsiDriverPeer(base / "root", base / "store", name="old.csi.example.org")
    other.versions = ["0.3.0"]
    other.run()
    registered, error = await asyncio.to_thread(other.told.get, True, 5)
    other.end()
    driver.end()
    await node.until(lambda: node.plugins.driver(DRIVER) is None)
    _, annotations = node.plugins.node_facts({"capacity": {}, "allocatable": {}})
    assert annotations == {NODE_ID_ANNOTATION: None, DRIVERS_ANNOTATION: None}
    assert not registered
    assert "CSI version 1 is needed" in error


async def test_a_registrar_is_not_told_of_a_failure_while_its_driver_is_only_away(
    node: Node, driver: CsiDriverPeer, base: Path
) -> None:
    """One that is told ends, and is started again with an ever longer back-off: the driver would be missed for minutes."""
    away = CsiDriverPeer(base / "root", base / "store", name="away.csi.example.org")
    registration, away.endpoint = away.socket, base / "away.sock"
    away.start(registration)
    service = CsiDriverPeer(base / "root", base / "store", name="away.csi.example.org")
    async with asyncio.timeout(10):
        while not away.asked:
            await asyncio.sleep(0.01)
    service.start(away.endpoint)
    await node.until(lambda: node.plugins.driver("away.csi.example.org") is not None)
    assert await asyncio.to_thread(away.told.get, True, 5) == (True, "")
    assert away.told.empty()
    for one in (away, service):
        one.end()


async def test_plugins_that_do_not_answer_hold_nobody_up(node: Node, base: Path) -> None:
    registry = base / "root" / "plugins_registry"
    paths = [registry / f"{name}.sock" for name in "abcd"]
    silent = [bind_unix(path) for path in paths]
    async with asyncio.timeout(10):
        silent += [(await asyncio.get_running_loop().sock_accept(sock))[0] for sock in silent]
    later = CsiDriverPeer(base / "root", base / "store", name="later.csi.example.org")
    later.run()
    await node.until(lambda: node.plugins.driver("later.csi.example.org") is not None)
    later.end()
    await node.until(lambda: node.plugins.driver("later.csi.example.org") is None)
    for path in paths:
        path.unlink()
    for sock in silent:
        sock.close()
    async with asyncio.timeout(10):
        while node.plugins._registry is None or node.plugins._registry.pending:
            await asyncio.sleep(0.05)


async def test_so_many_plugins_are_asked_at_once_and_those_that_failed_least_first(base: Path) -> None:
    started: dict[str, Any] = {}
    registry = PluginRegistry(NodePlugins(base), start=lambda work, name: started.setdefault(name, work))
    sockets = {base / f"{number:02}.sock": (number, 0) for number in range(20)}
    await registry.sync(sockets)
    assert list(started) == [f"plugin {number:02}.sock" for number in range(16)]
    for _ in range(3):
        for work in [started.pop(name) for name in list(started)[:8]]:
            await work  # nobody listens there
        assert registry.pending
        await registry.sync(sockets)
    assert {"plugin 16.sock", "plugin 19.sock", "plugin 15.sock"} <= started.keys()
    for work in started.values():
        await work
    started.clear()
    await registry.sync({})
    assert started == {}
    assert not registry.pending, "what has gone is not asked again"


def test_facts_of_a_driver() -> None:
    assert driver_facts({}) == DriverFacts(known=True)
    assert driver_facts({"spec": {"attachRequired": False}}).attach is False
    one = persistent(
        "p", {"driver": "d", "volumeHandle": "h", "fsType": "xfs"}, access_modes=["ReadWriteMany"]
    )
    assert not DriverFacts().applies_group(one)
    assert DriverFacts(group_policy="File").applies_group(one)
    assert one.capability(frozenset(), None)["access_mode"] == {"mode": 5}
    own = persistent("p", {"driver": "d", "volumeHandle": "h"}, access_modes=["ReadWriteOncePod"])
    assert own.capability(frozenset({5}), None)["access_mode"] == {"mode": 6}
    with pytest.raises(RuntimeFailure, match="names no CSI driver"):
        inline(pod(), "v", {"driver": "../../etc"})
    with pytest.raises(RuntimeFailure, match="no volumeHandle"):
        persistent("p", {"driver": "d"})


@pytest.mark.skipif(not ROOT, reason="volumes are mounted for processes as root only")
@pytest.mark.timeout(120)
@pytest.mark.parametrize("kind", ["process", pytest.param("containerd", marks=pytest.mark.containerd)])
def test_a_killed_edgecore_neither_disturbs_a_volume_nor_leaves_it(
    base: Path, kind: str, request: pytest.FixtureRequest
) -> None:
    edged = EdgedProcess(
        base, request.getfixturevalue("containerd").endpoint if kind == "containerd" else "process://"
    )
    driver = CsiDriverPeer(base / "root", base / "store")
    meta = FakeMeta()
    put_claim(meta)
    objects = [[kind, ns, name, body] for (kind, ns, name), body in meta.objects.items()]
    objects.append(["csidriver", "", DRIVER, {"spec": {"attachRequired": False}}])
    edged.want |= {"objects": objects, "pods": [pod_dict("a"), OTHER]}
    edged.write()
    edged.start()
    try:
        # The pod waits for its driver, which comes as a pod itself as a rule.
        edged.wait(
            "FailedMount", lambda: any(reason == "FailedMount" for _, reason, _ in edged.got()["events"])
        )
        driver.run()
        status = edged.wait_running("a")
        edged.wait("the file", lambda: edged.log_text("a").count("handle-pv1") == 2)
        edged.kill()
        edged.start()
        again = edged.wait_running("a")
        assert again["containerStatuses"][0]["containerID"] == status["containerStatuses"][0]["containerID"]
        assert (driver.count("stage"), driver.count("publish")) == (1, 1)
        edged.kill()
        edged.want["pods"] = [OTHER]
        edged.write()
        edged.start()
        edged.wait(
            "gone", lambda: edged.here() == ["default/other"] and not driver.staged and not driver.published
        )
        assert driver.violations == []
        edged.wait("the directory", lambda: not (base / "root/pods/uid-a").exists())
        assert mounts_below(base) == []
        edged.want["pods"] = [OTHER | {"metadata": OTHER["metadata"] | DELETED}]
        edged.write()
        edged.wait("the other's end", lambda: edged.got()["deleted"] == ["uid-other"])
    finally:
        edged.kill()
        driver.end()


def test_an_inline_volume_has_no_secret_of_another_namespace():
    source = {"driver": DRIVER, "nodePublishSecretRef": {"name": "s", "namespace": "kube-system"}}
    assert inline(pod(), "v", source).publish_secret == ("default", "s")
    assert inline(pod(), "v", {"driver": DRIVER, "nodePublishSecretRef": "s"}).publish_secret is None


@pytest.mark.skipif(os.geteuid() != 0, reason="gives files to a group")
def test_a_file_that_becomes_a_link_meanwhile_gives_nothing_outside_to_the_group(tmp_path, monkeypatch):
    outside, volume = tmp_path / "outside", tmp_path / "volume"
    volume.mkdir()
    for file in (outside, volume / "file"):
        file.touch(mode=0o600)
    (volume / "link").symlink_to(outside)
    chown = os.chown

    def swapping(path, uid, gid, **more):
        """Another pod that has the volume is quicker."""
        if (volume / "file").is_file() and not (volume / "file").is_symlink():
            (volume / "file").rename(tmp_path / "moved")
            (volume / "file").symlink_to(outside)
        chown(path, uid, gid, **more)

    monkeypatch.setattr(os, "chown", swapping)
    give_to_group(volume, 4242)
    assert (volume / "file").is_symlink()
    assert (outside.stat().st_gid, outside.stat().st_mode & 0o777) == (0, 0o600)
    assert ((tmp_path / "moved").stat().st_gid, volume.stat().st_gid) == (4242, 4242)
    assert volume.stat().st_mode & 0o2070 == 0o2070
