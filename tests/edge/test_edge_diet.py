"""edgecore's memory: what an idle one has loaded, with everything on that `edgehive up` has on."""

import asyncio
import os
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from edgehive.edge.config import EdgeCoreConfig
from tests.support.mqtt import free_port

_LOOKED_AT = """
import signal, sys
from pathlib import Path

def look(*_):
    Path(sys.argv[0]).with_name("loaded.new").write_text("\\n".join(sys.modules))
    Path(sys.argv[0]).with_name("loaded.new").rename(Path(sys.argv[0]).with_name("loaded"))

signal.signal(signal.SIGUSR2, look)
from edgehive.cli.main import edgecore
sys.exit(edgecore())
"""

_ON = {
    "edgehive.edge.hub",
    "edgehive.edge.pods_manager",
    "edgehive.edge.process",
    "edgehive.edge.stream",
    "edgehive.edge.devicetwin",
    "edgehive.edge.dmi_door",
    "edgehive.edge.eventbus",
    "edgehive.edge.metaserver",
}
_NEVER = {
    "argparse": "for command lines that say more than where the configuration is",
    "bz2": "comes with shutil",
    "calendar": "times are read with fromisoformat",
    "cryptography": "a short-lived child asks for certificates",
    "ctypes": "no pod has a subPath",
    "edgehive.aio.grpc": "waits for the first mapper",
    "edgehive.aio.mqtt_client": "the embedded broker alone is on",
    "edgehive.aio.spdy": "nobody has asked for a command",
    "edgehive.edge.cni": "processes have the network of the machine",
    "edgehive.edge.cri": "pods are processes",
    "edgehive.edge.csi_volumes": "there is no plugin",
    "edgehive.edge.device_plugins": "there is no plugin",
    "edgehive.edge.dmi": "waits for the first mapper",
    "edgehive.edge.kubelet_process": "nobody has asked for a command",
    "edgehive.edge.kubelet_stats": "nobody has asked for statistics",
    "edgehive.edge.metaserver_face": "there has been no client",
    "edgehive.wire.mqtt_client": "the embedded broker alone is on",
    "encodings.idna": "sockets and TLS are given addresses as bytes",
    "h2": "waits for the first mapper",
    "http.client": "a short-lived child asks for certificates",
    "random": "os.urandom is enough",
    "shutil": "edge.programs has what an idle edge needs of it",
    "tempfile": "nothing is temporary",
    "typing_extensions": "msgspec does with what typing has",
    "uvloop": "for servers",
    "yaml": "a child parses the configuration",
}


def as_up_does(cloud: Any, directory: str) -> EdgeCoreConfig:
    """Every module that `edgehive up` switches on, on free ports."""
    config: EdgeCoreConfig = cloud.config(
        modules={
            "eventBus": {
                "enable": True,
                "mqttMode": 0,
                "mqttServerInternal": f"tcp://127.0.0.1:{free_port()}",
            },
            "deviceTwin": {"enable": True, "dmiSockPath": directory},
            "edgeStream": {"enable": True, "server": f"127.0.0.1:{free_port()}"},
            "metaManager": {
                "metaServer": {"enable": True, "server": f"127.0.0.1:{free_port()}", "dummyServer": ""}
            },
        }
    )
    modules = config.modules
    kubelet = msgspec.structs.replace(
        modules.edged.tailored_kubelet_config,
        read_only_port=free_port(),
        container_runtime_endpoint=f"process://{directory}/process",
    )
    edged = msgspec.structs.replace(modules.edged, tailored_kubelet_config=kubelet)
    hub = modules.edge_hub
    stream = msgspec.structs.replace(
        modules.edge_stream,
        tls_tunnel_ca_file=hub.tls_ca_file,
        tls_tunnel_cert_file=hub.tls_cert_file,
        tls_tunnel_private_key_file=hub.tls_private_key_file,
    )
    return msgspec.structs.replace(
        config, modules=msgspec.structs.replace(modules, edged=edged, edge_stream=stream)
    )


@pytest.fixture
def short() -> Iterator[str]:
    """A place whose path is short enough for sockets."""
    with tempfile.TemporaryDirectory(prefix="diet-", dir="/tmp") as directory:
        yield directory


async def test_an_idle_edgecore_has_loaded_only_what_it_uses(cloud: Any, tmp_path: Path, short: str) -> None:
    config = as_up_does(cloud, short)
    cloud.install(config)
    program, file, loaded = tmp_path / "looked_at.py", tmp_path / "edgecore.yaml", tmp_path / "loaded"
    program.write_text(_LOOKED_AT)
    file.write_bytes(msgspec.json.encode(msgspec.to_builtins(config)))
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, str(program), f"--config={file}", "-v=2"), env={**os.environ, "PYTHONWARNINGS": ""}
    )
    try:
        async with asyncio.timeout(30):
            await cloud.message("insert", "kube-node-lease/lease/edge-1")
            process.send_signal(12)
            while not loaded.exists():
                await asyncio.sleep(0.02)
    finally:
        process.terminate()
        await process.wait()
    modules = set(loaded.read_text().split())
    assert modules >= _ON
    assert {name: why for name, why in _NEVER.items() if name in modules} == {}
