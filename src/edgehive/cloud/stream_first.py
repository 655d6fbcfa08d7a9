"""How long a node may take for the first answer of a log, a command or a page, and what is said when there is none.

KubeEdge's edge says nothing about a request that its own kubelet's port does not take, and nothing about a log either
until there is a line: the two cannot be told apart by waiting. So the node is asked for something else on the same way,
the kubelet's ``/healthz``. (Edges of ours answer by themselves.) Whatever comes back, an error included, shows that the
port is served, and then a silent container may be followed for as long as the tunnel lives (both ends ping it). Nothing
for `PROBE` seconds shows that it is not.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import Final, TypeVar

from edgehive.cloud.stream_siblings import Session
from edgehive.kit.errors import EdgehiveError, Unreachable
from edgehive.kit.text import safe_label
from edgehive.wire.tunnel import ConnectRequest, Kind

log = logging.getLogger(__name__)

QUIET: Final = 5.0
"""Seconds without a word after which the node is asked whether its kubelet is there, and asked again."""

PROBE: Final = 25.0
"""Seconds that it has for that: a small machine may be very busy."""

LIMIT: Final = 120.0
"""Seconds for an answer that has to come: as long as a kubelet itself waits for its container runtime."""

_T = TypeVar("_T")


class Silent(Unreachable):
    """The node has a tunnel, and the answer does not come."""


class FirstAnswer:
    """Waits for the first answer of a node."""

    def __init__(
        self,
        *,
        find: Callable[[str], Awaitable[Session | None]],
        new_id: Callable[[], int],
        quiet: float = QUIET,
        probe: float = PROBE,
        limit: float = LIMIT,
    ) -> None:
        """`find` gives a node's tunnel, `new_id` an id for a connection in it; times in seconds."""
        self._find = find
        self._new_id = new_id
        self._quiet = quiet
        self._probe = probe
        self._limit = limit

    async def certain(self, read: Callable[[], Awaitable[_T]]) -> _T:
        """What `read` returns, of an edge that says so itself when its kubelet is not there.

        Raises:
            Silent: it has not answered for `limit` seconds.
        """
        try:
            async with asyncio.timeout(self._limit):
                return await read()
        except TimeoutError:
            raise Silent(self._too_late()) from None

    async def wait(self, node: str, read: Callable[[], Awaitable[_T]], *, patient: bool = False) -> _T | None:
        """What `read` returns, which may be cancelled and called again without losing anything.

        None: there is nothing yet, but the node's kubelet is there. Only who is `patient` gets that.

        Raises:
            Silent: the kubelet is not there, or has not answered for `limit` seconds.
        """
        loop = asyncio.get_running_loop()
        end = loop.time() + self._limit
        while True:
            try:
                async with asyncio.timeout(self._quiet):
                    return await read()
            except TimeoutError:
                pass
            if not await self._serves(node):
                try:
                    async with asyncio.timeout(0):  # what has come meanwhile counts
                        return await read()
                except TimeoutError:
                    raise Silent(self._no_kubelet()) from None
            if patient:
                return None
            if loop.time() >= end:
                raise Silent(self._too_late())

    def _too_late(self) -> str:
        return (
            f"is connected, but has not answered this request within {self._limit:g} s: look at edgecore's log and at "
            "the container runtime"
        )

    def _no_kubelet(self) -> str:
        return (
            f"has a tunnel, but its kubelet does not answer (nothing in {self._quiet + self._probe:g} s). On the node, "
            "edged has to be enabled and listen at 127.0.0.1:10350: try curl http://127.0.0.1:10350/healthz, "
            "and look for what edgecore's log says of the tunnel"
        )

    async def _serves(self, node: str) -> bool:
        """Whether anything comes back from the node's kubelet."""
        try:
            async with asyncio.timeout(self._probe):
                session = await self._find(node)
                if session is None:
                    return False
                stream = await session.ask(ConnectRequest(self._new_id(), Kind.METRIC, "/healthz"))
                try:
                    await stream.read()
                finally:
                    stream.close()
        except (TimeoutError, EdgehiveError, OSError) as exc:
            text = str(exc) or "no answer"
            log.info("node %s was asked whether its kubelet is there: %s", safe_label(node), text)
            return False
        return True
