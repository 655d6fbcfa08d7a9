"""A mapper's process: built from its configuration, supervised, ended by a signal."""

import argparse
import asyncio
import contextlib
import logging
import random
import signal
import sys
from collections.abc import Sequence

from edgehive.aio.http import HttpServer
from edgehive.aio.supervise import Service, supervise
from edgehive.kit.errors import EdgehiveError, UserError
from edgehive.mapper.config import MapperConfig, add_arguments, read_arguments
from edgehive.mapper.driver import Driver
from edgehive.mapper.push import PushHub
from edgehive.mapper.rest import RestApi
from edgehive.mapper.service import Identity, MapperService

log = logging.getLogger(__name__)


async def run_mapper(driver: type[Driver], config: MapperConfig) -> None:
    """Run a mapper until cancelled.

    Raises:
        UserError: its socket or port cannot be used.
    """
    rng = random.SystemRandom().random
    pusher = PushHub()
    identity = Identity(
        name=config.name,
        protocol=config.protocol,
        version=config.version,
        socket=config.socket,
        edgecore_socket=config.edgecore_socket,
    )
    service = MapperService(identity, driver, rng=rng, pusher=pusher)
    services = [Service("mapper", service.run), Service("push", pusher.run)]
    try:
        if config.http_port:
            api = RestApi(service, pushes=pusher)
            server = HttpServer(api.handle, name="mapper", tls=config.tls())
            await server.listen(config.http_address, config.http_port)
            services.append(Service("http", server.run))
        await supervise(*services)
    except OSError as exc:
        raise UserError(f"the mapper cannot listen: {exc}", hint="see --socket and --http-port") from exc


def main(driver: type[Driver], argv: Sequence[str] | None = None, *, program: str | None = None) -> int:
    """Run a mapper as a program: parse the command line, log to standard error, end at SIGTERM or SIGINT.

    `program` is what its usage calls it; the name of the script, if it is not given.
    """
    parser = argparse.ArgumentParser(
        prog=program, description=(driver.__doc__ or "").split("\n")[0], allow_abbrev=False
    )
    add_arguments(parser)
    try:
        config = read_arguments(
            parser, list(sys.argv[1:] if argv is None else argv), protocol=driver.protocol
        )
        if not config.protocol:
            raise UserError(f"{driver.__name__} has no protocol", hint="set the class attribute `protocol`")
        logging.basicConfig(
            level=logging.DEBUG if config.verbosity >= 4 else logging.INFO,
            format="%(asctime)s %(levelname).1s %(name)s: %(message)s",
        )
        asyncio.run(_until_signal(driver, config))
    except (UserError, BaseExceptionGroup) as exc:
        leaves = _leaves(exc)
        if not all(isinstance(leaf, EdgehiveError) for leaf in leaves):
            raise
        for leaf in leaves:
            sys.stderr.write(f"{parser.prog}: error: {leaf}\n")
        return 1
    return 0


async def _until_signal(driver: type[Driver], config: MapperConfig) -> None:
    loop = asyncio.get_running_loop()
    task = asyncio.current_task()
    assert task is not None
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, task.cancel)
    with contextlib.suppress(asyncio.CancelledError):  # the signal is the only one who cancels this task
        await run_mapper(driver, config)


def _leaves(error: BaseException) -> list[BaseException]:
    if isinstance(error, BaseExceptionGroup):
        return [leaf for one in error.exceptions for leaf in _leaves(one)]
    return [error]
