"""What holds for every test: no leaked task, and on CI nothing real may be skipped."""

import asyncio
import functools
import inspect
import os
from collections.abc import Awaitable, Callable, Generator
from typing import Any

import pytest


def pytest_configure() -> None:
    """Say that there is no event loop yet: asked for the current one, Python 3.11 makes one that nobody closes."""
    asyncio.set_event_loop(None)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """With ``EDGEHIVE_REQUIRE_REAL=1`` a skipped test of a real component is a failed one."""
    report = yield
    if (
        report.skipped
        and not hasattr(report, "wasxfail")
        and os.environ.get("EDGEHIVE_REQUIRE_REAL") == "1"
        and any(item.get_closest_marker(name) for name in ("containerd", "e2e", "real"))
    ):
        report.outcome = "failed"
        report.longrepr = f"skipped although EDGEHIVE_REQUIRE_REAL=1: {report.longrepr}"
    return report


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report(
    collector: pytest.Collector,
) -> Generator[None, pytest.CollectReport, pytest.CollectReport]:
    """The same for a module that skips itself because a package is missing."""
    report = yield
    if report.skipped and os.environ.get("EDGEHIVE_REQUIRE_REAL") == "1":
        report.outcome = "failed"
        report.longrepr = f"{collector.nodeid}: skipped although EDGEHIVE_REQUIRE_REAL=1: {report.longrepr}"
    return report


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    """Fail a coroutine test that leaves a task behind which it started."""
    if isinstance(item, pytest.Function) and inspect.iscoroutinefunction(item.obj):
        item.obj = _watched(item.obj)


def _watched(test: Callable[..., Awaitable[Any]]) -> Callable[..., Awaitable[None]]:
    @functools.wraps(test)
    async def run(*args: Any, **kwargs: Any) -> None:
        before = asyncio.all_tasks()
        await test(*args, **kwargs)
        for _ in range(20):  # what was cancelled last may need some rounds to end
            leaked = {task for task in asyncio.all_tasks() - before if not task.done()}
            if not leaked:
                return
            await asyncio.sleep(0.01)
        names = ", ".join(sorted(f"{task.get_name()} ({task.get_coro()})" for task in leaked))
        pytest.fail(f"tasks left behind: {names}")

    return run
