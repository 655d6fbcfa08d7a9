"""The NAT rules of KubeEdge's iptables manager: connections to an instance's port go to its stream server.

Off unless ``modules.iptablesManager`` asks for it. Chain, comment and rules are the original's, so that either program
takes over what the other has written. IPv4 only, as there.
"""

import asyncio
import ipaddress
import logging
import shutil
import subprocess
from collections.abc import Awaitable, Callable, Sequence
from typing import Final

from edgehive.aio.supervise import Service
from edgehive.cloud.stream_ports import PortRecord, PortStore
from edgehive.kit.errors import EdgehiveError, UserError
from edgehive.kit.text import safe_label
from edgehive.kube.api import KubeApi

log = logging.getLogger(__name__)

CHAIN: Final = "TUNNEL-PORT"
_JUMP: Final = ("-m", "comment", "--comment", "kubeedge tunnel port", "-j", CHAIN)
_FROM: Final = ("OUTPUT", "PREROUTING")
_EVERY: Final = 10.0
_TIMEOUT: Final = 20.0

Command = Sequence[str]


def wanted_rules(record: PortRecord, stream_port: int) -> set[str]:
    """The rules for a record, in the words of ``iptables -S``."""
    return {
        f"-A {CHAIN} -p tcp -m tcp --dport {port} -j DNAT --to-destination {address}:{stream_port}"
        for address, port in record.by_address.items()
        if ipaddress.ip_address(address).version == 4
    }


def changes(listed: str, wanted: set[str]) -> list[Command]:
    """Return the commands that make the rules `listed` (``iptables -S``) the `wanted` ones."""
    present = {line.strip() for line in listed.splitlines() if line.startswith(f"-A {CHAIN} ")}
    stale = [["-D", *rule.split()[1:]] for rule in sorted(present - wanted)]
    return [*stale, *(rule.split() for rule in sorted(wanted - present))]


class Iptables:
    """Runs the program; raises `EdgehiveError` with its words."""

    def __init__(self, program: str = "iptables") -> None:
        self._program = program

    def check(self) -> None:
        """Raises `UserError` when it is not installed."""
        if shutil.which(self._program) is None:
            raise UserError(
                f"modules.iptablesManager is enabled, but there is no {self._program} here",
                hint="install it, or set modules.iptablesManager.enable: false",
            )

    async def run(self, *words: str) -> str:
        """Run one command on the table ``nat`` and return what it prints."""
        process = await asyncio.create_subprocess_exec(
            self._program,
            "-w",
            "5",
            "-t",
            "nat",
            *words,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        try:
            async with asyncio.timeout(_TIMEOUT):
                out, errors = await process.communicate()
        except TimeoutError as exc:
            raise EdgehiveError(f"iptables {' '.join(words)}: no answer in {_TIMEOUT:g} s") from exc
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()
        if process.returncode != 0:
            text = safe_label(errors.decode(errors="replace"), 300)
            raise EdgehiveError(f"iptables {' '.join(words)}: {text}")
        return out.decode(errors="replace")


class IptablesManager:
    """Keeps the chain in step with the record, and takes it away at the end."""

    def __init__(
        self, *, iptables: Iptables, stream_port: int, record: Callable[[], Awaitable[PortRecord | None]]
    ) -> None:
        self._iptables = iptables
        self._stream_port = stream_port
        self._record = record
        self._problem = ""

    async def run(self) -> None:
        """Look every ten seconds until cancelled; the rules are then removed."""
        try:
            while True:
                await self._look()
                await asyncio.sleep(_EVERY)
        finally:
            await self.remove()

    async def _look(self) -> None:
        try:
            await self.sync()
            self._problem = ""
        except (EdgehiveError, OSError) as exc:
            if str(exc) != self._problem:  # once, not every ten seconds
                self._problem = str(exc)
                log.warning("%s", safe_label(self._problem, 400))

    async def sync(self) -> None:
        """Make the rules those of the record.

        Raises:
            EdgehiveError: iptables or the API server refuses.
        """
        record = await self._record()
        if not await self._there("-S", CHAIN):
            await self._iptables.run("-N", CHAIN)
        for hook in _FROM:
            if not await self._there("-C", hook, *_JUMP):
                await self._iptables.run("-I", hook, "1", *_JUMP)
        if record is None:
            return
        listed = await self._iptables.run("-S", CHAIN)
        for command in changes(listed, wanted_rules(record, self._stream_port)):
            await self._iptables.run(*command)
            log.info("iptables -t nat %s", " ".join(command))

    async def _there(self, *question: str) -> bool:
        try:
            await self._iptables.run(*question)
        except EdgehiveError:
            return False
        return True

    async def remove(self) -> None:
        """Remove jumps and chain; what cannot be removed is said."""
        steps = [("-D", hook, *_JUMP) for hook in _FROM] + [("-F", CHAIN), ("-X", CHAIN)]
        for step in steps:
            try:
                await self._iptables.run(*step)
            except (EdgehiveError, OSError) as exc:
                log.warning("%s", safe_label(str(exc), 300))


def iptables_services(api: KubeApi, stream_port: int) -> list[Service]:
    """The manager as a service of cloudcore.

    Raises:
        UserError: The program is not installed.
    """
    iptables = Iptables()
    iptables.check()
    manager = IptablesManager(iptables=iptables, stream_port=stream_port, record=PortStore(api=api).read)
    return [Service("iptables", manager.run)]
