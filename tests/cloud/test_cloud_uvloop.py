"""The same on the event loop that cloudcore runs on in production; its timers and transports differ in detail."""

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from edgehive.kube.refs import OBJECTSYNCS, PODS

uvloop = pytest.importorskip("uvloop")


async def _a_pod_arrives(lab: Any, api: Any) -> None:
    await lab.start()
    edges = [await lab.edge(f"n{i}") for i in range(20)]
    for i in range(20):
        api.put(PODS, {"metadata": {"name": f"p{i}", "namespace": "default"}, "spec": {"nodeName": f"n{i}"}})
    for i, edge in enumerate(edges):
        await edge.wait(lambda m, i=i: m.resource == f"default/pod/p{i}")
    await api.until(
        lambda: (
            sum(bool(s.get("status", {}).get("objectResourceVersion")) for s in api.all(OBJECTSYNCS)) == 20
        )
    )


async def _a_silent_edge_is_dropped(lab: Any, api: Any) -> None:
    import msgspec

    config = lab.make_config()
    hub = msgspec.structs.replace(config.modules.cloud_hub, keepalive_interval=1)
    await lab.start(
        msgspec.structs.replace(config, modules=msgspec.structs.replace(config.modules, cloud_hub=hub))
    )
    edge = await lab.edge("edge-1")
    await edge.until_closed()


async def _the_certificate_decides(lab: Any, api: Any) -> None:
    from websockets.exceptions import InvalidStatus

    await lab.start()
    with pytest.raises(InvalidStatus):
        await lab.dial("victim", tls=lab.client_tls("system:node:edge-1"))


@pytest.mark.parametrize("scenario", [_a_pod_arrives, _a_silent_edge_is_dropped, _the_certificate_decides])
def test_on_uvloop(
    scenario: Callable[[Any, Any], Awaitable[None]], new_lab: Callable[[Any, Path], Any], tmp_path: Path
) -> None:
    from fakeapi import FakeApi

    async def run() -> None:
        api = FakeApi()
        lab = new_lab(api, tmp_path)
        try:
            await scenario(lab, api)
        finally:
            await lab.close()

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(run())
