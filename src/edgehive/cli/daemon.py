"""Running a daemon's coroutine in a process: event loop, signals, the last word on errors."""

import asyncio
import contextlib
import gc
import logging
import signal
import sys
from collections.abc import Awaitable, Callable

from edgehive.cli.console import for_a_person, leaves_of, print_error
from edgehive.cli.notify import Notifier

log = logging.getLogger(__name__)

EXIT_FAILURE = 1
EXIT_USAGE = 2


class _Stopped(BaseException):
    """A signal asked us to end."""


def run_daemon(program: str, main: Callable[[Notifier], Awaitable[None]], *, fast_loop: bool = False) -> int:
    """Run `main` until it ends or SIGINT/SIGTERM cancels it; return the exit code.

    `fast_loop` uses uvloop where it is installed: worth its 2 MB in a server, not at the edge.
    """
    # Most of what these processes allocate lives long: look for cycles less often.
    gc.set_threshold(20_000, 50, 100)
    try:
        with asyncio.Runner(loop_factory=_loop_factory(fast_loop=fast_loop)) as runner:
            runner.run(_until_signalled(main))
    except KeyboardInterrupt:
        return 130
    except Exception as exc:  # noqa: BLE001 - the boundary of the process: everything ends as one sentence
        _report(program, exc)
        return EXIT_FAILURE
    return 0


def drop_waste() -> None:
    """Free what loading has left in cycles, so that what is loaded next takes its place.

    Above all that is the first edition of each slotted dataclass: `dataclasses` makes the class twice. With the rare
    collections of these processes they would stay for hours.
    """
    gc.collect()


def _loop_factory(*, fast_loop: bool) -> Callable[[], asyncio.AbstractEventLoop] | None:
    if not fast_loop:
        return None
    try:
        import uvloop
    except ImportError:
        return None
    factory: Callable[[], asyncio.AbstractEventLoop] = uvloop.new_event_loop
    return factory


async def _until_signalled(main: Callable[[Notifier], Awaitable[None]]) -> None:
    loop = asyncio.get_running_loop()
    task = asyncio.current_task()
    assert task is not None
    asked: list[signal.Signals] = []

    def ask(number: signal.Signals) -> None:
        log.info("%s: stopping", number.name)
        if not asked:
            task.cancel()
        asked.append(number)

    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, ask, number)
    notifier = Notifier()
    try:
        await main(notifier)
    except asyncio.CancelledError:
        if not asked:
            raise
        task.uncancel()
    finally:
        notifier.stopping()
        for number in (signal.SIGINT, signal.SIGTERM):
            with contextlib.suppress(ValueError, RuntimeError):
                loop.remove_signal_handler(number)


def _report(program: str, error: Exception) -> None:
    said = for_a_person(error)
    if said is not None:
        for one in said:
            print_error(program, one)
        log.debug("where it came from", exc_info=error)
        return
    leaves = leaves_of(error)
    log.critical("unexpected %s; this is a bug in edgehive", type(leaves[0]).__name__, exc_info=error)
    text = str(leaves[0]).splitlines() or [""]
    sys.stderr.write(f"{program}: error: unexpected {type(leaves[0]).__name__}: {text[0]}\n")
    sys.stderr.write("  The log above has the details; please report it.\n")
