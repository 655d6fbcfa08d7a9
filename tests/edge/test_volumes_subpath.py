"""Parts of volumes, with pods that swap them while a container starts; mounts and containers are real."""

import asyncio
import os
import shutil
import stat
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from edgehive.edge.cri import CriRuntime
from edgehive.edge.env import PodFacts
from edgehive.edge.pods_objects import PodObjects
from edgehive.edge.pods_settings import NodeFacts
from edgehive.edge.pods_spec import Pod, parse_pod
from edgehive.edge.programs import discard_tree, remove_directory
from edgehive.edge.runtime import Mount, RuntimeFailure, State
from edgehive.edge.volumes import VolumeManager
from edgehive.edge.volumes_files import is_mounted, mounts_below, remove_tree
from edgehive.edge.volumes_subpath import hold, identity_of, open_part, path_of
from tests.edge.test_cri_containerd import sandbox_of, start
from tests.edge.test_process_runtime import Bench
from tests.support.containerd import Containerd, why_not
from tests.support.fakemeta import FakeMeta, container, make_pod

FACTS = PodFacts(NodeFacts("edge1", "10.0.0.1", 4.0, 8 << 30), "10.1.0.9")
root_only = pytest.mark.skipif(os.geteuid() != 0, reason="mounting needs root")


def found(volume: Path, relative: str, *, create: bool = True) -> Path:
    part = open_part(volume, relative, create=create)
    try:
        return path_of(part)
    finally:
        os.close(part)


@pytest.fixture
def node() -> Iterator[Path]:
    """The directory of a node, by a path that leads over a link and has odd letters in it, as some have."""
    real = Path(tempfile.mkdtemp(prefix="ehs ü\\"))
    link = real.with_name(f"{real.name}-link")
    link.symlink_to(real)
    yield link
    left = mounts_below(real)
    assert left == []
    shutil.rmtree(real)
    link.unlink()


class Node:
    """A volume manager, a pod that has two of its parts, and data of the host that the pod has no business with."""

    def __init__(self, root: Path) -> None:
        self.root = root / "edged"
        self.data = root / "data"
        self.outside = root / "outside"
        for directory, text in ((self.data / "a", "the pod's"), (self.outside, "secret")):
            directory.mkdir(parents=True)
            (directory / "f").write_text(text)
        mounts = [
            {"name": "v", "mountPath": "/v", "subPath": "a"},
            {"name": "v", "mountPath": "/one", "subPath": "a/f"},
        ]
        volumes = [{"name": "v", "hostPath": {"path": str(self.data)}}]
        one = container("c", "x", volumeMounts=mounts)
        self.pod: Pod = parse_pod(msgspec.json.encode(make_pod("p", one, volumes=volumes)))

    @property
    def manager(self) -> VolumeManager:
        """One that has just been started."""
        return VolumeManager(objects=PodObjects(FakeMeta()), root=self.root, clock=lambda: 0.0)

    @property
    def held(self) -> list[str]:
        return mounts_below(self.root)

    def mounts(self, *, held: bool = True) -> list[Mount]:
        return self.manager.mounts(self.pod, self.pod.spec.containers[0], {}, held=held)

    def swap(self) -> None:
        """What another container of the pod does at the worst moment."""
        (self.data / "a").rename(self.data / "moved")
        (self.data / "a").symlink_to(self.outside)


def test_a_part_cannot_leave_its_volume(tmp_path: Path) -> None:
    volume = tmp_path / "v"
    volume.mkdir()
    (volume / "out").symlink_to("/etc")
    (volume / "in").symlink_to("deep")
    (volume / "round").symlink_to("about")
    (volume / "about").symlink_to("round")
    (volume / "deep").mkdir()
    assert found(volume, "in") == (volume / "deep").resolve()
    assert found(volume, ".") == volume.resolve()
    assert found(volume, "new/one").is_dir()
    for relative in (
        "out",
        "out/passwd",
        "../v2",
        "/etc",
        "a/../../b",
        "round",
        "round/x",
        "nu\0l",
        "x" * 300,
    ):
        with pytest.raises(RuntimeFailure, match="subPath"):
            found(volume, relative)
    with pytest.raises(RuntimeFailure, match="not in the volume"):
        found(volume, "absent", create=False)
    (volume / "file").touch()
    assert found(volume, "file", create=False) == volume / "file"
    with pytest.raises(RuntimeFailure, match="Not a directory"):
        found(volume, "file/below")


def test_what_is_made_can_be_written_to_by_whom_the_volume_can(tmp_path: Path) -> None:
    volume = tmp_path / "v"
    volume.mkdir()
    volume.chmod(0o2777)
    (volume / "there").mkdir(mode=0o700)
    found(volume, "there/new/one")
    modes = [stat.S_IMODE((volume / name).stat().st_mode) for name in ("there", "there/new", "there/new/one")]
    assert modes[0] & 0o777 == 0o700, "what was there stays as it is"
    assert modes[1:] == [0o2777, 0o2777]


def test_no_directory_is_made_where_a_link_has_come_in_the_way(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    volume, outside = tmp_path / "v", tmp_path / "outside"
    (volume / "a").mkdir(parents=True)
    outside.mkdir()
    resolve = Path.resolve

    def swapping(path: Path, strict: bool = False) -> Path:
        """The pod is quicker: what was looked at is a link now."""
        found = resolve(path, strict)
        if path.name == "b" and not (volume / "a").is_symlink():
            (volume / "a").rename(volume / "moved")
            (volume / "a").symlink_to(outside)
        return found

    monkeypatch.setattr(Path, "resolve", swapping)
    with pytest.raises(RuntimeFailure, match="link"):
        open_part(volume, "a/b", create=True)
    assert list(outside.iterdir()) == []


@root_only
async def test_what_is_swapped_after_the_look_is_not_what_the_runtime_is_given(node: Path) -> None:
    made = Node(node)
    await made.manager.mount(made.pod, FACTS)
    mounts = made.mounts()
    made.swap()
    assert (Path(mounts[0].host_path) / "f").read_text() == "the pod's"
    assert Path(mounts[1].host_path).read_text() == "the pod's"
    places = [Path(mount.host_path).relative_to(made.root).as_posix() for mount in mounts]
    assert places == ["pods/uid-p/volume-subpaths/v/c/0", "pods/uid-p/volume-subpaths/v/c/1"]
    with pytest.raises(RuntimeFailure, match="leads out of the volume"):
        made.mounts()
    made.manager.let_go(made.pod)
    assert made.held == []
    assert not any((made.root / "pods/uid-p/volume-subpaths/v/c").iterdir()), "a late start must fail"


@root_only
@pytest.mark.parametrize(
    "after", ["the next start", "the next look at its volumes", "the pod's end", "a reset"]
)
async def test_what_a_killed_edgecore_leaves_mounted_goes_and_no_data_with_it(node: Path, after: str) -> None:
    made = Node(node)
    await made.manager.mount(made.pod, FACTS)
    made.mounts()
    made.mounts()
    assert len(made.held) == 2, "one for each part, however often it was tried"
    match after:
        case "the next start":
            (made.data / "a" / "f").unlink()
            (made.data / "a" / "f").mkdir()  # a file before, a directory now
            again = made.mounts()
            assert Path(again[1].host_path).is_dir()
            made.manager.let_go(made.pod)
            (made.data / "a" / "f").rmdir()
            (made.data / "a" / "f").write_text("the pod's")
        case "the next look at its volumes":
            await made.manager.mount(made.pod, FACTS)
        case "the pod's end":
            await made.manager.unpublish("uid-p")
            await made.manager.teardown("uid-p")
            assert list(made.manager.known()) == []
        case _:
            await remove_tree(made.root / "pods")
    assert made.held == []
    assert (made.data / "a" / "f").read_text() == "the pod's"


@root_only
async def test_nothing_that_is_mounted_is_ever_emptied(node: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever goes wrong with taking it away, or with finding it."""
    made = Node(node)
    await made.manager.mount(made.pod, FACTS)
    made.mounts()
    pods = made.root / "pods"

    async def failing(_: str) -> None:
        return None

    monkeypatch.setattr("edgehive.edge.volumes_files._unmount", failing)
    with pytest.raises(RuntimeFailure, match="busy|mounted"):
        await made.manager.teardown("uid-p")
    monkeypatch.setattr("edgehive.edge.volumes_files.mounts_below", lambda _: [])
    with pytest.raises(OSError, match="busy"):
        await remove_tree(pods)
    discard_tree(pods)
    assert (made.data / "a" / "f").read_text() == "the pod's"
    monkeypatch.undo()
    await remove_tree(pods)
    assert not pods.exists()
    assert (made.data / "a" / "f").read_text() == "the pod's"


@root_only
async def test_without_the_right_to_mount_it_is_refused(node: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = Node(node)
    await made.manager.mount(made.pod, FACTS)

    def refused(source: str, target: Path) -> None:
        raise PermissionError(1, "Operation not permitted", str(target))

    monkeypatch.setattr("edgehive.edge.volumes_subpath._mount", refused)
    with pytest.raises(RuntimeFailure, match=r"subPath 'a' cannot be mounted: Operation not permitted"):
        made.mounts()
    assert made.mounts(held=False)[0].identity, "who mounts it himself is told what to look for"


async def test_mount_points_are_found_by_any_path(node: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("mounting needs root")
    for name in ("plain", "with space", "tab\t", "back\\slash", "ünï", "new\nline", "octal\\040"):
        (node / name).mkdir()
        part = open_part(node, name, create=False)
        hold(part, node / "at" / name, name)
        os.close(part)
        assert is_mounted(node / "at" / name)
        assert not is_mounted(node / name)
    assert len(mounts_below(node / "at")) == 7
    await remove_tree(node / "at")
    assert not (node / "at").exists()


def test_a_tree_that_is_deeper_than_paths_are_long_is_removed(tmp_path: Path) -> None:
    here = os.open(tmp_path, os.O_DIRECTORY)
    for _ in range(3000):
        os.mkdir("d" * 100, dir_fd=here)
        below = os.open("d" * 100, os.O_DIRECTORY, dir_fd=here)
        os.close(os.open("file", os.O_CREAT | os.O_WRONLY, dir_fd=here))
        os.symlink("/etc", "link", dir_fd=here)
        os.close(here)
        here = below
    os.close(here)
    discard_tree(tmp_path / "absent")
    remove_directory(tmp_path / ("d" * 100))
    assert sorted(p.name for p in tmp_path.iterdir()) == ["file", "link"]
    assert Path("/etc/passwd").exists()
    (tmp_path / "link").rename(tmp_path / "to")
    discard_tree(tmp_path / "to")
    assert (tmp_path / "to").is_symlink()


# --- containers and processes -------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def server() -> Iterator[Containerd]:
    if reason := why_not():
        pytest.skip(reason)
    with tempfile.TemporaryDirectory(prefix="ehc") as directory:
        made = Containerd(Path(directory) / "d")
        try:
            made.start()
            yield made
        finally:
            made.stop()


async def until(condition: Callable[[], Any]) -> None:
    async with asyncio.timeout(10):
        while not condition():
            await asyncio.sleep(0.02)


@pytest.mark.containerd
async def test_a_container_has_what_was_looked_at_and_keeps_it(server: Containerd, node: Path) -> None:
    """Also when the place it was given is gone, and its data directory with it."""
    made = Node(node)
    runtime = CriRuntime(endpoint=server.endpoint, node_ip="10.0.0.1")
    await made.manager.mount(made.pod, FACTS)
    mounts = made.mounts()
    made.swap()
    script = "cat /v/f /one; echo; read x </v/go; echo late >/v/late; cat /v/f; sleep 100"
    os.mkfifo(made.data / "moved" / "go")
    sandbox_id, one = await start(runtime, sandbox_of(node), script, mounts=mounts)
    try:
        made.manager.let_go(made.pod)
        assert made.held == []
        await remove_tree(made.root / "pods")
        log = node / "logs" / "c" / "0.log"
        await until(lambda: "the pod'sthe pod's" in log.read_text())
        async with asyncio.timeout(10):
            await asyncio.to_thread((made.data / "moved" / "go").write_text, "go\n")
        await until(lambda: (made.data / "moved" / "late").exists())
        assert (await runtime.container_status(one)).state is State.RUNNING
        assert "secret" not in log.read_text()
    finally:
        await runtime.stop_container(one, 0)
        await runtime.stop_sandbox(sandbox_id)
        await runtime.remove_sandbox(sandbox_id)
        await runtime.close()
    assert sorted(p.name for p in made.outside.iterdir()) == ["f"]


@root_only
@pytest.mark.parametrize("swapped", [False, True])
async def test_a_process_does_not_start_with_what_was_swapped(tmp_path: Path, swapped: bool) -> None:
    made = Node(tmp_path / "node")
    await made.manager.mount(made.pod, FACTS)
    mounts = [
        Mount(m.host_path, f"{tmp_path}/at{m.container_path}", identity=m.identity)
        for m in made.mounts(held=False)
    ]
    if swapped:
        made.swap()
    bench = Bench(tmp_path)
    try:
        script = f"cat {tmp_path}/at/v/f {tmp_path}/at/one"
        info = await bench.ended(await bench.start(script, mounts=mounts))
        if swapped:
            assert info.exit_code == 128
            assert "was swapped meanwhile" in bench.log
        else:
            assert (info.exit_code, bench.log) == (0, "the pod'sthe pod's\n")
    finally:
        for sandbox in await bench.runtime.list_sandboxes():
            await bench.runtime.remove_sandbox(sandbox.id)
        await bench.runtime.close()


def test_two_files_are_told_apart(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / name).touch()
    parts = [open_part(tmp_path, name, create=False) for name in ("a", "b", "a")]
    first, second, again = (identity_of(part) for part in parts)
    for part in parts:
        os.close(part)
    assert first == again != second
