"""The audit of `authorization.debug`: bounded, and quiet in the log."""

import asyncio
import logging
from contextlib import suppress
from typing import Any

import msgspec

from edgehive.cloud.access import AccessAudit
from edgehive.kit.errors import Unreachable
from edgehive.wire.message import Message


class Reviews:
    """Says no to everything, as soon as it is let."""

    def __init__(self) -> None:
        self.open = asyncio.Event()
        self.asked = 0
        self.away = False

    async def create(self, gvr: Any, body: bytes, *_: Any) -> bytes:
        await self.open.wait()
        self.asked += 1
        if self.away:
            raise Unreachable("away")
        return msgspec.json.encode({"status": {"allowed": False, "reason": "no"}})


def query(name: str) -> Message:
    return Message("1", 1, "query", f"default/secret/{name}", b"null", source="edged", group="meta")


async def settled(audit: AccessAudit, count: int) -> None:
    async with asyncio.timeout(5):
        while audit.stats.reviewed + audit.stats.skipped < count:
            await asyncio.sleep(0)


async def test_it_is_bounded_says_little_and_asks_again_only_later(caplog: Any) -> None:
    api, clock = Reviews(), [0.0]
    audit = AccessAudit(api=api, now=lambda: clock[0])  # type: ignore[arg-type]
    caplog.set_level(logging.WARNING)
    async with asyncio.TaskGroup() as group:
        task = group.create_task(audit.run())
        for index in range(2_000):
            audit.note("n", query(f"s{index}"))
        assert audit.stats.skipped == 2_000 - 1_024
        api.open.set()
        await settled(audit, 2_000)
        assert audit.stats.refusable == 1_024
        assert sum("would not be allowed" in r.message for r in caplog.records) == 20
        audit.note("n", query("s0"))
        assert (audit.stats.refusable, api.asked) == (1_025, 1_024), "known"
        clock[0] = 301.0
        audit.note("n", query("s0"))
        await settled(audit, 2_002)
        assert api.asked == 1_025
        assert "1004 more requests would have been refused" in caplog.text
        api.away = True
        audit.note("n", query("new"))
        await settled(audit, 2_003)
        assert audit.stats.skipped == 2_000 - 1_024 + 1
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task
