"""The pod network that edgecore sets up where there is none: the file, and pods on a real containerd with it."""

import asyncio
import ipaddress
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from edgehive.edge import cni
from edgehive.edge.cni import (
    FILE_NAME,
    NetworkDirectories,
    choose_subnet,
    directories_of,
    parse_routes,
    set_up,
)
from edgehive.edge.cri import CriRuntime
from edgehive.edge.runtime import ContainerSpec, SandboxSpec
from edgehive.kit.errors import UserError
from tests.support.containerd import BUSYBOX, Containerd, why_not_apart
from tests.support.containerd import apart as containerd_apart

ROUTES = """Iface Destination Gateway Flags RefCnt Use Metric Mask MTU Window IRTT
eth0 00000000 0100000A 0003 0 0 0 00000000 0 0 0
eth0 0000560A 00000000 0001 0 0 0 00FFFFFF 0 0 0
edgehive0 0000BA0A 00000000 0001 0 0 0 0000FFFF 0 0 0
"""


@pytest.fixture
def place(tmp_path: Path) -> NetworkDirectories:
    (tmp_path / "bin").mkdir()
    for name in cni.NEEDED:
        (tmp_path / "bin" / name).write_text("#!/bin/sh\n")
        (tmp_path / "bin" / name).chmod(0o755)
    return NetworkDirectories(str(tmp_path / "net.d"), [str(tmp_path / "nowhere"), str(tmp_path / "bin")])


def files(place: NetworkDirectories) -> list[str]:
    return [path.name for path in Path(place.configurations).iterdir()]


def test_it_is_written_once_and_with_a_network_that_is_free(
    place: NetworkDirectories, tmp_path: Path
) -> None:
    routes = tmp_path / "route"
    routes.write_text(ROUTES)
    assert "10.186.0.0/16" in set_up(place, "", routes=routes), "10.86.0.0/24 is in use"
    path = Path(place.configurations, FILE_NAME)
    made = json.loads(path.read_text())
    assert [one["type"] for one in made["plugins"]] == ["bridge", "portmap"]
    assert made["plugins"][0]["ipam"]["ranges"] == [[{"subnet": "10.186.0.0/16"}]]
    assert files(place) == [FILE_NAME]
    before = path.stat().st_mtime_ns
    assert set_up(place, "10.1.0.0/16", routes=routes) == ""
    assert path.stat().st_mtime_ns == before, "what pods already have stays"


@pytest.mark.parametrize("name", ["10-flannel.conflist", "99-loop.conf", "x.json"])
def test_what_others_have_configured_stays_alone(
    place: NetworkDirectories, name: str, tmp_path: Path
) -> None:
    Path(place.configurations).mkdir()
    Path(place.configurations, name).write_text("theirs")
    assert set_up(place, "") == ""
    assert files(place) == [name]
    assert Path(place.configurations, name).read_text() == "theirs"


def test_what_is_missing_is_said(place: NetworkDirectories, tmp_path: Path) -> None:
    (tmp_path / "bin/portmap").unlink()
    with pytest.raises(UserError, match="portmap not found") as caught:
        set_up(place, "")
    assert "containernetworking-plugins" in caught.value.hint
    assert not Path(place.configurations).exists()


def test_networks() -> None:
    taken = parse_routes(ROUTES)
    assert [str(one) for one in taken] == ["10.86.0.0/24"], "neither the default route nor our own"
    assert choose_subnet("", []) == "10.86.0.0/16"
    assert choose_subnet("10.3.0.0/24", taken) == "10.3.0.0/24"
    for wanted, taken in (
        ("10.3.0.1/24", []),
        ("fe80::/64", []),
        ("", [ipaddress.IPv4Network("0.0.0.0/1"), ipaddress.IPv4Network("128.0.0.0/1")]),
    ):
        with pytest.raises(UserError, match="podCIDR"):
            choose_subnet(wanted, taken)


def test_where_the_runtime_looks() -> None:
    said = json.dumps({"cni": {"confDir": "/c", "binDir": "/b"}})
    assert directories_of(said) == NetworkDirectories("/c", ["/b"])
    assert directories_of('{"cni": {"binDirs": ["/b", "/d"]}}').plugins == ["/b", "/d"]
    for nonsense in ("", "{", "[]", '{"cni": 3}', "null", "[" * 100_000):
        assert directories_of(nonsense) == NetworkDirectories()


@pytest.fixture(scope="module")
def apart() -> Iterator[Containerd]:
    if reason := why_not_apart():
        pytest.skip(reason)
    with containerd_apart() as made:
        yield made


@pytest.mark.containerd
async def test_pods_get_addresses_reach_each_other_and_are_reached_by_host_ports(
    apart: Containerd, tmp_path: Path
) -> None:
    checked = subprocess.run(
        [sys.executable, "-m", "edgehive", "cri-check", str(apart.socket)], check=False, capture_output=True
    )
    assert checked.returncode == 4, "edgehive up is told that a network can be made"
    runtime = CriRuntime(endpoint=apart.endpoint, node_ip="127.0.0.1")
    try:
        assert await runtime.network_problem()
        directories = directories_of(await runtime.own_config())
        assert directories.configurations == str(apart.base / "cni/net.d")
        assert "10.99.0.0/24" in set_up(directories, "10.99.0.0/24")
        async with asyncio.timeout(20):
            while await runtime.network_problem():
                await asyncio.sleep(0.05)
        answer = "while :; do echo hello | nc -l -p 80; done"
        one, _ = await start(runtime, "one", answer, tmp_path, ports=[("TCP", 80, 18080, "")])
        two, other = await start(runtime, "two", "sleep 1000", tmp_path)
        addresses = [(await runtime.sandbox_status(each)).ip for each in (one, two)]
        assert all(ipaddress.ip_address(a) in ipaddress.ip_network("10.99.0.0/24") for a in addresses)
        assert addresses[0] != addresses[1]
        for target in (f"{addresses[0]} 80", "10.99.0.1 18080"):
            # It may just be going round its loop.
            ask = f"for n in 1 2 3 4 5 6 7 8 9; do nc {target} </dev/null && exit; sleep 1; done"
            got = await runtime.exec_sync(other, ["sh", "-c", ask], 20)
            assert got.stdout == b"hello\n", (target, got)
    finally:
        for sandbox in await runtime.list_sandboxes():
            await runtime.stop_sandbox(sandbox.id)
            await runtime.remove_sandbox(sandbox.id)
        await runtime.close()


async def start(
    runtime: CriRuntime,
    name: str,
    script: str,
    tmp_path: Path,
    *,
    ports: list[tuple[str, int, int, str]] | None = None,
) -> tuple[str, str]:
    labels = {"io.kubernetes.pod.uid": name}
    logs = tmp_path / name
    sandbox = SandboxSpec(name, "default", name, 0, name, str(logs), labels, port_mappings=ports or ())
    (logs / "c").mkdir(parents=True)
    sandbox_id = await runtime.run_sandbox(sandbox)
    command = ["sh", "-c", script]
    spec = ContainerSpec("c", 0, BUSYBOX, command, [], "", [], [], "c/0.log", labels)
    container = await runtime.create_container(sandbox_id, spec, sandbox)
    await runtime.start_container(container)
    return sandbox_id, container
