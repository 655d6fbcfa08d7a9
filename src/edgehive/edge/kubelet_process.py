"""exec, attach and port forwarding for pods that are processes: commands in the container's environment.

A command gets the container's variables, its working directory and its mounts; a terminal is a pseudo-terminal of
the node.
"""

import asyncio
import contextlib
import fcntl
import os
import signal
import struct
import subprocess
import termios
from collections.abc import Coroutine, Sequence

from edgehive.aio.http import Request, Response
from edgehive.aio.remotecommand import STDERR, STDOUT, Command, Session, websocket_response
from edgehive.aio.spdy import port_forward_response, spdy_command_response
from edgehive.edge.kubelet_logs import BadQuery
from edgehive.edge.kubelet_streams import streams_of
from edgehive.edge.process import ProcessRuntime
from edgehive.edge.process_host import signal_group
from edgehive.edge.process_monitor import HEAD, RESIZE, STDIN
from edgehive.edge.runtime import ContainerInfo, SandboxInfo

_BLOCK = 32 << 10
_END_OF_FILE = b"\x04"
_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


class ProcessStreams:
    """Serves the clients itself."""

    def __init__(self, runtime: ProcessRuntime) -> None:
        self._runtime = runtime

    async def exec(self, request: Request, container: ContainerInfo) -> Response:
        """Run a command in the container's environment."""
        words = request.query.get("command", [])
        if not words:
            raise BadQuery("you must specify at least 1 command for the container")
        wanted = streams_of(request)
        arguments = self._runtime.exec_arguments(container.id, words)

        async def command(session: Session) -> int:
            if wanted["tty"]:
                return await run_on_terminal(session, arguments, stdin=wanted["stdin"])
            return await run_on_pipes(session, arguments, stdin=wanted["stdin"])

        return _respond(request, command, wanted)

    async def attach(self, request: Request, container: ContainerInfo) -> Response:
        """Join the container's command: what it writes from now on, and its input if it has one."""
        wanted = streams_of(request)
        letters = (("i", "stdin"), ("o", "stdout"), ("e", "stderr"))
        flags = "".join(letter for letter, name in letters if wanted[name])

        async def command(session: Session) -> int:
            return await join_pipes(session, *await self._runtime.attach(container.id, flags))

        return _respond(request, command, wanted)

    async def port_forward(self, request: Request, sandbox: SandboxInfo) -> Response:
        """Forward to ports of this machine, which is the pod's network."""
        response = port_forward_response(
            request, connect=lambda port: asyncio.open_connection("127.0.0.1", port)
        )
        if response is None:
            raise BadQuery("the client offers no protocol for port forwarding that is known here")
        return response


def _respond(request: Request, command: Command, wanted: dict[str, bool]) -> Response:
    upgrade = request.headers.get("upgrade", "").lower()
    response = None
    if upgrade == "websocket":
        response = websocket_response(request, command)
    elif upgrade == "spdy/3.1":
        response = spdy_command_response(request, command, wanted)
    if response is None:
        raise BadQuery("the client offers no protocol for exec that is known here")
    return response


async def join_pipes(session: Session, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> int:
    """Move frames between a client and the monitor until the command has ended; that is a success."""

    async def copy_in() -> None:
        while True:
            data = await session.stdin.get()
            writer.write(HEAD.pack(STDIN, len(data)) + data)
            await writer.drain()
            if not data:
                return

    async def copy_sizes() -> None:
        while True:
            rows, columns = await session.resizes.get()
            size = b"%d %d" % (rows, columns)
            writer.write(HEAD.pack(RESIZE, len(size)) + size)

    async def copy_out() -> None:
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            while True:
                channel, length = HEAD.unpack(await reader.readexactly(HEAD.size))
                await session.write(channel, await reader.readexactly(length))

    try:
        async with asyncio.TaskGroup() as group:
            others = [
                group.create_task(_quietly(copy_in()), name="attach-stdin"),
                group.create_task(copy_sizes(), name="attach-size"),
            ]
            await copy_out()
            for task in others:
                task.cancel()
    finally:
        writer.close()
    return 0


async def _quietly(work: Coroutine[None, None, None]) -> None:
    with contextlib.suppress(ConnectionError):
        await work


async def run_on_pipes(session: Session, arguments: Sequence[str], *, stdin: bool) -> int:
    """Run a command with pipes; return its exit code. It is killed when this is cancelled."""
    process = await asyncio.create_subprocess_exec(
        *arguments,
        stdin=subprocess.PIPE if stdin else subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env={"PATH": _PATH},
        start_new_session=True,
    )

    async def copy_out(source: asyncio.StreamReader, channel: int) -> None:
        while data := await source.read(_BLOCK):
            await session.write(channel, data)

    async def copy_in(sink: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError):
            while data := await session.stdin.get():
                sink.write(data)
                await sink.drain()
        sink.close()

    assert process.stdout is not None
    assert process.stderr is not None
    try:
        async with asyncio.TaskGroup() as group:
            outputs = [
                group.create_task(copy_out(process.stdout, STDOUT), name="exec-stdout"),
                group.create_task(copy_out(process.stderr, STDERR), name="exec-stderr"),
            ]
            feeding = group.create_task(copy_in(process.stdin), name="exec-stdin") if process.stdin else None
            await asyncio.wait(outputs)
            code = await process.wait()
            if feeding is not None:
                feeding.cancel()
    finally:
        await _end(process)
    return code if code >= 0 else 128 - code


async def run_on_terminal(session: Session, arguments: Sequence[str], *, stdin: bool) -> int:
    """Run a command on a pseudo-terminal of its own; return its exit code."""
    ours, theirs = os.openpty()
    try:
        try:
            process = await asyncio.create_subprocess_exec(
                "setsid", "--ctty", *arguments, stdin=theirs, stdout=theirs, stderr=theirs,
                env={"PATH": _PATH, "TERM": "xterm"},
            )  # fmt: skip
        finally:
            os.close(theirs)
        try:
            return await _drive_terminal(session, process, ours, stdin=stdin)
        finally:
            await _end(process)
    finally:
        os.close(ours)


async def _drive_terminal(
    session: Session, process: asyncio.subprocess.Process, terminal: int, *, stdin: bool
) -> int:
    os.set_blocking(terminal, False)
    async with asyncio.TaskGroup() as group:
        output = group.create_task(_terminal_out(session, terminal), name="exec-terminal-out")
        others = [group.create_task(_terminal_size(session, terminal), name="exec-terminal-size")]
        if stdin:
            others.append(group.create_task(_terminal_in(session, terminal), name="exec-terminal-in"))
        code = await process.wait()
        await asyncio.wait((output,), timeout=0.5)  # what it left behind may keep the terminal open
        for task in (output, *others):
            task.cancel()
    return code if code >= 0 else 128 - code


async def _terminal_out(session: Session, terminal: int) -> None:
    while True:
        await _ready(terminal, write=False)
        try:
            data = os.read(terminal, _BLOCK)
        except BlockingIOError:
            continue
        except OSError:  # EIO: nobody has it open any more
            return
        if not data:
            return
        await session.write(STDOUT, data)


async def _terminal_in(session: Session, terminal: int) -> None:
    while True:
        data = await session.stdin.get() or _END_OF_FILE
        while data:
            try:
                data = data[os.write(terminal, data) :]
            except BlockingIOError:
                await _ready(terminal, write=True)
            except OSError:
                return


async def _terminal_size(session: Session, terminal: int) -> None:
    while True:
        rows, columns = await session.resizes.get()
        fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))


async def _ready(descriptor: int, *, write: bool) -> None:
    loop = asyncio.get_running_loop()
    future: asyncio.Future[None] = loop.create_future()

    def ready() -> None:
        if not future.done():
            future.set_result(None)

    (loop.add_writer if write else loop.add_reader)(descriptor, ready)
    try:
        await future
    finally:
        (loop.remove_writer if write else loop.remove_reader)(descriptor)


async def _end(process: asyncio.subprocess.Process) -> None:
    if process.returncode is None:
        signal_group(process.pid, signal.SIGKILL)
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.wait()
