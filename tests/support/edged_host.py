"""Edged alone in a process, to be killed by tests: ``python -m tests.support.edged_host DIRECTORY ENDPOINT SETTINGS``.

Reads ``want.json`` (pods, objects, connected) whenever it changes; writes ``got.json`` (pods, deleted, events).
"""

import asyncio
import json
import logging
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from edgehive.edge.metaclient import Change, PodChange
from edgehive.edge.plugins import NodePlugins
from edgehive.edge.pods_manager import PodManager
from edgehive.edge.pods_runtime import open_runtime
from edgehive.edge.pods_settings import NodeFacts, PodSettings
from tests.support.fakemeta import FakeMeta


class EdgedProcess:
    """The test's side: the process and its two files."""

    def __init__(self, base: Path, endpoint: str, **settings: Any) -> None:
        """`settings` are fields of `PodSettings`."""
        self.base = base
        self.settings = {"default_pod_network": "host"} | settings
        self.endpoint = endpoint
        self.want: dict[str, Any] = {"pods": [], "objects": [], "connected": True}
        self._process: subprocess.Popen[bytes] | None = None
        base.mkdir(parents=True, exist_ok=True)
        self.write()

    def write(self) -> None:
        self.want["generation"] = self.want.get("generation", 0) + 1
        temporary = self.base / "want.tmp"
        temporary.write_text(json.dumps(self.want))
        temporary.rename(self.base / "want.json")

    def start(self) -> None:
        (self.base / "got.json").unlink(missing_ok=True)
        log = (self.base / "edged.log").open("ab")
        self._process = subprocess.Popen(
            [
                sys.executable,
                "-m",
                "tests.support.edged_host",
                str(self.base),
                self.endpoint,
                json.dumps(self.settings),
            ],
            stdout=log,
            stderr=log,
            cwd=Path(__file__).parents[2],
        )
        log.close()

    def kill(self) -> None:
        """SIGKILL."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    def got(self) -> dict[str, Any]:
        try:
            return json.loads((self.base / "got.json").read_text())
        except OSError:
            return {"pods": {}, "deleted": [], "events": []}

    def here(self) -> list[str] | None:
        """The pods edged has, or None while it has not acted on the last `write`."""
        got = self.got()
        return got["here"] if got.get("generation") == self.want["generation"] else None

    def status(self, name: str) -> dict[str, Any]:
        return self.got()["pods"].get(f"default/{name}", {}).get("status", {})

    def log_text(self, name: str) -> str:
        """All that the pod's containers have written so far."""
        files = sorted(self.base.glob(f"logs/default_{name}_*/*/*.log"))
        return "".join(file.read_text() for file in files)

    def wait(self, what: str, condition: Callable[[], Any], seconds: float = 20.0) -> Any:
        """Poll until `condition` holds; fail with the process's log."""
        deadline = time.monotonic() + seconds
        while not (result := condition()):
            if time.monotonic() > deadline:
                raise AssertionError(
                    f"not within {seconds:g} s: {what}\n{json.dumps(self.got(), indent=1)[-6000:]}\n"
                    + (self.base / "edged.log").read_text()[-3000:]
                )
            time.sleep(0.05)
        return result

    def wait_running(self, name: str) -> dict[str, Any]:
        """Wait until the pod is Running and Ready in this process's view; return its status."""

        def ready() -> bool:
            status = self.status(name)
            return status.get("phase") == "Running" and all(
                one["ready"] for one in status["containerStatuses"]
            )

        self.wait(f"{name} Running", ready)
        return self.status(name)


async def serve(base: Path, endpoint: str, given: dict[str, Any]) -> None:
    """Run edged over the two files."""
    meta = FakeMeta()
    want = json.loads((base / "want.json").read_text())
    runtime = open_runtime(endpoint, node_ip="127.0.0.1", root_directory=base / "root", clock=time.time)
    settings = PodSettings(root_directory=base / "root", log_directory=base / "logs", **given)
    manager = PodManager(
        runtime=runtime,
        meta=meta,
        node=NodeFacts("edge1", "127.0.0.1", 2.0, 4 << 30),
        settings=settings,
        plugins=NodePlugins(base / "root"),
    )
    _apply(meta, want)
    async with asyncio.TaskGroup() as group:
        group.create_task(manager.run())
        group.create_task(_follow(meta, manager, base, want["generation"]))


def _apply(meta: FakeMeta, want: dict[str, Any]) -> None:
    meta.connected = want["connected"]
    for kind, namespace, name, body in want["objects"]:
        old = meta.objects.get((kind, namespace, name))
        if old is None or {k: old.get(k) for k in body} != body:
            meta.put_object(kind, namespace, name, **body)
    rows = {}
    for pod in want["pods"]:
        key = (pod["metadata"]["namespace"], pod["metadata"]["name"])
        old_row = meta.rows.get(key)
        if old_row is not None and old_row["metadata"]["uid"] == pod["metadata"]["uid"]:
            pod = pod | {"status": old_row["status"]}
        rows[key] = pod
    meta.rows = rows
    for callback in meta._pods:
        callback(PodChange(Change.SET))


async def _follow(meta: FakeMeta, manager: PodManager, base: Path, generation: int) -> None:
    while True:
        await asyncio.sleep(float(os.environ.get("EDGED_POLL", "0.05")))
        want = json.loads((base / "want.json").read_text())
        fresh = want["generation"] != generation
        if fresh:
            generation = want["generation"]
            _apply(meta, want)
            await asyncio.sleep(0.02)  # the manager takes the change
        pods = {f"{namespace}/{name}": pod for (namespace, name), pod in meta.rows.items()}
        got = {
            "pods": pods if manager.ready else {},
            "generation": generation if manager.ready else 0,
            "deleted": meta.deleted,
            "events": [[e["involvedObject"]["name"], e["reason"], e["message"]] for e in meta.events],
            "here": [pod.key for pod, _ in manager.pods()],
        }
        temporary = base / "got.tmp"
        temporary.write_text(json.dumps(got))
        temporary.rename(base / "got.json")


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO)
    asyncio.run(serve(Path(sys.argv[1]), sys.argv[2], json.loads(sys.argv[3])))
