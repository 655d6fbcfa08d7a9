"""Named modules of one process that pass messages to each other.

For what crosses the wire and is meant for "whoever is in group X". Collaborators that know each other
call each other. Guarantees:

- Order: what one sender sends to one receiver arrives in that order, by name or through a group.
- Bounds: every inbox is bounded and says what a full one does (`Overflow`).
- Supervision: a module that fails with `Transient` is restarted with back-off and finds its inbox as it
  was, minus the message it failed on; any other failure ends the hive, and with it the process.
- Nobody waits for nothing: a request ends with an answer, or with `Unanswered` when the time is over or
  the receiver failed or was stopped.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass
from typing import Generic, TypeVar

from edgehive.aio.supervise import Service, keep_running
from edgehive.beehive.inbox import Inbox, Overflow
from edgehive.kit.errors import EdgehiveError, Transient

log = logging.getLogger(__name__)

M = TypeVar("M")


class NoSuchModule(EdgehiveError):
    """No running module has that name."""


class Unanswered(Transient):
    """A request got no answer."""


@dataclass(slots=True)
class Delivery(Generic[M]):
    """One message in a module's hands."""

    message: M
    sender: str = ""
    _answer: "asyncio.Future[M] | None" = None

    @property
    def wants_answer(self) -> bool:
        """Whether somebody still waits for `answer`."""
        return self._answer is not None and not self._answer.done()

    def answer(self, message: M) -> None:
        """Answer a request; without a waiting asker nothing happens."""
        if self._answer is not None and not self._answer.done():
            self._answer.set_result(message)

    def abandon(self, why: str) -> None:
        """Tell a waiting asker that there will be no answer."""
        if self._answer is not None and not self._answer.done():
            self._answer.set_exception(Unanswered(why))


@dataclass(frozen=True, slots=True)
class Module(Generic[M]):
    """A named receiver. `receive` is called with one message at a time."""

    name: str
    receive: Callable[[Delivery[M]], Awaitable[None]]
    groups: frozenset[str] = frozenset()
    capacity: int = 1024
    overflow: Overflow = Overflow.BLOCK
    backoff: float = 1.0
    backoff_max: float = 30.0


@dataclass(slots=True)
class _Cell(Generic[M]):
    module: Module[M]
    inbox: Inbox[Delivery[M]]
    task: "asyncio.Task[None] | None" = None
    enabled: bool = True


class Hive(Generic[M]):
    """The modules of one process. Make it, `add` modules, then `run` it."""

    def __init__(self, modules: Iterable[Module[M]] = ()) -> None:
        self._cells: dict[str, _Cell[M]] = {}
        self._tasks: asyncio.TaskGroup | None = None
        for module in modules:
            self.add(module)

    def add(self, module: Module[M]) -> None:
        """Register `module`; it starts with the hive. Messages may already be sent to it.

        Raises:
            ValueError: the name is taken.
        """
        if module.name in self._cells:
            raise ValueError(f"there is already a module called {module.name}")
        self._cells[module.name] = _Cell(module, Inbox(module.capacity, module.overflow))
        if self._tasks is not None:
            self._spawn(self._cells[module.name])

    def members(self, group: str) -> list[str]:
        """Names of the running modules of `group`."""
        return [name for name, cell in self._cells.items() if cell.enabled and group in cell.module.groups]

    async def run(self) -> None:
        """Run every module until cancelled.

        Raises:
            ExceptionGroup: a module failed for good.
        """
        try:
            async with asyncio.TaskGroup() as tasks:
                self._tasks = tasks
                for cell in self._cells.values():
                    if cell.enabled:
                        self._spawn(cell)
                await asyncio.get_running_loop().create_future()  # until cancelled
        finally:
            self._tasks = None
            for cell in self._cells.values():
                cell.task = None
                self._abandon(cell, "the process is stopping")

    async def stop(self, name: str) -> None:
        """Stop a module, waiting until it has; what waited in its inbox is dropped."""
        cell = self._cell(name)
        cell.enabled = False
        if cell.task is not None:
            cell.task.cancel()
            await asyncio.wait([cell.task])
            cell.task = None
        self._abandon(cell, f"{name} was stopped")

    def start(self, name: str) -> None:
        """Start a module that was stopped."""
        try:
            cell = self._cells[name]
        except KeyError as exc:
            raise NoSuchModule(f"there is no module {name}") from exc
        cell.enabled = True
        if self._tasks is not None and cell.task is None:
            self._spawn(cell)

    async def restart(self, name: str) -> None:
        """Stop and start a module."""
        await self.stop(name)
        self.start(name)

    async def send(self, to: str, message: M, *, sender: str = "") -> None:
        """Put `message` into the inbox of module `to`.

        Raises:
            NoSuchModule: it does not exist or is stopped.
            InboxFull: its inbox is full and its policy is to refuse.
        """
        await self._put(self._cell(to), Delivery(message, sender))

    async def broadcast(self, group: str, message: M, *, sender: str = "") -> int:
        """Send to every running module of `group`; return how many there were.

        Raises:
            InboxFull: as `send`; members before the full one have got the message.
        """
        names = self.members(group)
        for name in names:
            await self._put(self._cells[name], Delivery(message, sender))
        return len(names)

    async def ask(self, to: str, message: M, *, timeout: float = 30.0, sender: str = "") -> M:
        """Send a request and return its answer.

        Raises:
            NoSuchModule: the module does not exist or is stopped.
            Unanswered: no answer within `timeout` seconds, or the module failed meanwhile.
        """
        answer: asyncio.Future[M] = asyncio.get_running_loop().create_future()
        try:
            async with asyncio.timeout(timeout):
                await self._put(self._cell(to), Delivery(message, sender, answer))
                return await answer
        except TimeoutError as exc:
            raise Unanswered(f"{to} did not answer within {timeout:g} s") from exc

    def _cell(self, name: str) -> _Cell[M]:
        cell = self._cells.get(name)
        if cell is None or not cell.enabled:
            raise NoSuchModule(f"there is no running module {name}")
        return cell

    async def _put(self, cell: _Cell[M], delivery: Delivery[M]) -> None:
        lost = await cell.inbox.put(delivery)
        if lost is not None:
            lost.abandon(f"the inbox of {cell.module.name} overflowed")
            log.warning(
                "%s: inbox full, oldest message dropped (%d so far)", cell.module.name, cell.inbox.dropped
            )

    def _spawn(self, cell: _Cell[M]) -> None:
        assert self._tasks is not None
        module = cell.module
        service = Service(module.name, lambda: self._serve(cell), module.backoff, module.backoff_max)
        cell.task = self._tasks.create_task(keep_running(service), name=module.name)

    async def _serve(self, cell: _Cell[M]) -> None:
        while True:
            delivery = await cell.inbox.get()
            try:
                await cell.module.receive(delivery)
            except BaseException as exc:
                delivery.abandon(f"{cell.module.name} failed: {exc}")
                raise

    def _abandon(self, cell: _Cell[M], why: str) -> None:
        for delivery in cell.inbox.drain():
            delivery.abandon(why)
