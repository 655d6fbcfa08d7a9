"""`edgehive gettoken`: the token with which a new edge joins, as ``keadm gettoken`` prints it."""

import argparse
import asyncio
import base64
import binascii
from pathlib import Path

import msgspec

from edgehive.aio.kubeauth import load_kubeconfig
from edgehive.aio.kubeclient import KubeClient
from edgehive.cli.kubeconfig_flag import add_kubeconfig
from edgehive.cli.up_configs import write_private
from edgehive.kit.errors import Unreachable, UserError
from edgehive.kube.api import WriteOptions
from edgehive.kube.refs import SECRETS
from edgehive.kube.status import ApiStatus

_NAMESPACE, _NAME, _KEY = "kubeedge", "tokensecret", "tokendata"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the flags."""
    add_kubeconfig(parser, "whom to ask")
    parser.add_argument(
        "--output", metavar="FILE", type=Path, help="write it there, mode 0600, not to the terminal"
    )
    parser.add_argument(
        "--wait", metavar="SECONDS", type=float, default=0.0, help="wait so long for cloudcore to make one"
    )


def run_gettoken(arguments: argparse.Namespace) -> int:
    """Print or store the token."""
    token = asyncio.run(fetch_token(arguments.kubeconfig, arguments.wait))
    if arguments.output:
        arguments.output.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        write_private(arguments.output, token)
    else:
        print(token)
    return 0


async def fetch_token(kubeconfig: str, wait: float) -> str:
    """The token that cloudcore keeps in its Secret; waits up to `wait` seconds for one to be made."""
    loop = asyncio.get_running_loop()
    deadline = loop.time() + wait
    async with KubeClient(load_kubeconfig(kubeconfig)) as client:
        while True:
            try:
                raw = await client.get(SECRETS, _NAME, WriteOptions(namespace=_NAMESPACE))
                return base64.b64decode(msgspec.json.decode(raw)["data"][_KEY], validate=True).decode("ascii")
            except (KeyError, TypeError, binascii.Error, UnicodeDecodeError) as exc:
                raise UserError(f"the Secret {_NAMESPACE}/{_NAME} holds no token") from exc
            except (ApiStatus, Unreachable) as exc:
                if loop.time() < deadline and not (isinstance(exc, ApiStatus) and exc.code in (401, 403)):
                    await asyncio.sleep(0.2)
                    continue
                if isinstance(exc, ApiStatus) and exc.code == 404:
                    raise UserError(
                        f"there is no token yet: the Secret {_NAMESPACE}/{_NAME} does not exist",
                        hint="cloudcore makes it at its first start",
                    ) from exc
                raise
