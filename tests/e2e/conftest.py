"""Installations for the end-to-end tests: one shared by a module, or one of a test's own."""

import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.support.containerd import Containerd, why_not
from tests.support.installation import Installation, eventually, find_kubectl, installation


@pytest.fixture(scope="session", autouse=True)
def _kubectl() -> None:
    if not find_kubectl():
        pytest.skip("there is no kubectl; make installs one")


@pytest.fixture(scope="module")
def short_dir() -> Iterator[Path]:
    """A directory whose path leaves room for socket names."""
    path = Path(tempfile.mkdtemp(prefix="eh-"))
    yield path
    shutil.rmtree(path, ignore_errors=True)


@pytest.fixture(scope="module")
def up(short_dir: Path) -> Iterator[Installation]:
    """A running installation with one edge and the process runtime, shared by the module's tests."""
    with installation(short_dir / "shared", "--runtime=process") as made:
        made.start()
        yield made


@pytest.fixture(scope="module", params=["process", pytest.param("containerd", marks=pytest.mark.containerd)])
def either(request: pytest.FixtureRequest, short_dir: Path) -> Iterator[Installation]:
    """A running installation with one edge, on processes and then on a containerd of its own."""
    flags = ["--runtime=process"]
    box = None
    if request.param == "containerd":
        if reason := why_not():
            pytest.skip(reason)
        box = Containerd(short_dir / "c")
    try:
        if box is not None:
            box.start()
            flags = ["--runtime=cri", f"--cri-socket={box.socket}"]
        with installation(short_dir / f"up-{request.param}", *flags) as made:
            made.start()
            yield made
            made.kubectl("delete", "pods", "--all", "--wait=false", check=False)
            eventually(lambda: not made.get("pods")["items"], seconds=40, what="the pods are gone")
    finally:
        if box is not None:
            box.stop()


@pytest.fixture
def make_installation(tmp_path: Path) -> Iterator[Callable[..., Installation]]:
    """Installations of the test's own."""
    with ExitStack() as stack:

        def make(name: str = "own", *flags: str) -> Installation:
            return stack.enter_context(installation(tmp_path / name, *(flags or ("--runtime=process",))))

        yield make
