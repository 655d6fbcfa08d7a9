"""What cloudcore makes of its configuration and its machine before it serves."""

import asyncio
import subprocess
import sys
from pathlib import Path
from typing import Any

import msgspec
import pytest

from edgehive.aio.http import HttpServer, Request, Response
from edgehive.cloud.config_load import parse_config
from edgehive.cloud.startup import kube_client, kube_config, persist
from edgehive.kit.errors import UserError
from edgehive.kube.refs import NODES
from edgehive.kube.status import ApiStatus


async def test_requests_are_made_at_the_rate_that_is_configured_whatever_the_node_limit() -> None:
    text = "kubeAPIConfig: {qps: 40, burst: 4, master: 'http://x'}\nmodules: {cloudHub: {nodeLimit: 5000}}"
    config = parse_config(text).config
    answered = 0

    async def answer(_: Request) -> Response:
        nonlocal answered
        answered += 1
        return Response(200, b'{"kind":"Node","apiVersion":"v1","metadata":{"name":"n"}}')

    server = HttpServer(answer, name="api")
    port = await server.listen("127.0.0.1", 0)
    settings = msgspec.structs.replace(config.kube_api_config, master=f"http://127.0.0.1:{port}")
    config = msgspec.structs.replace(config, kube_api_config=settings)
    loop = asyncio.get_running_loop()
    async with asyncio.TaskGroup() as group:
        serving = group.create_task(server.run())
        async with kube_client(config, kube_config(config)) as client:
            begun = loop.time()
            async with asyncio.TaskGroup() as requests:
                for _ in range(24):
                    requests.create_task(client.get(NODES, "n"))
            took = loop.time() - begun
        serving.cancel()
    assert answered == 24
    assert took >= (24 - 4) / 40 * 0.95, "KubeEdge would have made it 25,000 a second"


def test_a_machine_without_a_way_out_has_an_address_all_the_same() -> None:
    program = "from edgehive.cloud.config_load import local_address; print(local_address())"
    found = subprocess.run(
        ["unshare", "--net", sys.executable, "-c", program],
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    if "unshare failed" in found.stderr or "Operation not permitted" in found.stderr:
        pytest.skip("no right to make a network namespace")
    assert found.stdout.strip() == "127.0.0.1", found.stderr


async def test_and_a_node_registers_there(lab: Any, api: Any, tmp_path: Path) -> None:
    lab.address = "127.0.0.1"
    await lab.start()
    edge = await lab.edge("edge-1")
    answer = msgspec.json.decode((await edge.ask("insert", "null/node/edge-1", {"metadata": {}})).content)
    assert answer["Err"] is None
    assert api.find(NODES, "", "edge-1")["metadata"]["annotations"]["cloudcore"] == "127.0.0.1"


@pytest.mark.parametrize("code", [401, 403])
async def test_an_api_server_that_has_just_started_may_refuse_for_a_moment(code: int) -> None:
    left = [ApiStatus(code, "Forbidden", "no roles yet")]

    async def step() -> str:
        if left:
            raise left.pop()
        return "done"

    assert await persist(step) == "done"


async def test_an_account_without_the_right_is_said_to_need_it(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = 0

    async def at_once(seconds: float) -> None:
        assert seconds > 0

    async def step() -> None:
        nonlocal asked
        asked += 1
        raise ApiStatus(403, "Forbidden", "cannot list nodes")

    monkeypatch.setattr("asyncio.sleep", at_once)
    with pytest.raises(UserError, match="cannot list nodes"):
        await persist(step)
    assert asked == 4


async def test_a_request_that_makes_no_sense_is_not_repeated() -> None:
    async def step() -> None:
        raise ApiStatus(422, "Invalid", "nonsense")

    with pytest.raises(UserError, match="nonsense"):
        await persist(step)
