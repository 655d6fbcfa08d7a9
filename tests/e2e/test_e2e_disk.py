"""A full disk below everything: what cannot be stored is refused, nothing is lost, and it goes on afterwards."""

import contextlib
import json
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.installation import Installation, eventually, installation
from tests.support.manifests import configmap, deployment

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(180)]


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 48 MiB."""
    if os.geteuid() != 0:
        pytest.skip("mounting a small file system needs root")
    place = tmp_path / "small"
    place.mkdir()
    done = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=48m", "tmpfs", place], capture_output=True, check=False
    )
    if done.returncode != 0:
        pytest.skip(f"no tmpfs here: {done.stderr.decode()}")
    yield place
    subprocess.run(["umount", "-l", place], check=True)


def fill(path: Path) -> None:
    """Take every byte that is left."""
    with path.open("wb", buffering=0) as file, contextlib.suppress(OSError):
        while True:
            file.write(b"\0" * 4096)


def test_a_full_disk_refuses_writes_and_loses_nothing(small_disk: Path):
    with installation(small_disk / "up", "--runtime=process") as up:
        up.start()
        up.apply(configmap("before", a="1"), deployment("steady"))
        (pod,) = up.running("app=steady", 1)
        processes = up.processes()
        fill(small_disk / "ballast")
        refusals = [_try(up, configmap(f"big-{i}", a="x" * 200_000)) for i in range(3)]
        assert any(refusals), "a write that cannot be stored is not confirmed"
        assert all("Traceback" not in text for text in refusals)
        assert up.get("configmap", "before")["data"] == {"a": "1"}, "reading goes on"
        (small_disk / "ballast").unlink()

        def stored() -> bool:
            up.apply(configmap("after", a="2"))
            return bool(up.get("configmap", "after")["data"] == {"a": "2"})

        eventually(stored, seconds=60, what="writes are taken again")
        names = {item["metadata"]["name"] for item in up.get("configmaps")["items"]}
        assert {f"big-{i}" for i, text in enumerate(refusals) if not text} <= names, (
            "what was confirmed is there"
        )
        up.kubectl("scale", "deployment/steady", "--replicas=2")
        pods = up.running("app=steady", 2, seconds=60)
        assert pod["metadata"]["uid"] in {p["metadata"]["uid"] for p in pods}
        assert up.processes().keys() == processes.keys()
        assert up.interrupt() == 0


def _try(up: Installation, body: dict) -> str:
    """Create it; return what kubectl says against it, nothing if it is created."""
    output = up.kubectl("create", "-f", "-", stdin=json.dumps(body), check=False)
    return "" if output.endswith("created\n") else output
