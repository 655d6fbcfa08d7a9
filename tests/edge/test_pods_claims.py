"""Claims of persistent volumes: whose they are, what stands behind them, and that nothing of theirs is deleted."""

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from edgehive.edge.env import PodFacts
from edgehive.edge.pods_claims import claimed_volume, volume_name
from edgehive.edge.pods_objects import PodObjects
from edgehive.edge.pods_settings import NodeFacts
from edgehive.edge.pods_spec import Pod, parse_pod
from edgehive.edge.runtime import RuntimeFailure
from edgehive.edge.volumes import VolumeManager
from edgehive.edge.volumes_files import remove_tree
from tests.support.fakemeta import FakeMeta, container, make_pod

FACTS = PodFacts(NodeFacts("edge1", "10.0.0.1"), "10.1.0.1")


def claim(volume: str = "pv1", **status: Any) -> dict[str, Any]:
    return {"metadata": {"uid": "claim-uid"}, "spec": {"volumeName": volume}, "status": status}


def volume(owner: str = "data", uid: str = "claim-uid", **source: Any) -> dict[str, Any]:
    reference = {"namespace": "default", "name": owner, "uid": uid}
    return {"metadata": {"name": "pv1"}, "spec": {"claimRef": reference, "capacity": {}} | source}


def encoded(pod: dict[str, Any]) -> Pod:
    import json

    return parse_pod(json.dumps(pod).encode())


def pod_with_claim(read_only: bool = False, **spec: Any) -> Pod:
    one = container("c", "x", volumeMounts=[{"name": "v", "mountPath": "/data", "subPath": "sub"}])
    source = {"claimName": "data", "readOnly": read_only}
    return encoded(make_pod("a", one, volumes=[{"name": "v", "persistentVolumeClaim": source}], **spec))


@pytest.fixture
def meta() -> FakeMeta:
    return FakeMeta()


@pytest.fixture
def volumes(meta: FakeMeta, tmp_path: Path) -> VolumeManager:
    return VolumeManager(objects=PodObjects(meta), root=tmp_path / "root", clock=lambda: 0.0)


def put(meta: FakeMeta, **source: Any) -> None:
    meta.objects["persistentvolumeclaim", "default", "data"] = claim()
    meta.objects["persistentvolume", "", "pv1"] = volume(**source)


@pytest.mark.parametrize("kind", ["local", "hostPath"])
async def test_a_claim_shows_the_directory_of_its_volume_and_removal_leaves_the_data(
    meta: FakeMeta, volumes: VolumeManager, tmp_path: Path, kind: str
) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    put(meta, **{kind: {"path": str(disk)}})
    pod = pod_with_claim()
    await volumes.mount(pod, FACTS)
    (mount,) = volumes.mounts(pod, pod.spec.containers[0], {}, held=False)
    assert mount.host_path == str(disk / "sub")
    assert not mount.readonly
    (disk / "sub" / "file").write_text("kept")
    await volumes.teardown(pod.uid)
    assert (disk / "sub" / "file").read_text() == "kept"


async def test_a_claim_is_read_only_when_pod_or_volume_say_so(
    meta: FakeMeta, volumes: VolumeManager, tmp_path: Path
) -> None:
    put(meta, local={"path": str(tmp_path)})
    pod = pod_with_claim(read_only=True)
    await volumes.mount(pod, FACTS)
    assert volumes.mounts(pod, pod.spec.containers[0], {}, held=False)[0].readonly
    put(meta, local={"path": str(tmp_path)}, accessModes=["ReadOnlyMany"])
    pod = pod_with_claim()
    await volumes.mount(pod, FACTS)
    assert volumes.mounts(pod, pod.spec.containers[0], {}, held=False)[0].readonly


async def test_fs_group_is_set_on_a_local_volume(
    meta: FakeMeta, volumes: VolumeManager, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given: list[tuple[Path, int]] = []
    monkeypatch.setattr("edgehive.edge.volumes.set_group", lambda path, group: given.append((path, group)))
    put(meta, local={"path": str(tmp_path)})
    await volumes.mount(pod_with_claim(securityContext={"fsGroup": 4321}), FACTS)
    assert given == [(tmp_path, 4321)]


def drop_claim(meta: FakeMeta) -> None:
    meta.objects.pop(("persistentvolumeclaim", "default", "data"))


def unbind(meta: FakeMeta) -> None:
    meta.objects["persistentvolumeclaim", "default", "data"] = claim("")


def foreign(meta: FakeMeta) -> None:
    meta.objects["persistentvolume", "", "pv1"] = volume("other", local={"path": "/"})


def older(meta: FakeMeta) -> None:
    meta.objects["persistentvolume", "", "pv1"] = volume(uid="of-an-older-claim", local={"path": "/"})


def exotic(meta: FakeMeta) -> None:
    meta.objects["persistentvolume", "", "pv1"] = volume(rbd={"image": "x"})


def away(meta: FakeMeta) -> None:
    meta.objects.clear()
    meta.connected = False


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (drop_claim, 'persistentvolumeclaim "data" not found'),
        (unbind, "is not bound"),
        (foreign, "is not bound to default/data"),
        (older, "is not bound to default/data"),
        (exotic, "of kind rbd is not supported"),
        (away, "the cloud is not reachable"),
        (lambda meta: None, "there is no directory /nowhere/at/all"),
    ],
)
async def test_what_is_wrong_with_a_claim_is_said(
    meta: FakeMeta, volumes: VolumeManager, spoil: Callable[[FakeMeta], None], words: str
) -> None:
    put(meta, local={"path": "/nowhere/at/all"})
    spoil(meta)
    with pytest.raises(RuntimeFailure, match=words) as failure:
        await volumes.mount(pod_with_claim(), FACTS)
    assert failure.value.reason == "FailedMount"


def test_lost_and_raw_claims_are_refused() -> None:
    with pytest.raises(RuntimeFailure, match="not bound"):
        volume_name(claim(phase="Lost"), "data")
    with pytest.raises(RuntimeFailure, match="raw block"):
        volume_name({"spec": {"volumeName": "x", "volumeMode": "Block"}}, "data")
    assert volume_name(claim(phase="Bound"), "data") == "pv1"


def test_mount_options_of_an_nfs_volume_are_kept() -> None:
    pv = volume(nfs={"server": "s", "path": "/e", "readOnly": True}, mountOptions=["nfsvers=4.1", "hard"])
    found = claimed_volume(pv, claim(), "default", "data")
    assert (found.kind, found.readonly, found.options) == ("nfs", True, ("nfsvers=4.1", "hard"))


async def test_an_nfs_export_is_mounted_by_the_system_and_its_words_are_passed_on(
    volumes: VolumeManager, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = tmp_path / "bin" / "mount"
    program.parent.mkdir()
    program.write_text(f'#!/bin/sh\necho "$@" >>{tmp_path}/calls\necho "mount.nfs: no route" >&2\nexit 32\n')
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(program.parent), prepend=":")
    source = {"server": "10.9.9.9", "path": "/export", "readOnly": True}
    pod = encoded(make_pod("a", container("c", "x"), volumes=[{"name": "v", "nfs": source}]))
    with pytest.raises(RuntimeFailure, match="mounting 10.9.9.9:/export: mount.nfs: no route"):
        await volumes.mount(pod, FACTS)
    target = tmp_path / "root/pods/uid-a/volumes/kubernetes.io~nfs/v"
    assert (tmp_path / "calls").read_text() == f"-t nfs -o ro 10.9.9.9:/export {target}\n"


async def test_nothing_is_deleted_below_a_mount_that_does_not_go(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "pod" / "nfs").mkdir(parents=True)
    (tmp_path / "pod" / "nfs" / "precious").touch()
    monkeypatch.setattr("edgehive.edge.volumes_files.mounts_below", lambda directory: [f"{directory}/nfs"])

    async def busy(_: str) -> None:
        return None

    monkeypatch.setattr("edgehive.edge.volumes_files._unmount", busy)
    with pytest.raises(OSError, match="still mounted"):
        await remove_tree(tmp_path / "pod")
    assert (tmp_path / "pod" / "nfs" / "precious").exists()


async def test_the_loop_goes_on_while_an_nfs_server_does_not_answer(
    volumes: VolumeManager, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = tmp_path / "mount"
    program.write_text("#!/bin/sh\nexec /bin/sleep 60\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    monkeypatch.setattr("edgehive.edge.volumes_nfs._TIMEOUT", 0.1)
    source = {"server": "10.9.9.9", "path": "/export"}
    pod = encoded(make_pod("a", container("c", "x"), volumes=[{"name": "v", "nfs": source}]))
    ticks = 0

    async def tick() -> None:
        nonlocal ticks
        while True:
            await asyncio.sleep(0.01)
            ticks += 1

    async with asyncio.TaskGroup() as group:
        ticker = group.create_task(tick())
        with pytest.raises(RuntimeFailure, match="no answer"):
            await volumes.mount(pod, FACTS)
        ticker.cancel()
    assert ticks > 3


async def test_a_claim_that_is_made_with_its_pod_must_be_that_pod_s(
    meta: FakeMeta, volumes: VolumeManager, tmp_path: Path
) -> None:
    one = container("c", "x", volumeMounts=[{"name": "v", "mountPath": "/data"}])
    pod = encoded(make_pod("a", one, volumes=[{"name": "v", "ephemeral": {"volumeClaimTemplate": {}}}]))
    found = claim()
    meta.objects["persistentvolumeclaim", "default", "a-v"] = found
    meta.objects["persistentvolume", "", "pv1"] = volume(owner="a-v", local={"path": str(tmp_path)})
    with pytest.raises(RuntimeFailure, match="was not made for this pod"):
        await volumes.mount(pod, FACTS)
    found["metadata"]["ownerReferences"] = [{"kind": "Pod", "uid": "uid-a", "controller": True}]
    await volumes.mount(pod, FACTS)
    (mount,) = volumes.mounts(pod, pod.spec.containers[0], {}, held=False)
    assert mount.host_path == str(tmp_path)
