"""Telling a service manager how we are: systemd's ``sd_notify`` protocol, which `edgehive up` speaks too.

A daemon sends ``READY=1`` once it serves, and ``STATUS=...`` for people. Without ``NOTIFY_SOCKET`` nothing is
sent.
"""

import logging
import os
import socket
from collections.abc import Mapping

log = logging.getLogger(__name__)


class Notifier:
    """Sends datagrams to the socket named by ``NOTIFY_SOCKET``."""

    def __init__(self, environ: Mapping[str, str] = os.environ) -> None:
        path = environ.get("NOTIFY_SOCKET", "")
        self._address = "\0" + path[1:] if path.startswith("@") else path

    def ready(self, status: str) -> None:
        """The process serves."""
        self.send(READY="1", STATUS=status)

    def stopping(self) -> None:
        """The process ends in good order."""
        self.send(STOPPING="1")

    def send(self, **fields: str) -> None:
        """Send one datagram; a manager that is gone or busy is not our problem."""
        if not self._address:
            return
        lines = "\n".join(f"{key}={value.replace(chr(10), ' ')}" for key, value in fields.items())
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sock:
                sock.setblocking(False)
                sock.sendto(f"PID={os.getpid()}\n{lines}".encode(), self._address)
        except OSError as exc:
            log.debug("the service manager did not take %s: %s", "/".join(fields), exc)


def parse_notification(datagram: bytes) -> dict[str, str]:
    """Read a datagram; lines that are not ``KEY=VALUE`` are skipped."""
    lines = datagram.decode("utf-8", "replace").splitlines()
    return {key: value for key, found, value in (line.partition("=") for line in lines) if found}
