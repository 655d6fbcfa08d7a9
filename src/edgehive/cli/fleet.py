"""`edgehive fleet`: many simulated edges in one process, for load tests of a cloudcore, ours or the original."""

import argparse
import asyncio
import contextlib
import json
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgehive.cli.gettoken import fetch_token
from edgehive.cli.kubeconfig_flag import add_kubeconfig
from edgehive.kit.errors import UserError
from edgehive.kube.refs import is_dns_label

if TYPE_CHECKING:
    from edgehive.edge.fleet import Fleet


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the flags."""
    add = parser.add_argument
    add("--nodes", type=int, default=100, metavar="N", help="how many edges (default: %(default)s)")
    add("--cloud", required=True, metavar="HOST[:PORT]", help="cloudcore's WebSocket address; port 10000")
    add("--https-port", type=int, metavar="PORT", help="where to join (default: the WebSocket port + 2)")
    add_kubeconfig(parser, "where to read the join token, unless --token-file")
    add("--token-file", metavar="FILE", type=Path, help="a file with the join token")
    add("--token", metavar="TOKEN", help="the join token itself; others on this machine can see it")
    add("--prefix", default="fleet", metavar="NAME", help="nodes are NAME-0000, … (default: %(default)s)")
    add("--seconds", type=float, default=0.0, help="end after so long connected (default: when interrupted)")
    add("--state", metavar="DIR", type=Path, help="keep the certificates here and use them again")
    add("--parallel", type=int, default=64, metavar="N", help="dials at once (default: %(default)s)")
    add(
        "--no-register", dest="register", action="store_false", help="make no Nodes: links and keepalive only"
    )
    for name, default, what in (
        ("keepalive", 15.0, "keepalive messages"),
        ("lease", 10.0, "renewals of each lease"),
        ("status", 0.0, "status reports of each node"),
        ("pod-status", 0.0, "status reports of each pod"),
    ):
        text = f"seconds between {what}; 0: none (default: %(default)g)"
        add(f"--{name}", type=float, default=default, metavar="S", help=text)
    add("--report", type=float, default=5.0, metavar="S", help="print a line so often (default: %(default)g)")
    add("-o", "--output", choices=("text", "json"), default="text")


def run_fleet(arguments: argparse.Namespace) -> int:
    """Run the fleet until its time is up or it is interrupted."""
    import uvloop

    from edgehive.aio.limits import allow_open_files

    allow_open_files()
    if arguments.nodes < 1 or arguments.parallel < 1:
        raise UserError("--nodes and --parallel must be at least 1")
    if not is_dns_label(f"{arguments.prefix}-0000"):
        raise UserError(
            f"--prefix {arguments.prefix!r} makes no valid node names",
            hint="lower-case letters, digits and dashes",
        )
    with contextlib.suppress(KeyboardInterrupt), asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(_run(arguments))
    return 0


async def _run(arguments: argparse.Namespace) -> int:
    from edgehive.edge.fleet import Fleet, FleetSettings
    from edgehive.edge.fleet_certificates import FleetCertificates

    host, port = _split(arguments.cloud)
    token = await _token(arguments)
    names = [f"{arguments.prefix}-{i:04d}" for i in range(arguments.nodes)]
    with contextlib.ExitStack() as stack:
        folder = arguments.state or Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="fleet-")))
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        https = arguments.https_port or port + 2
        certificates = FleetCertificates(
            folder=folder, server=f"https://{_url_host(host)}:{https}", token=token
        )
        begun = Fleet.now()
        await certificates.obtain(names)
        joining = Fleet.now() - begun
        settings = FleetSettings(
            host=host,
            port=port,
            parallel=arguments.parallel,
            keepalive=arguments.keepalive,
            register=arguments.register,
            lease=arguments.lease if arguments.register else 0.0,
            status=arguments.status if arguments.register else 0.0,
            pod_status=arguments.pod_status,
        )
        async with Fleet(settings=settings, names=names, certificates=certificates) as fleet:
            report = _Report(fleet, joining=joining, issued=certificates.issued, output=arguments.output)
            await report.watch(arguments.seconds, arguments.report)
        return 0 if not report.failed else 1


class _Report:
    """What the fleet has seen, as lines on the way and as a summary."""

    def __init__(self, fleet: "Fleet", *, joining: float, issued: int, output: str) -> None:
        self._fleet = fleet
        self._text = output == "text"
        self._joining = joining
        self._issued = issued
        self._connected_after = self._registered_after = 0.0
        self.failed = False

    async def watch(self, seconds: float, every: float) -> None:
        """Connect, and report until `seconds` after all are connected."""
        fleet, begun = self._fleet, self._fleet.now()
        fleet.connect()
        line = begun + every
        wanted = fleet.size if fleet.settings.register else 0
        try:
            while True:
                await asyncio.sleep(0.01)
                now = fleet.now()
                if not self._connected_after and fleet.connected == fleet.size:
                    self._connected_after = now - begun
                if not self._registered_after and fleet.stats.registered >= wanted > 0:
                    self._registered_after = now - begun
                complete = self._connected_after and (self._registered_after or not wanted)
                if seconds and now - begun > (
                    seconds + self._connected_after if complete else seconds + 60.0
                ):
                    break
                if self._text and now >= line:
                    line = now + every
                    print(self._line(now - begun), flush=True)
        finally:
            self.failed = not self._connected_after
            self._summary()

    def _line(self, passed: float) -> str:
        fleet, stats = self._fleet, self._fleet.stats
        text = (
            f"{passed:7.1f} s  connected {fleet.connected}/{fleet.size}  registered {stats.registered}  "
            f"sent {stats.sent}  received {stats.received}  acknowledged {stats.acknowledged}"
        )
        return text + (f"  dials failed {fleet.refused} ({fleet.problem})" if fleet.refused else "")

    def summary(self) -> dict[str, Any]:
        """All figures."""
        fleet, stats = self._fleet, self._fleet.stats
        return {
            "nodes": fleet.size,
            "connected": fleet.connected,
            "registered": stats.registered,
            "certificates": self._issued,
            "joins_per_second": _rate(self._issued, self._joining),
            "connects_per_second": _rate(fleet.size, self._connected_after),
            "registrations_per_second": _rate(fleet.size, self._registered_after),
            "dial_milliseconds": _quantiles(fleet.connects),
            "request_milliseconds": {name: _quantiles(found) for name, found in stats.latency.items()},
            "sent": stats.sent,
            "received": stats.received,
            "acknowledged": stats.acknowledged,
            "duplicates": stats.duplicates,
            "failures": stats.failures,
            "lost_links": fleet.lost_links,
            "failed_dials": fleet.refused,
        }

    def _summary(self) -> None:
        summary = self.summary()
        if not self._text:
            print(json.dumps(summary, indent=2))
            return
        latencies = {"dial": summary.pop("dial_milliseconds"), **summary.pop("request_milliseconds")}
        for name, value in summary.items():
            print(f"{name.replace('_', ' '):<26}{'-' if value is None else value}")
        for name, found in latencies.items():
            print(f"{name + ', ms':<26}p50 {found['p50']}  p99 {found['p99']}  ({found['count']})")
        if self.failed:
            print(f"not all nodes connected: {self._fleet.problem}", file=sys.stderr)


def _rate(count: int, seconds: float) -> float | None:
    return round(count / seconds, 1) if seconds > 0 and count else None


def _quantiles(samples: Any) -> dict[str, float]:
    found = {f"p{q}": round(samples.quantile(q / 100) * 1000, 1) for q in (50, 99)}
    return {**found, "count": samples.count}


async def _token(arguments: argparse.Namespace) -> str:
    if arguments.token:
        return str(arguments.token)
    if arguments.token_file:
        try:
            return str(arguments.token_file.read_text(encoding="ascii").strip())
        except OSError as exc:
            raise UserError(f"{arguments.token_file} cannot be read: {exc.strerror}") from exc
    return await fetch_token(arguments.kubeconfig, 0.0)


def _split(text: str) -> tuple[str, int]:
    host, colon, port = text.rpartition(":")
    if not colon or text.endswith("]"):
        host, port = text, "10000"
    if not port.isdigit() or not 0 < int(port) < 65536 or not host:
        raise UserError(f"--cloud {text!r} is not HOST or HOST:PORT")
    return host.strip("[]"), int(port)


def _url_host(host: str) -> str:
    return f"[{host}]" if ":" in host else host
