"""The door of the device management interface: its socket, before there is a mapper.

HTTP/2, gRPC and the interface itself cost edgecore 1.5 MB. They are loaded when a mapper knocks, or at once if one had
registered before a restart; the kernel keeps the first connections waiting meanwhile.
"""

import asyncio
import contextlib
import socket
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from edgehive.aio.unix_socket import bind_unix
from edgehive.edge.devicetwin import DeviceTwin
from edgehive.edge.dmi_rows import StoredMappers
from edgehive.kit.errors import UserError

if TYPE_CHECKING:
    from edgehive.edge.dmi import Dmi

SOCKET_NAME = "dmi.sock"


class DmiDoor:
    """Listens from the start, and is the whole interface from the first mapper on."""

    def __init__(
        self, *, directory: Path, twin: DeviceTwin, rows: StoredMappers, rng: Callable[[], float]
    ) -> None:
        self._path = directory / SOCKET_NAME
        self._twin = twin
        self._rows = rows
        self._rng = rng
        self._dmi: Dmi | None = None

    def gauges(self) -> dict[str, Callable[[], float]]:
        """What the local metrics page shows."""
        return {
            "edgehive_dmi_reports_total": lambda: float(self._dmi.reports if self._dmi else 0),
            "edgehive_dmi_refused_total": lambda: float(self._dmi.refused if self._dmi else 0),
        }

    async def run(self) -> None:
        """Serve until cancelled.

        Raises:
            UserError: the socket's path cannot be used.
        """
        if self._dmi is not None:  # started again
            await self._dmi.run()
            return
        try:
            sock = bind_unix(self._path)
        except OSError as exc:
            raise UserError(f"the socket {self._path} cannot be used: {exc.strerror or exc}") from exc
        inode = self._path.lstat().st_ino
        try:
            await self._serve(sock)
        finally:  # whoever has it by now, it ends with us
            sock.close()
            with contextlib.suppress(OSError):
                if self._path.lstat().st_ino == inode:
                    self._path.unlink()

    async def _serve(self, sock: socket.socket) -> None:
        if not self._rows.mappers():
            await _connected(sock)
        from edgehive.edge.dmi import Dmi

        self._dmi = Dmi(
            directory=self._path.parent, sink=self._twin, rows=self._rows, rng=self._rng, sock=sock
        )
        self._twin.attach(self._dmi)  # mappers are listened to only when the objects are known
        await self._dmi.run()


async def _connected(sock: socket.socket) -> None:
    """Wait until somebody connects; the connection is not accepted yet."""
    loop, knocked = asyncio.get_running_loop(), asyncio.Event()
    loop.add_reader(sock, knocked.set)
    try:
        await knocked.wait()
    finally:
        loop.remove_reader(sock)
