"""`edgehive cri-check SOCKET`: whether a CRI runtime there can run pods (`up --runtime auto` asks)."""

import argparse
import asyncio
import os
from typing import Any

from edgehive.aio import cri_messages
from edgehive.aio.grpc import GrpcClient, GrpcError
from edgehive.aio.protobuf import Method, decode, encode
from edgehive.edge.cni import directories_of, missing_plugins, others
from edgehive.kit.errors import Unreachable, UserError
from edgehive.kit.text import safe_label

NO_NETWORK = 3
"""Exit code: the runtime works, but has no pod network and no CNI plugins to make one with."""
CAN_HAVE_NETWORK = 4
"""Exit code: the runtime works and has CNI plugins, but nobody has configured a pod network."""

_UNIMPLEMENTED = 12


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument("socket", help="path of the unix socket")
    parser.add_argument("--seconds", type=float, default=5.0, help="how long it may take to answer")


def run_check(arguments: argparse.Namespace) -> int:
    """Print name and version of the runtime; the exit code tells of its pod network.

    Raises:
        UserError: nobody answers there, it speaks no CRI v1, or it is not ready.
    """
    name, code = asyncio.run(_check(arguments.socket, arguments.seconds))
    print(name)
    return code


async def _check(path: str, seconds: float) -> tuple[str, int]:
    client = GrpcClient(path, connect_timeout=seconds)
    try:
        version = await _ask(client, cri_messages.Version, seconds)
        answer = await _ask(client, cri_messages.Status, seconds, verbose=True)
        status = answer.get("status") or {}
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
    if not missing:
        return name, 0
    directories = directories_of(str((answer.get("info") or {}).get("config", "")))
    possible = not others(directories) and not missing_plugins(directories)
    return name, CAN_HAVE_NETWORK if possible and os.geteuid() == 0 else NO_NETWORK


async def _ask(client: GrpcClient, method: Method, seconds: float, **request: bool) -> dict[str, Any]:
    answer = await client.call(method.path, encode(method.request, request), timeout=seconds)
    return decode(method.response, answer)
