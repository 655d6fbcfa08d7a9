"""Bind a unix socket that nobody else may open: without asyncio, HTTP/2 or anything else that costs memory."""

import contextlib
import errno
import os
import socket
import stat
from pathlib import Path


def bind_unix(path: Path) -> socket.socket:
    """Take over `path` (mode 0600) and listen; a file that is no socket is left alone.

    Raises:
        OSError: the path cannot be used.
    """
    with contextlib.suppress(FileNotFoundError):
        if not stat.S_ISSOCK(path.lstat().st_mode):
            raise FileExistsError(errno.EEXIST, "it is there and is not a socket")
        path.unlink()
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o755)
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        sock.setblocking(False)
        old = os.umask(0o177)  # the socket must never be there with another mode
        try:
            sock.bind(str(path))
        finally:
            os.umask(old)
        sock.listen(64)
    except OSError:
        sock.close()
        raise
    return sock
