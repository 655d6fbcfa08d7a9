"""The OPC UA mapper's driver against asyncua's own server."""

import asyncio
import socket

import pytest

pytest.importorskip("asyncua", reason="the extra mapper-opcua is not installed")

from asyncua import Server, ua

from edgehive.mapper.model import Device, Property
from edgehive.mapper.opcua import OpcuaDriver
from tests.mapper.test_mapper_sdk import device, mapper


async def started():
    """A server that is set up but does not run yet, its node, and its port."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    server = Server()
    await server.init()
    server.set_endpoint(f"opc.tcp://127.0.0.1:{port}/")
    server.set_security_policy([ua.SecurityPolicyType.NoSecurity])
    space = await server.register_namespace("urn:test")
    folder = await server.nodes.objects.add_object(space, "thing")
    level = await folder.add_variable(space, "level", ua.Variant(7, ua.VariantType.Int16))
    await level.set_writable()
    return server, level, port


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
async def test_nodes_are_read_and_written_in_their_own_type():
    server, level, port = await started()
    async with server:
        driver = OpcuaDriver(Device("default", "d", config={"url": f"opc.tcp://127.0.0.1:{port}/"}))
        await driver.connect()
        try:
            prop = Property("level", type="INT", visitor={"nodeID": level.nodeid.to_string()})
            assert await driver.read(prop) == 7
            await driver.write(prop, 9)
            assert (await level.read_data_value()).Value == ua.Variant(9, ua.VariantType.Int16)
            assert await driver.read(prop) == 9
        finally:
            await driver.close()


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
async def test_a_server_is_held_at_the_desired_value_and_missed_when_it_ends(tmp_path):
    server, level, port = await started()
    config = {"url": f"opc.tcp://127.0.0.1:{port}/"}
    visitors = {"nodeID": level.nodeid.to_string()}
    one = device("o", protocol="opcua", config=config, visitors=visitors, desired="9")
    async with mapper(tmp_path, OpcuaDriver, one) as (edgecore, _):
        async with server:
            await edgecore.until(lambda: edgecore.reported.get(("o", "level")) == "9", seconds=20)
            await level.write_value(ua.Variant(4, ua.VariantType.Int16))  # somebody turns the knob
            async with asyncio.timeout(20):
                while await level.read_value() != 9:
                    await asyncio.sleep(0.05)
        await edgecore.until(lambda: ("o", "offline") in edgecore.states, seconds=30)
