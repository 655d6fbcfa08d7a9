"""Volumes: their content, the one-step update, the checks; on the real file system."""

import asyncio
import base64
import os
import stat
import threading
from pathlib import Path
from typing import Any

import msgspec
import pytest

from edgehive.edge.env import PodFacts
from edgehive.edge.pods_objects import PodObjects
from edgehive.edge.pods_settings import NodeFacts
from edgehive.edge.pods_spec import Pod, parse_pod
from edgehive.edge.runtime import RuntimeFailure
from edgehive.edge.volumes import VolumeManager
from edgehive.edge.volumes_content import FileContent
from edgehive.edge.volumes_files import check_host_path, remove_tree, write_files
from tests.support.fakemeta import FakeMeta, container, make_pod

FACTS = PodFacts(NodeFacts("edge1", "10.0.0.1", 4.0, 8 << 30), "10.1.0.9")


def content(**files: bytes) -> dict[str, FileContent]:
    return {name: FileContent(data, 0o644) for name, data in files.items()}


def pod(volumes: list[Any], mounts: list[Any] | None = None, **spec: Any) -> Pod:
    one = container("c", "x", volumeMounts=mounts or [], resources={"limits": {"cpu": "1500m"}})
    return parse_pod(msgspec.json.encode(make_pod("p", one, volumes=volumes, **spec)))


@pytest.fixture
def meta() -> FakeMeta:
    meta = FakeMeta()
    meta.put_object("configmap", "default", "cm", data={"a": "1", "b": "2"})
    meta.put_object("secret", "default", "sec", data={"pw": base64.b64encode(b"\xff\x00").decode()})
    return meta


@pytest.fixture
def manager(meta: FakeMeta, tmp_path: Path) -> Any:
    made = VolumeManager(objects=PodObjects(meta), root=tmp_path, clock=lambda: 1000.0)
    yield made
    asyncio.run(remove_tree(tmp_path / "pods"))


def _read_at(directory: int, name: str) -> bytes:
    descriptor = os.open(name, os.O_RDONLY, dir_fd=directory)
    try:
        return os.read(descriptor, 100)
    finally:
        os.close(descriptor)


def test_an_update_swaps_everything_in_one_step_under_a_reader(tmp_path: Path) -> None:
    write_files(tmp_path, content(a=b"0", b=b"0"))
    torn, stop = [], threading.Event()

    def read() -> None:
        while not stop.is_set():
            descriptor = -1
            try:
                descriptor = os.open(tmp_path / "..data", os.O_RDONLY | os.O_DIRECTORY)
                seen = [_read_at(descriptor, name) for name in ("a", "b")]
            except FileNotFoundError:
                continue  # the old directory went between two looks: whole or not at all
            finally:
                if descriptor >= 0:
                    os.close(descriptor)
            if seen[0] != seen[1]:
                torn.append(seen)

    thread = threading.Thread(target=read)
    thread.start()
    for number in range(200):
        write_files(tmp_path, content(a=b"%d" % number, b=b"%d" % number))
    stop.set()
    thread.join()
    assert not torn
    assert (tmp_path / "a").read_bytes() == b"199"


def test_the_directory_stays_and_unchanged_content_is_left_alone(tmp_path: Path) -> None:
    assert write_files(tmp_path, content(a=b"1", gone=b"x"))
    inode, data = tmp_path.stat().st_ino, (tmp_path / "..data").readlink()
    assert not write_files(tmp_path, content(a=b"1", gone=b"x"))
    assert (tmp_path / "..data").readlink() == data
    assert write_files(tmp_path, {"a": FileContent(b"2", 0o600), "sub/b": FileContent(b"3", 0o644)})
    assert tmp_path.stat().st_ino == inode
    assert not (tmp_path / "gone").is_symlink()
    assert (tmp_path / "sub" / "b").read_bytes() == b"3"
    assert stat.S_IMODE((tmp_path / "a").stat().st_mode) == 0o600
    assert len([p for p in tmp_path.iterdir() if p.name.startswith("..2")]) == 1, "the old one is removed"


async def test_every_generated_source_with_items_modes_and_optional(
    manager: VolumeManager, meta: FakeMeta
) -> None:
    volumes = [
        {"name": "cm", "configMap": {"name": "cm", "items": [{"key": "b", "path": "x/y", "mode": 0o440}]}},
        {"name": "sec", "secret": {"secretName": "sec", "defaultMode": 0o400}},
        {"name": "none", "configMap": {"name": "absent", "optional": True}},
        {
            "name": "info",
            "downwardAPI": {
                "items": [
                    {"path": "labels", "fieldRef": {"fieldPath": "metadata.labels"}},
                    {
                        "path": "cpu",
                        "resourceFieldRef": {"containerName": "c", "resource": "limits.cpu", "divisor": "1m"},
                    },
                ]
            },
        },
        {
            "name": "all",
            "projected": {
                "defaultMode": 0o640,
                "sources": [
                    {"configMap": {"name": "cm"}},
                    {"secret": {"name": "sec"}},
                    {"serviceAccountToken": {"path": "token", "expirationSeconds": 3600}},
                    {"downwardAPI": {"items": [{"path": "n", "fieldRef": {"fieldPath": "metadata.name"}}]}},
                ],
            },
        },
    ]
    made = pod(volumes)
    renew = await manager.mount(made, FACTS)
    assert renew is not None
    assert renew > 1000
    where = {v["name"]: manager.directory(made, v) for v in volumes}
    assert where["cm"].parts[-5:] == ("pods", "uid-p", "volumes", "kubernetes.io~configmap", "cm")
    assert [p.name for p in where["cm"].iterdir() if not p.name.startswith("..")] == ["x"]
    assert stat.S_IMODE((where["cm"] / "x" / "y").stat().st_mode) == 0o440
    assert (where["sec"] / "pw").read_bytes() == b"\xff\x00"
    assert stat.S_IMODE((where["sec"] / "pw").stat().st_mode) == 0o400
    assert list(where["none"].glob("[!.]*")) == []
    assert (where["info"] / "labels").read_text() == 'app="p"'
    assert (where["info"] / "cpu").read_text() == "1500"
    assert {p.name for p in where["all"].glob("[!.]*")} == {"a", "b", "pw", "token", "n"}
    assert stat.S_IMODE((where["all"] / "token").stat().st_mode) == 0o640


async def test_missing_things_are_named_and_nothing_is_made_of_them(
    manager: VolumeManager, meta: FakeMeta
) -> None:
    for source, text in [
        ({"configMap": {"name": "absent"}}, 'configmap "absent" not found'),
        (
            {"configMap": {"name": "cm", "items": [{"key": "z", "path": "z"}]}},
            "non-existent configmap key: z",
        ),
        ({"secret": {"secretName": "sec", "items": [{"key": "pw", "path": "../up"}]}}, "may not be called"),
        ({"iscsi": {"iqn": "x", "lun": 0}}, "kind iscsi are not supported"),
    ]:
        with pytest.raises(RuntimeFailure, match=text) as caught:
            await manager.mount(pod([{"name": "v"} | source]), FACTS)
        assert caught.value.reason == "FailedMount"
    meta.connected = False
    with pytest.raises(RuntimeFailure, match="not reachable"):
        await manager.mount(pod([{"name": "v", "configMap": {"name": "absent"}}]), FACTS)


async def test_what_is_mounted_stays_when_its_source_is_deleted_or_the_cloud_is_away(
    manager: VolumeManager, meta: FakeMeta
) -> None:
    volume = {"name": "v", "configMap": {"name": "cm"}}
    made = pod([volume])
    await manager.mount(made, FACTS)
    for connected in (True, False):
        meta.objects.clear()
        meta.connected = connected
        assert await manager.mount(made, FACTS) == 1060, "tried again in a minute"
        assert (manager.directory(made, volume) / "a").read_text() == "1"


@pytest.mark.skipif(os.geteuid() != 0, reason="mounting needs root")
async def test_secrets_and_memory_are_on_a_tmpfs_and_go_with_the_pod(manager: VolumeManager) -> None:
    volumes = [
        {"name": "sec", "secret": {"secretName": "sec"}},
        {"name": "mem", "emptyDir": {"medium": "Memory", "sizeLimit": "1Mi"}},
        {"name": "disk", "emptyDir": {}},
    ]
    made = pod(volumes, securityContext={"fsGroup": 4242})
    await manager.mount(made, FACTS)
    paths = [manager.directory(made, v) for v in volumes]
    assert [p.is_mount() for p in paths] == [True, True, False]
    status = os.statvfs(paths[1])
    assert status.f_blocks * status.f_frsize == 1 << 20
    assert paths[2].stat().st_gid == 4242
    assert (paths[0] / "pw").stat().st_gid == 4242
    (paths[1] / "mine").write_text("x")
    await manager.mount(made, FACTS)
    assert (paths[1] / "mine").read_text() == "x", "a second call leaves what is there"
    assert list(manager.known()) == ["uid-p"]
    await manager.teardown("uid-p")
    assert list(manager.known()) == []
    assert "uid-p" not in Path("/proc/self/mounts").read_text()


def test_host_paths_are_what_they_say(tmp_path: Path) -> None:
    file, directory = tmp_path / "f", tmp_path / "d" / "e"
    check_host_path(directory, "DirectoryOrCreate")
    check_host_path(file, "FileOrCreate")
    check_host_path(file, "File")
    check_host_path(Path("/dev/null"), "CharDevice")
    check_host_path(tmp_path / "absent", "")
    for path, kind in [
        (file, "Directory"),
        (directory, "File"),
        (tmp_path / "x", "Directory"),
        (file, "Nope"),
    ]:
        with pytest.raises(RuntimeFailure):
            check_host_path(path, kind)


async def test_mounts_follow_the_container(manager: VolumeManager) -> None:
    mounts = [
        {"name": "cm", "mountPath": "/etc/a", "subPath": "a"},
        {"name": "d", "mountPath": "/data", "subPathExpr": "$(POD)", "readOnly": True},
        {"name": "h", "mountPath": "/host", "mountPropagation": "HostToContainer"},
    ]
    volumes = [
        {"name": "cm", "configMap": {"name": "cm"}},
        {"name": "d", "emptyDir": {}},
        {"name": "h", "hostPath": {"path": "/tmp"}},
    ]
    made = pod(volumes, mounts)
    await manager.mount(made, FACTS)
    result = manager.mounts(made, made.spec.containers[0], {"POD": "p"}, held=False)
    assert [(m.container_path, m.readonly, m.propagation) for m in result] == [
        ("/etc/a", True, ""),
        ("/data", True, ""),
        ("/host", False, "rslave"),
    ]
    assert Path(result[0].host_path).read_text() == "1"
    assert result[1].host_path.endswith("kubernetes.io~empty-dir/d/p")
    with pytest.raises(RuntimeFailure, match="missing value for 'POD'"):
        manager.mounts(made, made.spec.containers[0], {}, held=False)
    with pytest.raises(RuntimeFailure, match="no volume"):
        manager.mounts(
            pod([], [{"name": "x", "mountPath": "/x"}]),
            pod([], [{"name": "x", "mountPath": "/x"}]).spec.containers[0],
            {},
        )
