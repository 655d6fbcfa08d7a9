"""`edgehive cri-check SOCKET`: whether a CRI runtime there can run pods (`up --runtime auto` asks)."""

import argparse
import asyncio
from typing import Any

from edgehive.aio import cri_messages
from edgehive.aio.grpc import GrpcClient, GrpcError
from edgehive.aio.protobuf import decode, encode
from edgehive.kit.errors import Unreachable, UserError
from edgehive.kit.text import safe_label

NO_NETWORK = 3
"""Exit code: the runtime works, but has no pod network (no CNI plugin is set up)."""

_UNIMPLEMENTED = 12


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument("socket", help="path of the unix socket")
    parser.add_argument("--seconds", type=float, default=5.0, help="how long it may take to answer")


def run_check(arguments: argparse.Namespace) -> int:
    """Print name and version of the runtime; the exit code tells whether it has a pod network.

    Raises:
        UserError: nobody answers there, it speaks no CRI v1, or it is not ready.
    """
    name, has_network = asyncio.run(_check(arguments.socket, arguments.seconds))
    print(name)
    return 0 if has_network else NO_NETWORK


async def _check(path: str, seconds: float) -> tuple[str, bool]:
    client = GrpcClient(path, connect_timeout=seconds)
    try:
        version = await _ask(client, cri_messages.Version, seconds)
        status = (await _ask(client, cri_messages.Status, seconds)).get("status") or {}
    except Unreachable as exc:
        raise UserError(f"nothing answers at {path}: {exc}") from exc
    except GrpcError as exc:
        if exc.code == _UNIMPLEMENTED:
            raise UserError(
                f"the runtime at {path} has its Kubernetes interface (CRI v1) switched off",
                hint="containerd: remove cri from disabled_plugins in its config.toml",
            ) from exc
        raise UserError(f"the runtime at {path} answered: {safe_label(str(exc))}") from exc
    finally:
        await client.close()
    name = safe_label(f"{version.get('runtime_name', '?')} {version.get('runtime_version', '')}").strip()
    missing = [c for c in status.get("conditions", ()) if not c.get("status")]
    for condition in missing:
        if condition.get("type") != "NetworkReady":
            raise UserError(
                f"{name} at {path} is not ready: {safe_label(condition.get('type', ''))} "
                f"({safe_label(condition.get('message') or condition.get('reason', ''))})"
            )
    return name, not missing


async def _ask(client: GrpcClient, method: cri_messages.Method, seconds: float) -> dict[str, Any]:
    answer = await client.call(method.path, encode(method.request, {}), timeout=seconds)
    return decode(method.response, answer)
