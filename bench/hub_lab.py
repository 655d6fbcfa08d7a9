"""What `bench.hub` measures: an embedded control plane, a cloudcore on it (ours or the original), a client."""

import asyncio
import contextlib
import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import msgspec
import yaml

from edgehive.aio.informer import Informer
from edgehive.aio.kubeauth import load_kubeconfig
from edgehive.aio.kubeclient import KubeClient
from edgehive.cli.gettoken import fetch_token
from edgehive.kit.errors import EdgehiveError
from edgehive.kube.api import ListOptions
from edgehive.kube.reflector import Change
from edgehive.kube.refs import CLUSTEROBJECTSYNCS, CRDS, OBJECTSYNCS
from edgehive.kube.status import ApiStatus

_REQUESTS = re.compile(r"^(\w+_requests?_total)\{([^}]*)\} ([0-9.e+]+)$")


def free_ports(count: int) -> list[int]:
    """Ports that are free now."""
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in sockets]


def cpu(pids: list[int]) -> float:
    """CPU seconds of processes, to the nanosecond, children that have ended aside."""
    total = 0
    for pid in pids:
        for path in Path(f"/proc/{pid}/task").iterdir():
            with contextlib.suppress(OSError):
                total += int((path / "schedstat").read_text(encoding="ascii").split()[0])
    return total / 1e9


def resident(pids: list[int]) -> float:
    """Resident memory in KiB; what processes share counts in each of them by its share."""
    total = 0
    for pid in pids:
        text = Path(f"/proc/{pid}/smaps_rollup").read_text(encoding="ascii")
        total += sum(int(kib) for kib in re.findall(r"^Pss: +(\d+)", text, re.M))
    return float(total)


class Process:
    """A child process with its log."""

    def __init__(self, arguments: list[str], log: Path, env: dict[str, str] | None = None) -> None:
        with log.open("ab") as out:
            self._child = subprocess.Popen(
                arguments, stdout=out, stderr=subprocess.STDOUT, env={**os.environ, **(env or {})}
            )
        self.log = log

    @property
    def pids(self) -> list[int]:
        """The process and what it has started."""
        found = [self._child.pid]
        for pid in found:
            with contextlib.suppress(OSError):
                for path in Path(f"/proc/{pid}/task").glob("*/children"):
                    found += map(int, path.read_text(encoding="ascii").split())
        return found

    @property
    def alive(self) -> bool:
        """Whether it runs."""
        return self._child.poll() is None

    def stop(self, number: signal.Signals = signal.SIGTERM) -> None:
        """End it."""
        if self.alive:
            self._child.send_signal(number)
        try:
            self._child.wait(20)
        except subprocess.TimeoutExpired:
            self._child.kill()
            self._child.wait()


class Lab:
    """One control plane and one cloudcore, in a directory of their own."""

    def __init__(self, root: Path, *, go: str = "", go_crds: str = "", workers: int = 1) -> None:
        self.root = root
        self._go = go
        self._go_crds = go_crds
        self._workers = workers
        self.api_port, self.ws, self.https, self.quic, self.monitor = free_ports(5)
        self.cloud: Process | None = None
        self.plane: Process | None = None
        self.kubeconfig = root / "kubeconfig"
        self.cloud_kubeconfig = self.kubeconfig
        """Whose rights cloudcore has: the administrator's, unless it is set."""
        self.token = ""
        self.hub: dict[str, Any] = {}
        """More settings of ``modules.cloudHub``, for the next start."""
        self.modules: dict[str, Any] = {}
        """More of ``modules``, for the next start."""
        self.edgehive: dict[str, Any] = {}
        """Settings under ``edgehive``, for the next start."""
        self.recorded: dict[str, int] = {}
        """The recorded version by the record's name, while `watching_records`."""

    async def __aenter__(self) -> "Lab":
        self.root.mkdir(parents=True, exist_ok=True)
        self.plane = Process(
            [
                sys.executable, "-m", "edgehive", "control-plane", f"--data-dir={self.root / 'control-plane'}",
                f"--port={self.api_port}", f"--kubeconfig={self.kubeconfig}", "--v=1",
            ],
            self.root / "control-plane.log",
        )  # fmt: skip
        await self._until(self.kubeconfig.exists, "the control plane")
        self.api = KubeClient(
            load_kubeconfig(str(self.kubeconfig)), user_agent="bench", qps=10000, burst=20000
        )
        await self.api.__aenter__()
        await self._until_async(self._api_ready, "the control plane")
        if self._go_crds:
            await self._install_crds(Path(self._go_crds))
        return self

    async def __aexit__(self, *_: object) -> None:
        self.stop_cloud()
        await self.api.__aexit__(None, None, None)
        if self.plane is not None:
            self.plane.stop()

    async def start_cloud(self) -> None:
        """Start cloudcore and wait until it can be joined."""
        config = self.root / "cloudcore.yaml"
        if self._go:
            config.write_text(yaml.safe_dump(self._go_config()))
            command = [self._go, f"--config={config}"]
        else:
            config.write_text(json.dumps(self._config()))
            command = [sys.executable, "-m", "edgehive", "cloudcore", f"--config={config}", "--v=1"]
            if self._workers > 1:
                command.append(f"--workers={self._workers}")
        self.cloud = Process(command, self.root / "cloudcore.log", {"KUBECONFIG": str(self.cloud_kubeconfig)})
        await self._until(self._listening, "cloudcore")
        if not self.token:
            self.token = await fetch_token(str(self.kubeconfig), 30.0)

    def stop_cloud(self, number: signal.Signals = signal.SIGTERM) -> None:
        """End cloudcore."""
        if self.cloud is not None:
            self.cloud.stop(number)
            self.cloud = None

    @property
    def pids(self) -> list[int]:
        """cloudcore's processes."""
        assert self.cloud is not None
        return self.cloud.pids

    async def record_requests(self) -> int:
        """Requests about ObjectSyncs that the API server has answered, lists and watches aside."""
        text = (await self.api.raw("/metrics")).decode()
        total = 0.0
        for line in text.splitlines():
            match = _REQUESTS.match(line)
            if match is None:
                continue
            labels = match.group(2)
            if "objectsyncs" in labels and not re.search(r'verb="(list|watch|LIST|WATCH)"', labels):
                total += float(match.group(3))
        return int(total)

    async def metric(self, name: str) -> float:
        """One figure of cloudcore's own, a metric without labels."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self.monitor)
        writer.write(b"GET /metrics HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        text = (await reader.read()).decode()
        writer.close()
        found = re.search(rf"^{name} ([0-9.e+]+)$", text, re.M)
        if found is None:
            raise LookupError(name)
        return float(found.group(1))

    async def records(self) -> dict[str, int]:
        """The recorded version by the record's name."""
        found: dict[str, int] = {}
        for gvr in (OBJECTSYNCS, CLUSTEROBJECTSYNCS):
            token = ""
            while True:
                page = await self.api.list(gvr, ListOptions(limit=2000, continue_token=token))
                for raw in page.items:
                    record = msgspec.json.decode(raw)
                    version = (record.get("status") or {}).get("objectResourceVersion") or "0"
                    found[record["metadata"]["name"]] = int(version)
                token = page.continue_token
                if not token:
                    break
        return found

    @contextlib.asynccontextmanager
    async def watching_records(self) -> AsyncIterator[None]:
        """Keep `recorded` current, at the cost of one watch."""
        informer = Informer(api=self.api, gvr=OBJECTSYNCS)

        def note(change: Change) -> None:
            status = msgspec.json.decode(change.object.raw).get("status") or {}
            version = status.get("objectResourceVersion") or "0"
            self.recorded[change.object.meta.name] = int(version) if change.type != "DELETED" else -1

        informer.subscribe(note)
        async with asyncio.TaskGroup() as group:
            task = group.create_task(informer.run())
            try:
                await informer.synced()
                yield
            finally:
                task.cancel()

    def _listening(self) -> bool:
        assert self.cloud is not None
        if not self.cloud.alive:
            tail = self.cloud.log.read_text(errors="replace")[-2000:]
            raise RuntimeError(f"cloudcore ended:\n{tail}")
        for port in (self.ws, self.https):
            try:
                socket.create_connection(("127.0.0.1", port), 0.2).close()
            except OSError:
                return False
        return True

    async def _api_ready(self) -> bool:
        try:
            await self.api.list(CRDS)
        except EdgehiveError:
            return False
        return True

    async def _install_crds(self, folder: Path) -> None:
        for path in sorted(folder.rglob("*.yaml")):
            for document in yaml.safe_load_all(path.read_text()):
                if document and document.get("kind") == "CustomResourceDefinition":
                    document.pop("status", None)
                    with contextlib.suppress(ApiStatus):
                        await self.api.create(CRDS, msgspec.json.encode(document))
        await asyncio.sleep(1.0)

    @staticmethod
    async def _until(check: Any, what: str, seconds: float = 60.0) -> None:
        deadline = time.monotonic() + seconds
        while not check():
            if time.monotonic() > deadline:
                raise TimeoutError(f"{what} did not start within {seconds:.0f} s")
            await asyncio.sleep(0.01)

    @staticmethod
    async def _until_async(check: Any, what: str, seconds: float = 60.0) -> None:
        deadline = time.monotonic() + seconds
        while not await check():
            if time.monotonic() > deadline:
                raise TimeoutError(f"{what} did not start within {seconds:.0f} s")
            await asyncio.sleep(0.05)

    def _config(self) -> dict[str, Any]:
        pki = self.root / "pki"
        return {
            "commonConfig": {"monitorServer": {"bindAddress": f"127.0.0.1:{self.monitor}"}},
            "kubeAPIConfig": {"kubeConfig": str(self.cloud_kubeconfig)},
            "modules": {
                "cloudHub": {
                    "nodeLimit": 100_000,
                    "advertiseAddress": ["127.0.0.1"],
                    "tlsCAFile": str(pki / "ca.crt"),
                    "tlsCAKeyFile": str(pki / "ca.key"),
                    "tlsCertFile": str(pki / "server.crt"),
                    "tlsPrivateKeyFile": str(pki / "server.key"),
                    "websocket": {"address": "127.0.0.1", "port": self.ws},
                    "https": {"address": "127.0.0.1", "port": self.https},
                    **self.hub,
                },
                **self.modules,
            },
            "edgehive": self.edgehive,
        }

    def _go_config(self) -> dict[str, Any]:
        text = subprocess.run(
            [self._go, "--defaultconfig"], capture_output=True, text=True, check=True
        ).stdout
        config: dict[str, Any] = yaml.safe_load(text)
        config["kubeAPIConfig"]["kubeConfig"] = str(self.kubeconfig)
        config["commonConfig"]["monitorServer"]["bindAddress"] = f"127.0.0.1:{self.monitor}"
        modules = config["modules"]
        hub = modules["cloudHub"]
        hub["nodeLimit"] = 10_000
        hub["advertiseAddress"] = ["127.0.0.1"]
        hub["websocket"]["port"], hub["https"]["port"], hub["quic"]["port"] = self.ws, self.https, self.quic
        hub["unixsocket"] = {"enable": False, "address": f"unix://{self.root}/k.sock"}
        for key, name in (
            ("tlsCAFile", "ca.crt"),
            ("tlsCAKeyFile", "ca.key"),
            ("tlsCertFile", "server.crt"),
            ("tlsPrivateKeyFile", "server.key"),
        ):
            hub[key] = str(self.root / "pki" / name)
        modules["iptablesManager"] = {"enable": False, "mode": "external"}
        return config
