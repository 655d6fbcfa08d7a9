"""A thread of one's own for calls that block: one that never returns costs its owner, and nobody else.

asyncio's shared executor has a handful of threads. Calls that hang fill it, and then every blocking call of the process
waits, its end included. Here each owner has a daemon thread, made at the first call.
"""

import asyncio
import queue
import threading
from collections.abc import Callable
from typing import Any, TypeVar

from edgehive.kit.errors import Transient

T = TypeVar("T")

_Job = tuple[asyncio.Future[Any], Callable[[], Any]]


class StillBusy(Transient):
    """The call before, which its caller has given up, has not returned yet."""


class OwnThread:
    """Runs blocking calls one at a time; `close` lets the thread end after the present one."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._jobs: queue.SimpleQueue[_Job | None] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None
        self._busy = False

    async def run(self, function: Callable[..., T], *arguments: Any) -> T:
        """Call `function` in the thread.

        Raises:
            StillBusy: an earlier call hangs.
        """
        if self._busy:
            raise StillBusy("the call before has not returned yet")
        if self._thread is None:
            self._thread = threading.Thread(target=self._work, name=self._name, daemon=True)
            self._thread.start()
        self._busy = True
        done: asyncio.Future[T] = asyncio.get_running_loop().create_future()
        self._jobs.put((done, lambda: function(*arguments)))
        return await done

    def close(self) -> None:
        """Ask the thread to end; it is not waited for."""
        if self._thread is not None:
            self._jobs.put(None)
            self._thread = None
            self._jobs = queue.SimpleQueue()
            self._busy = False

    def _work(self) -> None:
        jobs = self._jobs
        while (job := jobs.get()) is not None:
            done, call = job
            result: Any = None
            error: BaseException | None = None
            try:
                result = call()
            except BaseException as exc:  # noqa: BLE001 - it is raised again where the call was asked for
                error = exc
            try:
                done.get_loop().call_soon_threadsafe(self._over, jobs, done, result, error)
            except RuntimeError:  # the loop has ended meanwhile
                return

    def _over(
        self, jobs: object, done: asyncio.Future[Any], result: object, error: BaseException | None
    ) -> None:
        if jobs is self._jobs:  # not the rest of a thread that was closed
            self._busy = False
        if done.done():
            return
        if isinstance(error, StopIteration):  # which a future cannot carry
            error = RuntimeError("StopIteration")
        if error is None:
            done.set_result(result)
        else:
            done.set_exception(error)
