"""One worker for keys that are asked for: each waits once, and one that fails holds up no other."""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Hashable, Iterable
from typing import Generic, TypeVar

from edgehive.kit.errors import EdgehiveError
from edgehive.kit.text import safe_label
from edgehive.kube.workqueue import WorkQueue

log = logging.getLogger(__name__)

K = TypeVar("K", bound=Hashable)

_SOON = 1.0  # seconds after which what failed is tried again; twice as many each time
_AT_MOST = 60.0


class KeyedWork(Generic[K]):
    """Calls `handle` for one key after the other; the keys are those of objects that exist.

    `again` says which errors are worth another try, `describe` names a key in the log.
    """

    def __init__(
        self,
        handle: Callable[[K], Awaitable[None]],
        *,
        describe: Callable[[K], str],
        again: Callable[[EdgehiveError], bool] = lambda _: True,
        rng: Callable[[], float],
    ) -> None:
        self._handle = handle
        self._describe = describe
        self._again = again
        self._queue: WorkQueue[K] = WorkQueue(initial=_SOON, maximum=_AT_MOST, rng=rng)
        self._wake = asyncio.Event()

    def ask(self, keys: Iterable[K]) -> None:
        """Have these looked at soon, also one whose next try would be later."""
        for key in keys:
            self._queue.add(key)
        self._wake.set()

    async def run(self) -> None:
        """Work until cancelled."""
        now = asyncio.get_running_loop().time
        while True:
            self._wake.clear()
            while (key := self._queue.take(now())) is not None:
                try:
                    await self._handle(key)
                except EdgehiveError as exc:
                    after = self._queue.failed(key, now()) if self._again(exc) else None
                    when = f"again in {after:.0f} s" if after is not None else "given up"
                    log.warning("%s: %s (%s)", self._describe(key), safe_label(str(exc)), when)
                else:
                    self._queue.succeeded(key)
                finally:
                    self._queue.done(key)
            try:
                async with asyncio.timeout_at(self._queue.deadline()):
                    await self._wake.wait()
            except TimeoutError:
                continue
