"""Long-lived work: the only place that starts it.

A `Service` runs until cancelled. `kit.errors.Transient` restarts it with back-off; anything else, also
returning, cancels its siblings and ends the group, so that a process is either whole or gone.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass

from edgehive.kit.backoff import Backoff
from edgehive.kit.errors import EdgehiveError, Transient

log = logging.getLogger(__name__)

_STABLE_AFTER = 60.0  # seconds a service must have run before its back-off starts again from the beginning


class ServiceExited(EdgehiveError):
    """A service returned although it must run for ever."""


@dataclass(frozen=True, slots=True)
class Service:
    """A named endless coroutine function; `once` allows it to return (a job, not a daemon)."""

    name: str
    run: Callable[[], Awaitable[None]]
    backoff: float = 0.5
    backoff_max: float = 30.0
    once: bool = False


async def supervise(*services: Service) -> None:
    """Run all `services` until cancelled or until one fails for good.

    Raises:
        ExceptionGroup: If a service raised anything but `Transient`, or returned without `once`.
    """
    async with asyncio.TaskGroup() as group:
        for service in services:
            group.create_task(keep_running(service), name=service.name)


async def keep_running(service: Service) -> None:
    """Run one service, restarting it after `Transient`, also when that comes out of a task group of its own."""
    backoff = Backoff(service.backoff, service.backoff_max)
    loop = asyncio.get_running_loop()
    while True:
        started = loop.time()
        try:
            await service.run()
        except (Transient, ExceptionGroup) as exc:
            reasons = list(_reasons(exc))
            if not all(isinstance(reason, Transient) for reason in reasons):
                raise
            if loop.time() - started > _STABLE_AFTER:
                backoff.reset()
            delay = backoff.next()
            why = "; ".join(map(str, reasons))
            log.warning("%s: %s; again in %.1f s", service.name, why, delay)
            await asyncio.sleep(delay)
        else:
            if service.once:
                return
            raise ServiceExited(f"{service.name} ended although it must run for ever")


def _reasons(exc: Exception) -> Iterator[Exception]:
    """What an exception comes to: itself, or all that is in the group."""
    if isinstance(exc, ExceptionGroup):
        for one in exc.exceptions:
            yield from _reasons(one)
    else:
        yield exc
