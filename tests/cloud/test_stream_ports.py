"""The record of tunnel ports, nodes' kubelet ports, and NAT rules with the real iptables in a network of its own."""

import asyncio
import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgehive.cloud.iptables import Iptables, IptablesManager, changes, wanted_rules
from edgehive.cloud.stream_ports import (
    ANNOTATION,
    NodePorts,
    PortRecord,
    PortStore,
    kubelet_port,
    read_record,
    write_record,
)
from edgehive.kit.errors import EdgehiveError, UserError
from edgehive.kube.refs import CONFIGMAPS, NODES
from tests.support.fakeapi import FakeApi


def test_an_instance_keeps_its_port_and_a_port_is_never_taken_twice() -> None:
    port, record = PortRecord().take("10.0.0.1")
    assert port == 10351
    other, record = record.take("10.0.0.2")
    assert other == 10352
    assert record.take("10.0.0.1") == (10351, record)
    gone = PortRecord({"10.0.0.2": 10352}, record.used)
    assert gone.take("10.0.0.3")[0] == 10353


def test_the_record_is_the_original_s() -> None:
    text = '{"ipTunnelPort":{"192.0.2.2":10351},"port":{"10351":true}}'
    assert read_record(text) == PortRecord({"192.0.2.2": 10351}, frozenset({10351}))
    assert write_record(read_record(text)) == text
    assert read_record("{}") == PortRecord()
    assert read_record('{"ipTunnelPort":null,"port":null}') == PortRecord()


@given(st.dictionaries(st.ip_addresses(v=4).map(str), st.integers(10351, 65535), max_size=5))
def test_a_record_survives_writing(ports: dict[str, int]) -> None:
    record = PortRecord(ports, frozenset(ports.values()))
    assert read_record(write_record(record)) == record


@pytest.mark.parametrize(
    "text", ["", "[]", "{", '{"port":{"x":true}}', '{"ipTunnelPort":{"1.2.3.4":"1"}}', "[" * 100000]
)
def test_a_broken_record_is_said(text: str) -> None:
    with pytest.raises(UserError, match="tunnelport"):
        read_record(text)


def test_what_is_no_address_never_reaches_a_command() -> None:
    record = read_record(
        '{"ipTunnelPort":{"1.2.3.4 -j ACCEPT":10351,"-h":10352,"1.2.3.4":10353,"::1":10354}}'
    )
    assert wanted_rules(record, 10003) == {
        "-A TUNNEL-PORT -p tcp -m tcp --dport 10353 -j DNAT --to-destination 1.2.3.4:10003"
    }


async def test_two_instances_agree_on_their_ports() -> None:
    api = FakeApi()
    async with asyncio.TaskGroup() as group:
        asking = [group.create_task(PortStore(api=api).negotiate(f"10.0.0.{n}")) for n in range(1, 5)]
    ports = [task.result() for task in asking]
    assert sorted(ports) == [10351, 10352, 10353, 10354]
    assert await PortStore(api=api).negotiate("10.0.0.3") == ports[2]
    raw = json.loads(await api.get(CONFIGMAPS, "tunnelport", _in_kubeedge()))
    assert read_record(raw["metadata"]["annotations"][ANNOTATION]).by_address["10.0.0.4"] == ports[3]


def _in_kubeedge() -> Any:
    from edgehive.kube.api import WriteOptions

    return WriteOptions(namespace="kubeedge")


async def test_nodes_with_a_tunnel_here_name_the_port_of_this_instance() -> None:
    api = FakeApi()
    for name in ("edge1", "edge2"):
        body = {
            "metadata": {"name": name},
            "status": {"daemonEndpoints": {"kubeletEndpoint": {"Port": 10350}}},
        }
        await api.create(NODES, json.dumps(body).encode())
    nodes = ["edge1"]
    rows: dict[str, bytes] = {}

    async def refresh() -> None:
        for name in ("edge1", "edge2"):
            rows[name] = await api.get(NODES, name)

    await refresh()
    ports = NodePorts(api=api, port=10351, nodes=lambda: nodes, lookup=rows.get)
    async with asyncio.TaskGroup() as group:
        running = group.create_task(ports.run())
        async with asyncio.timeout(5):
            while kubelet_port(rows["edge1"]) != 10351:
                await asyncio.sleep(0.01)
                await refresh()
            assert kubelet_port(rows["edge2"]) == 10350
            nodes.append("edge2")
            ports.opened("edge2")
            while kubelet_port(rows["edge2"]) != 10351:
                await asyncio.sleep(0.01)
                await refresh()
        running.cancel()


def test_rules_that_are_there_are_left_alone() -> None:
    wanted = wanted_rules(PortRecord({"10.0.0.1": 10351, "10.0.0.2": 10352}), 10003)
    listed = "-N TUNNEL-PORT\n" + "\n".join(sorted(wanted)) + "\n"
    assert changes(listed, wanted) == []
    stale = "-A TUNNEL-PORT -p tcp -m tcp --dport 10353 -j DNAT --to-destination 10.0.0.3:10003"
    assert changes(listed + stale + "\n", wanted) == [["-D", *stale.split()[1:]]]


@pytest.fixture
def iptables(tmp_path: Path) -> Iterator[Iptables]:
    """The real program, in a network namespace of its own."""
    if os.geteuid() != 0 or not shutil.which("iptables") or not shutil.which("nsenter"):
        pytest.skip("needs root, iptables and nsenter")
    holder = subprocess.Popen(["unshare", "-n", "sh", "-c", "echo up; exec sleep 60"], stdout=subprocess.PIPE)
    assert holder.stdout is not None
    holder.stdout.readline()
    program = tmp_path / "iptables"
    program.write_text(f'#!/bin/sh\nexec nsenter --net=/proc/{holder.pid}/ns/net iptables "$@"\n')
    program.chmod(0o755)
    try:
        if subprocess.run([program, "-t", "nat", "-L", "-n"], capture_output=True, check=False).returncode:
            pytest.skip("this kernel has no NAT table for us")
        yield Iptables(str(program))
    finally:
        holder.kill()
        holder.wait()
        holder.stdout.close()


async def test_rules_follow_the_record_and_are_gone_at_the_end(iptables: Iptables) -> None:
    record = PortRecord({"10.0.0.1": 10351})

    async def read() -> PortRecord:
        return record

    before = await iptables.run("-S")
    manager = IptablesManager(iptables=iptables, stream_port=10003, record=read)
    await manager.sync()
    rules = await iptables.run("-S")
    for hook in ("OUTPUT", "PREROUTING"):
        assert f'-A {hook} -m comment --comment "kubeedge tunnel port" -j TUNNEL-PORT' in rules
    assert "--dport 10351 -j DNAT --to-destination 10.0.0.1:10003" in rules
    record = PortRecord({"10.0.0.2": 10352})
    await manager.sync()
    await manager.sync()
    rules = await iptables.run("-S")
    assert "10351" not in rules
    assert rules.count("TUNNEL-PORT") == 4
    await manager.remove()
    assert await iptables.run("-S") == before


async def test_a_run_ends_without_rules(iptables: Iptables) -> None:
    async def read() -> PortRecord:
        return PortRecord({"10.0.0.1": 10351})

    manager = IptablesManager(iptables=iptables, stream_port=10003, record=read)
    async with asyncio.TaskGroup() as group:
        running = group.create_task(manager.run())
        async with asyncio.timeout(10):
            while "10351" not in await iptables.run("-S"):
                await asyncio.sleep(0.01)
        running.cancel()
    assert "TUNNEL-PORT" not in await iptables.run("-S")
    with pytest.raises(EdgehiveError, match="iptables -S TUNNEL-PORT"):
        await iptables.run("-S", "TUNNEL-PORT")
