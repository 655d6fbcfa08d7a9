"""edgecore's end of the process runtime's monitor (`edge.process_monitor`): starts it, asks it, joins clients to it."""

import asyncio
import contextlib
import logging
import os
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

from edgehive.edge import process_monitor
from edgehive.edge.runtime import RuntimeFailure

log = logging.getLogger(__name__)

_START_TIMEOUT = 20.0
_TRIES = 3
_LAUNCH = '[ -x "$1" ] && [ -r "$4" ] || exit 126; setsid "$@" </dev/null >/dev/null 2>&1 &'

Channel = tuple[asyncio.StreamReader, asyncio.StreamWriter]


class Monitor:
    """The monitor of one state directory; `died` is called when it has gone, and with it what it was told."""

    def __init__(self, directory: Path, *, died: Callable[[], None]) -> None:
        self._directory = directory
        self._died = died
        self._watched = -1
        self._lock = asyncio.Lock()

    @property
    def alive(self) -> bool:
        """Whether it was there when last looked at, and has not ended since."""
        return self._watched >= 0

    async def ask(self, *fields: str) -> str:
        """Do a request, starting the monitor if need be.

        Raises:
            RuntimeFailure: it refuses, or cannot be started.
        """
        for left in reversed(range(_TRIES)):
            reader, writer = await self._connect()
            try:
                return await _exchange(reader, writer, fields)
            except (OSError, asyncio.IncompleteReadError) as exc:
                # It may have been about to end, with nothing left to do.
                if not left:
                    raise RuntimeFailure("RunContainerError", f"the monitor of processes: {exc}") from exc
            finally:
                writer.close()
        raise AssertionError("the last try returns or raises")

    async def forget(self, container_id: str) -> None:
        """Have the monitor let go of a container, if there is a monitor."""
        channel = await self._open()
        if channel is None:
            return
        try:
            await _exchange(*channel, ("forget", container_id))
        except (OSError, asyncio.IncompleteReadError, RuntimeFailure) as exc:
            log.debug("the monitor of processes: %s", exc)
        finally:
            channel[1].close()

    async def attach(self, container_id: str, flags: str) -> Channel:
        """Join the pipes of a container; frames from here on. Raises `RuntimeFailure`."""
        reader, writer = await self._connect()
        try:
            await _exchange(reader, writer, ("attach", container_id, flags))
        except (OSError, asyncio.IncompleteReadError) as exc:
            writer.close()
            raise RuntimeFailure("AttachFailed", f"the monitor of processes: {exc}") from exc
        except BaseException:
            writer.close()
            raise
        return reader, writer

    async def _connect(self) -> Channel:
        async with self._lock:
            for _ in range(_TRIES):
                channel = await self._open()
                if channel is None:
                    await self._start()
                    channel = await self._open()
                if channel is not None:
                    self._watch()
                    return channel
        raise RuntimeFailure("RunContainerError", "the monitor of processes does not answer")

    async def _open(self) -> Channel | None:
        # Through the directory's descriptor: the path of a unix socket has but 107 bytes.
        directory = os.open(self._directory, os.O_PATH | os.O_DIRECTORY)
        try:
            return await asyncio.open_unix_connection(
                f"/proc/self/fd/{directory}/{process_monitor.SOCKET}",
                limit=process_monitor.HEAD.size + (1 << 20),
            )
        except OSError:
            return None
        finally:
            os.close(directory)

    async def _start(self) -> None:
        program = str(Path(process_monitor.__file__).absolute())
        if await launch(_LAUNCH, sys.executable, "-I", "-S", program, str(self._directory)):
            raise RuntimeFailure("RunContainerError", f"{sys.executable} cannot be run by this user")
        loop = asyncio.get_running_loop()
        deadline = loop.time() + _START_TIMEOUT
        while loop.time() < deadline:
            channel = await self._open()
            if channel is not None:
                channel[1].close()
                return
            await asyncio.sleep(0.01)

    def _watch(self) -> None:
        """Have the loop tell when it ends."""
        if self._watched >= 0:
            return
        try:
            pid = int((self._directory / process_monitor.LOCK).read_text())
            self._watched = os.pidfd_open(pid)
        except (AttributeError, OSError, ValueError):
            return  # old kernel: it is started again when it is needed
        asyncio.get_running_loop().add_reader(self._watched, self._ended)

    def _ended(self) -> None:
        self.close()
        self._died()

    def close(self) -> None:
        """Let go of it; it goes on."""
        if self._watched >= 0:
            with contextlib.suppress(RuntimeError):
                asyncio.get_running_loop().remove_reader(self._watched)
            os.close(self._watched)
            self._watched = -1


async def launch(script: str, *arguments: str, env: Mapping[str, str] | None = None) -> int:
    """Run a shell script that starts something in the background and ends; return its exit code."""
    process = await asyncio.create_subprocess_exec(
        "sh",
        "-c",
        script,
        "edgehive-launch",
        *arguments,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env=env,
    )
    return await process.wait()


async def _exchange(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, fields: tuple[str, ...]
) -> str:
    """One request and its answer; raises `OSError` or `IncompleteReadError` when the monitor goes meanwhile."""
    writer.write(("\t".join(fields) + "\n").encode("utf-8", "surrogateescape"))
    await writer.drain()
    line = (await reader.readuntil(b"\n")).decode("utf-8", "replace").rstrip("\n")
    verdict, _, rest = line.partition("\t")
    if verdict != "ok":
        raise RuntimeFailure("RunContainerError", f"the monitor of processes: {rest}")
    return rest
