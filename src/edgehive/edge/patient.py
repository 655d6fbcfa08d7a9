"""Work on disk that takes long, done beside the event loop: a few steps in it, the rest in a thread.

Structured: whoever awaits it is not gone before the thread is. Pods write what they want into their volumes, and an
edge has to acknowledge messages and answer probes while it removes hundreds of thousands of files.
"""

import asyncio
from collections.abc import Generator

Steps = Generator[None, None, None]

_FEW = 64
"""Steps that are taken at once: most pods have no more files, and need no thread and no turn."""


async def take(steps: Steps, turn: asyncio.Lock) -> None:
    """Take all `steps`; whoever has many of them waits for his `turn`, so that one thread does for all.

    When it is cancelled, the step that is being taken is the last one. Whatever a step raises is raised.
    """
    for _ in range(_FEW):
        try:
            next(steps)
        except StopIteration:
            return
    try:
        async with turn:
            await _take_in_thread(steps)
    finally:
        steps.close()


async def _take_in_thread(steps: Steps) -> None:
    given_up = False

    def work() -> None:
        for _ in steps:
            if given_up:
                return

    working = asyncio.get_running_loop().run_in_executor(None, work)
    try:
        await asyncio.shield(working)
    finally:
        given_up = True
        while not working.done():
            try:
                await asyncio.wait((working,))
            except asyncio.CancelledError:
                continue  # said again; it is raised below, once nobody works on these steps
        working.exception()  # whoever has given up does not hear of it
