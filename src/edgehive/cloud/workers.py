"""`cloudcore --workers N`: N cloudcores that share the ports of one, under a small parent.

Each worker is a whole instance: its own watch caches, its own sessions. The kernel deals the connections out
(SO_REUSEPORT), and what several instances owe each other, the records in the cluster settle. The parent restarts a
worker that dies, answers the monitor port for all of them, and takes them along when it ends: each holds one end of
a socket pair whose other end is the parent's.
"""

import asyncio
import contextlib
import logging
import os
import shutil
import socket
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Final

import msgspec

from edgehive.aio.http import HttpServer, Request, Response
from edgehive.aio.supervise import Service, supervise
from edgehive.cloud.config import CloudCoreConfig
from edgehive.cloud.config_load import split_address
from edgehive.kit.errors import Transient, UserError

log = logging.getLogger(__name__)

_STOP_SECONDS: Final = 15.0
_ASK_SECONDS: Final = 5.0
_MAX_ANSWER: Final = 64 << 20
_TEXT: Final = {"content-type": "text/plain; charset=utf-8"}
_JSON: Final = {"content-type": "application/json"}
_PROMETHEUS: Final = {"content-type": "text/plain; version=0.0.4; charset=utf-8"}


class WorkerPool:
    """The parent."""

    def __init__(
        self,
        config: CloudCoreConfig,
        *,
        count: int,
        arguments: Sequence[str],
        on_ready: Callable[[str], None] | None = None,
    ) -> None:
        """Take the configuration; `arguments` are those of the workers' command line."""
        self._config = config
        self._arguments = tuple(arguments)
        self._on_ready = on_ready
        self._first_ready = asyncio.Event()
        self._folder = Path(tempfile.mkdtemp(prefix="cloudcore-workers-"))  # for their account alone
        self.workers: Final = [Worker(index, self._arguments, self._folder) for index in range(count)]

    async def run(self) -> None:
        """Run the workers until cancelled.

        Raises:
            UserError: a port is taken or not fixed, or a worker cannot start.
        """
        try:
            await self._run()
        finally:
            shutil.rmtree(self._folder, ignore_errors=True)

    async def _run(self) -> None:
        hub, stream = self._config.modules.cloud_hub, self._config.modules.cloud_stream
        for name, where in (("websocket", hub.websocket), ("https", hub.https)):
            if where.enable:
                _require_free(name, where.address, where.port)
        if stream.enable:
            _require_free("tunnel", hub.websocket.address, stream.tunnel_port)
            _require_free("stream", hub.websocket.address, stream.stream_port)
        bind = split_address(self._config.common_config.monitor_server.bind_address)
        assert bind is not None, "checked by the configuration"
        server = HttpServer(self.handle, name="monitor")
        try:
            await server.listen(*bind)
        except OSError as exc:
            raise UserError(f"the monitor port {bind[0]}:{bind[1]} cannot be opened: {exc.strerror}") from exc
        await supervise(
            Service("monitor", server.run),
            Service("readiness", self._announce, once=True),
            *(Service(f"worker {w.index}", lambda w=w: self._keep(w)) for w in self.workers),  # type: ignore[misc]
        )

    async def _keep(self, worker: "Worker") -> None:
        # The first makes keys and CRDs where there are none; the others find them.
        if worker.index:
            await self.workers[0].ever_ready.wait()
        await worker.run()

    async def _announce(self) -> None:
        for worker in self.workers:
            await worker.ever_ready.wait()
        log.info("ready: %d workers", len(self.workers))
        if self._on_ready is not None:
            self._on_ready(f"{len(self.workers)} workers")

    # -- the monitor port

    async def handle(self, request: Request) -> Response:
        """Answer for all workers."""
        if request.method not in ("GET", "HEAD"):
            return Response(405, b"method not allowed\n", {**_TEXT, "allow": "GET"})
        match request.path:
            case "/metrics":
                return Response(200, await self._metrics(), dict(_PROMETHEUS))
            case "/healthz" | "/livez":
                return Response(200, b"ok", dict(_TEXT))
            case "/readyz":
                return await self._readiness()
            case "/debug/trace":
                query = f"?{request.raw_query}" if request.raw_query else ""
                return await self._trace(f"/debug/trace{query}")
            case _:
                return Response(404, b"not found\n", dict(_TEXT))

    async def _ask(self, path: str) -> list[tuple[int, bytes]]:
        """The answers of the workers that have one; 0 for the others."""
        answers: list[tuple[int, bytes]] = [(0, b"")] * len(self.workers)

        async def ask(worker: Worker) -> None:
            with contextlib.suppress(OSError, TimeoutError, ValueError, EOFError):
                answers[worker.index] = await _get(worker.monitor, path)

        async with asyncio.TaskGroup() as group:
            for worker in self.workers:
                if worker.monitor:
                    group.create_task(ask(worker))
        return answers

    async def _metrics(self) -> bytes:
        answers = await self._ask("/metrics")
        texts = {str(index): body.decode() for index, (status, body) in enumerate(answers) if status == 200}
        own = [
            "# HELP edgehive_workers Workers that serve",
            "# TYPE edgehive_workers gauge",
            f"edgehive_workers {sum(bool(worker.monitor) for worker in self.workers)}",
            "# HELP edgehive_worker_restarts_total Workers that ended and were started again",
            "# TYPE edgehive_worker_restarts_total counter",
            f"edgehive_worker_restarts_total {sum(worker.restarts for worker in self.workers)}",
        ]
        return ("\n".join([*own, *merge_metrics(texts)]) + "\n").encode()

    async def _readiness(self) -> Response:
        lines = []
        for index, (status, body) in enumerate(await self._ask("/readyz")):
            if status != 200:
                said = body.decode(errors="replace").strip().replace("\n", "; ") or "does not answer"
                lines.append(f"[-] worker {index}: {said}\n")
        return (
            Response(503, "".join(lines).encode(), dict(_TEXT))
            if lines
            else Response(200, b"ok", dict(_TEXT))
        )

    async def _trace(self, path: str) -> Response:
        rows: list[Any] = []
        wanted = ""
        for index, (status, body) in enumerate(await self._ask(path)):
            if status == 400:
                return Response(400, body, dict(_TEXT))
            if status == 200:
                found = msgspec.json.decode(body)
                wanted = found["wanted"] or wanted
                rows += [{**row, "worker": index} for row in found["nodes"]]
        return Response(200, msgspec.json.encode({"wanted": wanted, "nodes": rows}), dict(_JSON))


class Worker:
    """One child process."""

    def __init__(self, index: int, arguments: Sequence[str], folder: Path) -> None:
        self.index: Final = index
        self.monitor = 0
        """Its monitor's port while it serves; 0 otherwise."""
        self.restarts = 0
        self.ever_ready: Final = asyncio.Event()
        self._arguments = arguments
        self._folder = folder

    async def run(self) -> None:
        """Start it and wait for its end, which is a `Transient` failure.

        Raises:
            Transient: it ended; start it again.
            UserError: it ended before it had ever served.
        """
        ours, theirs = socket.socketpair()
        with ours:
            with theirs:
                process = await self._spawn(theirs.fileno())
            try:
                await self._watch(ours, process)
            finally:
                self.monitor = 0
                await _end(process)
        if not self.ever_ready.is_set():
            raise UserError(
                f"worker {self.index} ended with code {process.returncode} before it served",
                hint="it says why above",
            )
        self.restarts += 1
        raise Transient(f"ended with code {process.returncode}")

    async def _spawn(self, descriptor: int) -> asyncio.subprocess.Process:
        environment = {key: value for key, value in os.environ.items() if key != "NOTIFY_SOCKET"}
        return await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "edgehive",
            "cloudcore",
            *self._arguments,
            f"--worker={self.index}:{descriptor}:{self._folder}",
            pass_fds=(descriptor,),
            env=environment,
        )

    async def _watch(self, ours: socket.socket, process: asyncio.subprocess.Process) -> None:
        reader, writer = await asyncio.open_connection(sock=ours.dup())
        try:
            line = await reader.readline()
            if line.strip().isdigit():
                self.monitor = int(line)
                self.ever_ready.set()
            await process.wait()
        finally:
            writer.close()


async def run_worker(config: CloudCoreConfig, index: int, descriptor: int, folder: Path) -> None:
    """A worker's own life: serve until cancelled or until the parent is gone."""
    from edgehive.cloud.app import CloudCore
    from edgehive.cloud.stream_app import WorkerPlace

    with socket.socket(fileno=descriptor) as link:
        link.setblocking(False)
        reader, writer = await asyncio.open_connection(sock=link.dup())

        def ready(_: str) -> None:
            writer.write(f"{core.ports.monitor}\n".encode())

        core = CloudCore(config, on_ready=ready, worker=WorkerPlace(index, folder))
        try:
            async with asyncio.TaskGroup() as group:
                serving = group.create_task(core.run())
                group.create_task(_until_gone(reader, serving))
        finally:
            writer.close()


async def _until_gone(reader: asyncio.StreamReader, serving: asyncio.Task[None]) -> None:
    with contextlib.suppress(OSError):
        await reader.read()
    log.warning("the parent is gone: stopping")
    serving.cancel()


async def _end(process: asyncio.subprocess.Process) -> None:
    if process.returncode is not None:
        return
    with contextlib.suppress(ProcessLookupError):
        process.terminate()
    try:
        async with asyncio.timeout(_STOP_SECONDS):
            await process.wait()
    except TimeoutError:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.wait()


def _require_free(name: str, host: str, port: int) -> None:
    """With shared ports a second cloudcore would take half of the first one's edges, silently."""
    if not port:
        raise UserError(f"workers share the {name} port, which must be a fixed one, not 0")
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            sock.bind((host, port))
        except OSError as exc:
            raise UserError(
                f"the {name} port {host}:{port} cannot be opened: {exc.strerror or exc}",
                hint="another cloudcore may be running; ports are set in the configuration file",
            ) from exc


async def _get(port: int, path: str) -> tuple[int, bytes]:
    """One plain GET of loopback."""
    async with asyncio.timeout(_ASK_SECONDS):
        reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=1 << 20)
        try:
            writer.write(f"GET {path} HTTP/1.1\r\nHost: worker\r\nConnection: close\r\n\r\n".encode())
            head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").lower()
            length = next(
                (
                    int(line.partition(":")[2])
                    for line in head.split("\r\n")
                    if line.startswith("content-length:")
                ),
                0,
            )
            if length > _MAX_ANSWER:
                raise ValueError("an answer of impossible length")
            return int(head.split(" ", 2)[1]), await reader.readexactly(length)
        finally:
            writer.close()


def merge_metrics(texts: dict[str, str]) -> Iterator[str]:
    """Join metrics texts by metric, each sample with the label ``worker``."""
    heads: dict[str, list[str]] = {}
    samples: dict[str, list[str]] = {}
    for worker, text in texts.items():
        family = ""
        for line in text.splitlines():
            if line.startswith("# "):
                family = line.split(" ", 3)[2]
                known = heads.setdefault(family, [])
                if line not in known:
                    known.append(line)
            elif line:
                samples.setdefault(family, []).append(_labelled(line, worker))
    for family, head in heads.items():
        yield from head
        yield from samples.get(family, ())


def _labelled(line: str, worker: str) -> str:
    name, _, value = line.rpartition(" ")
    label = f'worker="{worker}"'
    if name.endswith("}"):
        return f"{name[:-1]},{label}}} {value}"
    return f"{name}{{{label}}} {value}"


def worker_arguments(config: Path, verbosity: int, log_format: str) -> list[str]:
    """The command line of a worker."""
    return [f"--config={config}", f"--v={verbosity}", f"--log-format={log_format}"]
