"""What is left in the API server of clients that have gone: nothing that waits for a search for cycles."""

import asyncio
import contextlib
import gc
import ssl
from pathlib import Path

import pytest

from edgehive.aio.http import Request
from edgehive.aio.http_connection import Connection
from edgehive.apiserver.app import ApiServer, ApiServerOptions

WATCH = b"GET /api/v1/configmaps?watch=1&resourceVersion=0 HTTP/1.1\r\nHost: h\r\n\r\n"
LIST = b"GET /api/v1/pods HTTP/1.1\r\nHost: h\r\n\r\n"
NOTHING = b"GET /api/v1/namespaces/x/pods/y HTTP/1.1\r\nHost: h\r\n\r\n"
CREATE = (
    b"POST /api/v1/namespaces/default/configmaps HTTP/1.1\r\nHost: h\r\nContent-Type: application/json\r\n"
    b"Content-Length: 30\r\nExpect: 100-continue\r\n\r\n{"
)


async def leave(port: int, tls: ssl.SSLContext, data: bytes) -> None:
    """Ask, wait for the head of an answer, and go."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port, ssl=tls)
    writer.write(data)
    await reader.readuntil(b"\r\n\r\n")
    writer.close()
    with contextlib.suppress(ConnectionError, ssl.SSLError):
        await writer.wait_closed()


async def test_clients_that_have_gone_leave_nothing_behind(tmp_path: Path) -> None:
    server = ApiServer(ApiServerOptions(directory=tmp_path, port=0))
    await server.start()
    tls = ssl.create_default_context(cadata=server.pki.ca_pem())
    tls.load_cert_chain(server.pki.cert("admin"), server.pki.key("admin"))
    async with asyncio.TaskGroup() as group:
        task = group.create_task(server.run())
        left: list[str] = []
        gc.collect()
        gc.disable()  # as good as: a daemon collects what was long-lived once in hours
        try:
            for data in (WATCH, LIST, NOTHING, CREATE, WATCH):
                await leave(server.port, tls, data)
            async with asyncio.timeout(5):
                while left := [
                    type(o).__name__ for o in gc.get_objects() if type(o) in (Connection, Request)
                ]:
                    await asyncio.sleep(0.01)
        except TimeoutError:
            pytest.fail(f"{left} are left")
        finally:
            gc.enable()
            task.cancel()
