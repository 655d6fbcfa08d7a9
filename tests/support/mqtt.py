"""Real MQTT programs for tests: the mosquitto broker, mosquitto_pub and mosquitto_sub."""

import asyncio
import shutil
import socket
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from pathlib import Path

HAVE_MOSQUITTO = all(shutil.which(name) for name in ("mosquitto", "mosquitto_pub", "mosquitto_sub"))


def free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


class Mosquitto:
    """One broker on a port of its own; `stop` and `start` as often as one likes."""

    def __init__(self, directory: Path, *lines: str, anonymous: bool = True) -> None:
        self.port = free_port()
        self._process: asyncio.subprocess.Process | None = None
        directory.mkdir(exist_ok=True, parents=True)
        self._file = directory / "mosquitto.conf"
        self._file.write_text(
            "\n".join(
                [
                    f"listener {self.port} 127.0.0.1",
                    f"allow_anonymous {str(anonymous).lower()}",
                    "persistence false",
                    "user root",
                    "sys_interval 0",
                    *lines,
                ]
            )
            + "\n"
        )

    async def start(self) -> None:
        self._process = await asyncio.create_subprocess_exec(
            "mosquitto",
            "-c",
            str(self._file),
            stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.DEVNULL,
        )
        async with asyncio.timeout(20):
            while True:
                with suppress(OSError):
                    _, writer = await asyncio.open_connection("127.0.0.1", self.port)
                    writer.close()
                    return
                await asyncio.sleep(0.02)

    async def stop(self) -> None:
        if self._process is not None:
            with suppress(ProcessLookupError):
                self._process.kill()
            await self._process.wait()
            self._process = None


@asynccontextmanager
async def mosquitto(directory: Path, *lines: str, anonymous: bool = True) -> AsyncIterator[Mosquitto]:
    broker = Mosquitto(directory, *lines, anonymous=anonymous)
    await broker.start()
    try:
        yield broker
    finally:
        await broker.stop()


async def mosquitto_pub(port: int, topic: str, payload: str, *flags: str) -> None:
    process = await asyncio.create_subprocess_exec(
        "mosquitto_pub", "-h", "127.0.0.1", "-p", str(port), "-t", topic, "-m", payload, *flags
    )
    async with asyncio.timeout(20):
        assert await process.wait() == 0


class Subscriber:
    """A running mosquitto_sub; `lines` are what it has printed: topic, blank, payload."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process

    async def line(self) -> str:
        assert self._process.stdout is not None
        async with asyncio.timeout(20):
            while True:
                text = (await self._process.stdout.readline()).decode()
                if not text.startswith("Client "):  # what -d says of packets
                    return text.rstrip("\n")

    async def until(self, wanted: str) -> list[str]:
        """Every line up to the first that contains `wanted`."""
        lines = [await self.line()]
        while wanted not in lines[-1]:
            assert lines[-1], f"mosquitto_sub ended; {lines}"
            lines.append(await self.line())
        return lines


@asynccontextmanager
async def mosquitto_sub(port: int, topics: Sequence[str], *flags: str) -> AsyncIterator[Subscriber]:
    """Subscribed when the block begins."""
    arguments = [flag for topic in topics for flag in ("-t", topic)]
    process = await asyncio.create_subprocess_exec(
        *("stdbuf", "-oL", "mosquitto_sub"),  # its debug lines wait in a buffer otherwise
        *("-h", "127.0.0.1", "-p", str(port), "-v", "-d", *arguments, *flags),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    try:
        sub = Subscriber(process)
        await sub.until("Subscribed (mid:")
        yield sub
    finally:
        with suppress(ProcessLookupError):
            process.kill()
        await process.wait()
