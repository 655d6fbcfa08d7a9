"""A log that a stranger cannot fill: one line for each kind and address, then one a minute with their number."""

import logging
import time
from collections.abc import Callable

from edgehive.kit.repeats import Repeats


class FewLines:
    """Writes through `log`; what `kit.repeats` holds back is there at DEBUG."""

    def __init__(self, log: logging.Logger, *, now: Callable[[], float] = time.monotonic) -> None:
        """`now` is a clock in seconds."""
        self._log = log
        self._now = now
        self._repeats = Repeats()

    def warning(self, kind: str, source: str, text: str, *args: object) -> None:
        """Write a line about what `source` (an address, or "") has brought about; `kind` is ours, not the peer's."""
        self._write(logging.WARNING, kind, source, text, args)

    def info(self, kind: str, source: str, text: str, *args: object) -> None:
        """The same, of what is nobody's fault."""
        self._write(logging.INFO, kind, source, text, args)

    def _write(self, level: int, kind: str, source: str, text: str, args: tuple[object, ...]) -> None:
        now = self._now()
        for repeat in self._repeats.due(now):
            self._log.log(level, "%s", repeat, stacklevel=3)
        admitted = self._repeats.admits(kind, source, now)
        self._log.log(level if admitted else logging.DEBUG, text, *args, stacklevel=3)


def host_of(remote: str) -> str:
    """The address without the port."""
    return remote.rpartition(":")[0] or remote
