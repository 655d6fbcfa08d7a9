"""What stands for a transport after its end, so that nothing keeps the real one and its TLS state."""

import asyncio
from typing import Any, Final, cast


class _Gone:
    """Answers what is asked of a closed transport, and does nothing."""

    def is_closing(self) -> bool:
        return True

    def can_write_eof(self) -> bool:
        return False

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        return default

    def write(self, data: bytes) -> None:
        """Nobody is there."""

    def abort(self) -> None:
        """It is."""

    close = abort


GONE: Final = cast(asyncio.Transport, _Gone())
"""Put it in the place of a transport when its `connection_lost` is done."""
