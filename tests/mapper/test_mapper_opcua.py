"""The OPC UA mapper's driver against asyncua's own server."""

import socket

import pytest

pytest.importorskip("asyncua", reason="the extra mapper-opcua is not installed")

from asyncua import Server, ua

from edgehive.mapper.model import Device, Property
from edgehive.mapper.opcua import OpcuaDriver


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
async def test_nodes_are_read_and_written_in_their_own_type():
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
