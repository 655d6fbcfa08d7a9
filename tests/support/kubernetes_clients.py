"""Programs that use Kubernetes client libraries, driven over their standard input and output.

Each is an informer of the ConfigMaps in ``default``: it says one line for each change that it sees
(``{"event", "name", "value"}``), and ``{"listed": VERSION}`` after each list. It carries out commands
(``{"id", "do", "name", "value"}``) and answers ``{"id", "result"}`` or ``{"id", "code", "reason"}``.
"""

import asyncio
import contextlib
import itertools
import json
import os
import shutil
import subprocess
import sys
from collections.abc import AsyncIterator
from functools import cache
from importlib.util import find_spec
from pathlib import Path

_HERE = Path(__file__).parent / "clients"
CLIENTS = ("lightkube", "kubernetes_asyncio", "client-node", "fabric8", "client-go")
ELSEWHERE = frozenset({"client-node", "fabric8", "client-go"})
"""Those that PyPI does not have: they are tried where somebody has put them."""


class Refused(Exception):
    """The client library raised an error of the API."""

    def __init__(self, code: int, reason: str) -> None:
        super().__init__(f"{code} {reason}")
        self.code = code
        self.reason = reason


@cache
def client_node() -> str:
    """The directory that has @kubernetes/client-node in its node_modules, or nothing."""
    if shutil.which("node") is None:
        return ""
    given = os.environ.get("EDGEHIVE_CLIENT_NODE", "")
    if given:
        return given
    found = subprocess.run(["npm", "root", "-g"], capture_output=True, text=True, check=False)
    root = Path(found.stdout.strip())
    return str(root.parent) if (root / "@kubernetes" / "client-node").is_dir() else ""


def lacks(name: str) -> str:
    """Why a client cannot be run here; empty when it can."""
    if name == "client-node":
        return "" if client_node() else "needs node and @kubernetes/client-node (EDGEHIVE_CLIENT_NODE)"
    if name == "fabric8":
        found = shutil.which("java") and os.environ.get("EDGEHIVE_CLIENT_FABRIC8")
        return "" if found else "needs a JDK and the jars of fabric8's client (EDGEHIVE_CLIENT_FABRIC8)"
    if name == "client-go":
        return (
            "" if os.environ.get("EDGEHIVE_CLIENT_GO") else "needs go_client.go, built (EDGEHIVE_CLIENT_GO)"
        )
    return "" if find_spec(name) is not None else f"needs {name}"


def _command(name: str) -> list[str]:
    if name == "client-node":
        return ["node", str(_HERE / "node_client.mjs")]
    if name == "fabric8":
        jars = os.environ["EDGEHIVE_CLIENT_FABRIC8"]
        return ["java", "-Xmx128m", "-cp", f"{jars}/*", str(_HERE / "Fabric8Client.java")]
    if name == "client-go":
        return [os.environ["EDGEHIVE_CLIENT_GO"]]
    program = {"lightkube": "lightkube_client.py", "kubernetes_asyncio": "asyncio_client.py"}[name]
    return [sys.executable, str(_HERE / program)]


class Client:
    """One running program."""

    def __init__(self, child: asyncio.subprocess.Process) -> None:
        self._child = child
        self._ids = itertools.count(1)
        self._waiting: dict[int, asyncio.Future] = {}
        self.events: list[tuple[str, str, str | None]] = []
        self.lists: list[str] = []
        self._changed = asyncio.Event()

    async def read(self) -> None:
        """Take its lines until it ends."""
        async for text in self._child.stdout:
            line = json.loads(text)
            if "event" in line:
                self.events.append((line["event"], line["name"], line["value"]))
            elif "listed" in line:
                self.lists.append(line["listed"])
            elif line["id"] in self._waiting:
                self._waiting.pop(line["id"]).set_result(line)
            self._changed.set()

    async def until(self, condition) -> None:
        """Wait until `condition` holds; it is looked at after every line."""
        try:
            async with asyncio.timeout(20):
                while not condition():
                    self._changed.clear()
                    await self._changed.wait()
        except TimeoutError:
            raise AssertionError(f"not seen in time; lists {self.lists}, events {self.events}") from None

    async def sees(self, events: list) -> None:
        """Wait until exactly `events` have been seen since the last call; forget them."""
        await self.until(lambda: len(self.events) >= len(events))
        seen, self.events = self.events, []
        assert seen == events

    async def do(self, what: str, name: str = "", value: str = ""):
        """Carry out one command; raises `Refused`."""
        number = next(self._ids)
        answer = self._waiting[number] = asyncio.get_running_loop().create_future()
        line = {"id": number, "do": what, "name": name, "value": value}
        self._child.stdin.write(json.dumps(line).encode() + b"\n")
        async with asyncio.timeout(20):
            found = await answer
        if "result" not in found:
            raise Refused(found["code"], found["reason"])
        return found["result"]


@contextlib.asynccontextmanager
async def running(name: str, server: str, **environment: str) -> AsyncIterator[Client]:
    """Run the program of a library against `server`."""
    env = {k: v for k, v in os.environ.items() if k != "PYTHONWARNINGS"} | environment
    env["EDGEHIVE_CLIENT_NODE"] = client_node() if name == "client-node" else ""
    child = await asyncio.create_subprocess_exec(
        *_command(name), server, stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, env=env
    )
    try:
        async with asyncio.TaskGroup() as group:
            client = Client(child)
            reader = group.create_task(client.read())
            yield client
            reader.cancel()
    finally:
        with contextlib.suppress(ProcessLookupError):
            child.kill()
        await child.wait()
        child._transport.close()
