"""`edgehive control-plane`: API server, scheduler and controllers in one process."""

import argparse
import asyncio
import gc
import logging
import time
from pathlib import Path

from edgehive import __version__
from edgehive.cli.notify import Notifier

log = logging.getLogger(__name__)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the flags."""
    parser.add_argument("--data-dir", metavar="DIR", type=Path, required=True, help="database and keys")
    parser.add_argument(
        "--address", metavar="IP", default="127.0.0.1", help="where to listen (default: %(default)s)"
    )
    parser.add_argument("--port", type=int, default=6443, help="default: %(default)s; 0 takes a free one")
    parser.add_argument(
        "--name",
        dest="names",
        action="append",
        default=[],
        metavar="NAME",
        help="another host name or address that clients use; may be repeated",
    )
    parser.add_argument("--kubeconfig", metavar="FILE", type=Path, help="write the administrator's there")
    parser.add_argument("--cloudcore-kubeconfig", metavar="FILE", type=Path, help="write cloudcore's there")
    parser.add_argument(
        "--token-file", metavar="FILE", type=Path, help='lines of token,user,uid,"group,group"'
    )
    parser.add_argument(
        "--stream-server",
        metavar="HOST:PORT",
        default="",
        help="cloudcore's stream server, for kubectl logs and exec",
    )
    parser.add_argument("-v", "--v", dest="verbosity", type=int, default=2, metavar="LEVEL", help="log level")
    parser.add_argument("--log-format", choices=("text", "json"), default="text")


def run_control_plane(arguments: argparse.Namespace) -> int:
    """Serve until interrupted."""
    from edgehive.cli.daemon import run_daemon
    from edgehive.cli.logs import configure_logging

    configure_logging(arguments.log_format, arguments.verbosity)
    log.info("control plane %s starts, data in %s", __version__, arguments.data_dir)
    return run_daemon("control-plane", lambda notifier: _serve(arguments, notifier), fast_loop=True)


async def _serve(arguments: argparse.Namespace, notifier: Notifier) -> None:
    from edgehive.aio.supervise import Service, supervise
    from edgehive.apiserver.app import ApiServer, ApiServerOptions
    from edgehive.apiserver.csr_signer import sign
    from edgehive.cli.control_plane_nodes import NodeWatch
    from edgehive.cli.up_configs import write_private
    from edgehive.controllers.app import Controllers
    from edgehive.edge.config_load import split_address

    options = ApiServerOptions(
        directory=arguments.data_dir.absolute(),
        host=arguments.address,
        port=arguments.port,
        names=arguments.names,
        token_file=arguments.token_file,
        stream_server=split_address(arguments.stream_server) if arguments.stream_server else None,
    )
    server = ApiServer(options)
    await server.start()
    for client, path in (("admin", arguments.kubeconfig), ("cloudcore", arguments.cloudcore_kubeconfig)):
        if path is not None:
            path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            write_private(path, server.kubeconfig(client))
    api = server.local_api()
    controllers = Controllers(
        api=api,
        clock=time.time,
        ca_pem=server.pki.ca_pem().encode("ascii"),
        sign=lambda request: sign(server.pki.path, request),
    )
    watch = NodeWatch(
        api=api,
        started=time.time(),
        tell=lambda node, ready: notifier.send(**{"NODE_READY" if ready else "NODE_NOT_READY": node}),
    )

    async def announce() -> None:
        await asyncio.sleep(0)  # the listening socket takes requests from the first turn of the loop on
        gc.collect()
        gc.freeze()  # what a start leaves behind lives as long as the process
        log.info("ready: serving %s", server.url)
        notifier.ready(f"serving {server.url}")

    await supervise(
        Service("api server", server.run),
        Service("controllers", controllers.run),
        *watch.services(),
        Service("announce", announce, once=True),
    )
