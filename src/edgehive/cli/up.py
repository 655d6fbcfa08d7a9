"""`edgehive up`: control plane, cloudcore and edges on this machine, under one small supervisor."""

import argparse
import contextlib
import errno
import os
import signal
import socket
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

from edgehive.cli.console import Console, is_on_path, own_command
from edgehive.cli.up_configs import (
    cloudcore_config,
    containerd_sockets,
    edgecore_config,
    make_private,
    remove_if_elsewhere,
    write_config,
)
from edgehive.cli.up_layout import Layout, PortUse
from edgehive.cli.up_lock import end_leftovers, hold_lock, recorded_processes
from edgehive.cli.up_options import UpOptions, remember_options, resolve_options
from edgehive.cli.up_process import Child, command_of
from edgehive.cli.up_supervisor import Interrupted, Supervisor, write_state
from edgehive.kit.errors import UserError

_START_SECONDS = 60.0
NO_NETWORK, CAN_HAVE_NETWORK = 3, 4  # exit codes of `edgehive cri-check`


def run_up(arguments: argparse.Namespace) -> int:
    """Start everything and stay until interrupted.

    Raises:
        UserError: something a person can put right.
    """
    layout = Layout(arguments.data_dir.expanduser().absolute())
    if arguments.detach:
        return _detach(layout, [word for word in sys.argv[1:] if word != "--detach"])
    options = resolve_options(layout, arguments)
    options.ports.check(options.nodes)
    names = options.names
    layout.make()
    with hold_lock(layout):
        return _Up(layout, options, names, arguments).run()


class _Up:
    def __init__(
        self, layout: Layout, options: UpOptions, names: list[str], arguments: argparse.Namespace
    ) -> None:
        self._layout = layout
        self._options = options
        self._names = names
        self._log_flags = [f"-v={arguments.verbosity}", f"--log-format={arguments.log_format}"]
        self._console = Console()
        self._supervisor = Supervisor(layout=layout, console=self._console)
        self._environment = {
            key: value
            for key, value in os.environ.items()
            # A cached .pyc is a memory measure: the compiler's peak would stay in the process.
            if key not in ("NOTIFY_SOCKET", "PYTHONDONTWRITEBYTECODE")
        }

    def run(self) -> int:
        console, layout = self._console, self._layout
        console.line(f"edgehive up: data in {layout.root}")
        write_state(layout, ready=False, pid=os.getpid())
        leftovers = recorded_processes(layout)
        if leftovers:
            console.step("ending what an earlier run left behind: " + ", ".join(p.name for p in leftovers))
            end_leftovers(leftovers)
        check_free(self._options.ports.uses(len(self._names)))
        remember_options(layout, self._options)
        runtime = choose_runtime(self._options, console, self._environment)
        with self._supervisor.listening() as address:
            self._environment["NOTIFY_SOCKET"] = address
            try:
                self._start(runtime)
                write_state(layout, ready=True, pid=os.getpid(), nodes=self._names)
                self._supervisor.run()
            except Interrupted:
                console.line()
                console.step("stopping")
            finally:
                self._supervisor.stop()
                for node in self._names:
                    remove_if_elsewhere(layout, node)
                with contextlib.suppress(
                    OSError
                ):  # a full disk: nobody has the lock any more, that says it, too
                    write_state(layout, ready=False, pid=0)
        console.done("stopped; pods keep running and are found again at the next start")
        return 0

    def _child(self, name: str, program: str, arguments: list[str], **environment: str) -> Child:
        return Child(
            name,
            command=command_of(program, [*arguments, *self._log_flags]),
            log=self._layout.log(name),
            environment=self._environment | environment,
        )

    def _start(self, runtime: "RuntimeChosen") -> None:
        layout, ports = self._layout, self._options.ports
        console = self._console
        control_plane = self._child(
            "control-plane",
            "edgehive",
            [
                "control-plane",
                f"--data-dir={layout.control_plane}",
                f"--port={ports.api}",
                f"--kubeconfig={layout.kubeconfig}",
                f"--cloudcore-kubeconfig={layout.cloud / 'kubeconfig'}",
                f"--stream-server=127.0.0.1:{ports.stream}",
            ],
        )
        self._start_one(control_plane)
        console.done(f"API server is up on https://127.0.0.1:{ports.api}")
        write_config(
            layout.cloud / "cloudcore.yaml",
            "cloudcore",
            cloudcore_config(layout, ports, authorization=self._options.require_authorization),
        )
        cloudcore = self._child("cloudcore", "cloudcore", [f"--config={layout.cloud / 'cloudcore.yaml'}"])
        self._start_one(cloudcore)
        console.done(f"cloudcore is up on wss://127.0.0.1:{ports.hub}")
        edges = [self._start_edge(node, index, runtime) for index, node in enumerate(self._names)]
        for node, edge in zip(self._names, edges, strict=True):
            self._await_ready(edge)
            console.done(f"edgecore of node {node} is running")
        for node in self._names:
            self._await_node(node, edges)
        self._print_next_steps()

    def _start_edge(self, node: str, index: int, runtime: "RuntimeChosen") -> Child:
        layout, home = self._layout, self._layout.edge(node)
        endpoint = runtime.endpoint
        if endpoint.startswith("process://"):
            endpoint = f"process://{home / 'process'}"
        config = edgecore_config(
            layout,
            self._options.ports,
            node,
            index,
            runtime_endpoint=endpoint,
            authorization=self._options.require_authorization,
        )
        if runtime.network:
            config["modules"]["edged"]["defaultPodNetwork"] = runtime.network
        make_private(Path(config["modules"]["deviceTwin"]["dmiSockPath"]))
        write_config(home / "edgecore.yaml", "edgecore", config)
        token = home / "join-token"
        if not (home / "certs" / "server.crt").exists():
            self._fetch_token(token)
        edge = self._child(
            f"edgecore-{node}",
            "edgecore",
            [f"--config={home / 'edgecore.yaml'}"],
            EDGECORE_BOOTSTRAP_FILE=str(token),
            # A list of a megabyte is given back when it is done with; by itself glibc learns to keep such buffers.
            MALLOC_MMAP_THRESHOLD_=self._environment.get("MALLOC_MMAP_THRESHOLD_", "131072"),
        )
        self._supervisor.start(edge)
        return edge

    def _fetch_token(self, target: Path) -> None:
        command = command_of(
            "edgehive",
            [
                "gettoken",
                f"--kubeconfig={self._layout.cloud / 'kubeconfig'}",
                f"--output={target}",
                "--wait=30",
            ],
        )
        result = subprocess.run(
            command, env=self._environment, capture_output=True, text=True, check=False, cwd="/"
        )
        if result.returncode != 0:
            raise UserError("no join token could be fetched", hint=result.stderr.strip())

    def _start_one(self, child: Child) -> None:
        self._supervisor.start(child)
        self._await_ready(child)

    def _await_ready(self, child: Child) -> None:
        if not self._supervisor.wait_for(lambda: child.ready, seconds=_START_SECONDS, essential=[child]):
            raise UserError(
                f"{child.name} was not ready within {_START_SECONDS:.0f} s",
                hint="\n".join([*child.last_lines(), f"the whole log: {child.log}"]),
            )

    def _await_node(self, node: str, edges: list[Child]) -> None:
        nodes_ready = self._supervisor.nodes_ready
        edge = edges[self._names.index(node)]
        if self._supervisor.wait_for(
            lambda: nodes_ready.get(node, False), seconds=_START_SECONDS, essential=edges
        ):
            self._console.done(f"node {node} is Ready")
        else:
            self._console.warn(f"node {node} is not Ready yet; see {edge.log}")
            for line in edge.last_lines(5):
                self._console.line(f"    {line}")

    def _print_next_steps(self) -> None:
        from shlex import quote  # for one line: not worth its place beside the other modules

        line = self._console.line
        kubectl = "kubectl" if is_on_path("kubectl") else f"{own_command()} kubectl"
        example = Path(__file__).parents[3] / "examples" / "hello.yaml"
        where = os.path.relpath(example) if example.exists() else "examples/hello.yaml"
        ready = [node for node in self._names if self._supervisor.nodes_ready.get(node)]
        line()
        if len(ready) == len(self._names):
            line(f"edgehive is up; Ready: {', '.join(ready)}. In another terminal:")
        else:
            line("edgehive is up, but not every node is Ready. In another terminal:")
        line()
        line(f"  export KUBECONFIG={quote(str(self._layout.kubeconfig))}")
        line(f"  {kubectl} get nodes -o wide")
        line(f"  {kubectl} apply -f {quote(where)}")
        line(f"  {kubectl} get pods -o wide --watch")
        line()
        line(f"Logs: {self._layout.logs}   Stop: Ctrl-C, or {own_command()} down")


def check_free(uses: list[PortUse], patience: float = 3.0) -> None:
    """Make sure that every port is free; one that an ended process just let go of gets a moment.

    Raises:
        UserError: one is taken; names the port and the flag that moves it.
    """
    deadline = time.monotonic() + patience
    for use in uses:
        while not _is_free(use):
            if time.monotonic() > deadline:
                raise UserError(
                    f"port {use.number} for {use.purpose} is in use by another program",
                    hint=f"choose another one with {use.flag}",
                )
            time.sleep(0.1)


def _is_free(use: PortUse) -> bool:
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            sock.bind(("127.0.0.1", use.number))
        except OSError as exc:
            if exc.errno == errno.EACCES:
                raise UserError(
                    f"port {use.number} for {use.purpose} needs root",
                    hint=f"choose one from 1024 with {use.flag}",
                ) from exc
            if exc.errno == errno.EADDRNOTAVAIL:
                raise _no_loopback() from exc
            return False
        # Nobody listens: refused. With the loopback interface down the address can be had, and not be reached.
        with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
            if probe.connect_ex(("127.0.0.1", use.number)) in (errno.ENETUNREACH, errno.EADDRNOTAVAIL):
                raise _no_loopback()
    return True


def _no_loopback() -> UserError:
    return UserError(
        "this machine has no address 127.0.0.1, which everything here listens on",
        hint="bring the loopback interface up: ip link set lo up",
    )


@dataclass(frozen=True, slots=True)
class RuntimeChosen:
    """What edgecore's configuration says about the container runtime."""

    endpoint: str
    network: str = ""
    """``defaultPodNetwork``, where the runtime has no network by itself."""


def choose_runtime(options: UpOptions, console: Console, environment: dict[str, str]) -> RuntimeChosen:
    """Find out what will run the pods.

    Raises:
        UserError: a CRI runtime is wanted but there is none.
    """
    if options.runtime == "process":
        console.done("pods run as host processes")
        return RuntimeChosen("process://")
    candidates = [options.cri_socket] if options.cri_socket else list(containerd_sockets())
    reasons: list[str] = []
    for candidate in candidates:
        path = Path(candidate.removeprefix("unix://")).absolute()
        try:
            path.stat()
        except OSError as exc:  # also a directory that only root may look into
            if options.cri_socket or not isinstance(exc, FileNotFoundError | NotADirectoryError):
                reasons.append(f"{path}: {exc.strerror}")
            continue
        code, said = _check_cri(path, environment)
        if code == 0:
            console.done(f"pods run in {said} ({path})")
            return RuntimeChosen(f"unix://{path}")
        if code == NO_NETWORK:
            console.done(
                f"pods run in {said} ({path}); it has no CNI plugin, so they share the host's network"
            )
            return RuntimeChosen(f"unix://{path}", "host")
        if code == CAN_HAVE_NETWORK:
            console.done(f"pods run in {said} ({path}); they get a bridge of their own")
            return RuntimeChosen(f"unix://{path}", "bridge")
        reasons.append(said)
    if options.runtime == "cri" or options.cri_socket:
        raise UserError(
            "no CRI runtime can be used" + (": " + "; ".join(reasons) if reasons else ""),
            hint="start containerd, name its socket with --cri-socket, or use --runtime process",
        )
    why = f" ({'; '.join(reasons)})" if reasons else ""
    console.done(f"no CRI runtime found{why}: pods run as host processes")
    return RuntimeChosen("process://")


def _check_cri(socket_path: Path, environment: dict[str, str]) -> tuple[int, str]:
    """Ask in a process of its own: the gRPC client would stay in the supervisor's memory."""
    result = subprocess.run(
        command_of("edgehive", ["cri-check", str(socket_path)]),
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        cwd="/",
    )
    said = result.stdout if result.returncode in (0, NO_NETWORK, CAN_HAVE_NETWORK) else result.stderr
    lines = said.strip().splitlines() or [f"{socket_path} does not answer"]
    return result.returncode, lines[0].removeprefix("edgehive: error: ")


def _detach(layout: Layout, argv: list[str]) -> int:
    """Start `edgehive up` in the background and wait until it is up."""
    layout.make()
    log = layout.log("up")
    with log.open("wb") as output:
        process = subprocess.Popen(
            command_of("edgehive", argv),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,
        )
    with log.open(encoding="utf-8", errors="replace") as progress:
        try:
            while True:
                code = process.poll()
                text = progress.read()
                sys.stdout.write(text)
                sys.stdout.flush()
                if code is not None:
                    return code
                if "\nLogs: " in text:
                    return 0
                time.sleep(0.1)
        except KeyboardInterrupt:
            process.send_signal(signal.SIGINT)
            process.wait()
            return 130
