"""The loop of `edgehive up`: signals, notifications and exits of its processes.

It imports neither asyncio nor TLS, so that it costs little beside what it starts. What it knows it learns from
its children over a notification socket (`cli.notify`).
"""

import contextlib
import json
import os
import selectors
import signal
import socket
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import FrameType

from edgehive.cli.console import Console
from edgehive.cli.notify import parse_notification
from edgehive.cli.up_layout import Layout
from edgehive.cli.up_lock import record_processes
from edgehive.cli.up_process import Child, describe_exit
from edgehive.kit.errors import EdgehiveError, UserError
from edgehive.kit.text import safe_label

_STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
_PATIENCE = 20.0
_SOCKET_PATH_LIMIT = 100


class Interrupted(EdgehiveError):
    """A person or the system asked us to stop."""


class Supervisor:
    """Owns the children, in the order in which they were started."""

    def __init__(self, *, layout: Layout, console: Console) -> None:
        self.nodes_ready: dict[str, bool] = {}
        self._layout = layout
        self._console = console
        self._children: list[Child] = []
        self._asked_to_stop = 0
        self._essential: set[str] = set()
        self._selector = selectors.DefaultSelector()
        self._next_check = time.monotonic() + 60.0
        self._parent = os.getppid()
        self._unrecorded = False

    @contextlib.contextmanager
    def listening(self) -> Iterator[str]:
        """Receive signals and notifications; yield the address for ``NOTIFY_SOCKET``."""
        wake_read, wake_write = socket.socketpair()
        inbox = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        with contextlib.ExitStack() as stack:
            for sock in (wake_read, wake_write, inbox):
                sock.setblocking(False)
                stack.enter_context(sock)
            path = self._layout.run / "notify.sock"
            if len(os.fsencode(path)) > _SOCKET_PATH_LIMIT:
                import tempfile  # drags in compression libraries; a short path is the rule

                path = (
                    Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="edgehive-"))) / "notify.sock"
                )
            path.unlink(missing_ok=True)
            inbox.bind(str(path))
            path.chmod(0o600)
            stack.callback(path.unlink, missing_ok=True)
            old = signal.set_wakeup_fd(wake_write.fileno())
            stack.callback(signal.set_wakeup_fd, old)
            for number in _STOP_SIGNALS:
                stack.callback(signal.signal, number, signal.signal(number, self._on_stop_signal))
            stack.callback(signal.signal, signal.SIGCHLD, signal.signal(signal.SIGCHLD, lambda *_: None))
            self._selector.register(wake_read, selectors.EVENT_READ, _drain)
            self._selector.register(inbox, selectors.EVENT_READ, self._on_notifications)
            stack.callback(self._selector.close)
            yield str(path)

    def start(self, child: Child) -> None:
        """Start one more process."""
        self._children.append(child)
        child.start()
        self._record()

    def wait_for(self, done: Callable[[], bool], *, seconds: float, essential: Sequence[Child] = ()) -> bool:
        """Pump until `done()`; False when the time is over.

        Raises:
            Interrupted: someone asked us to stop.
            UserError: one of the `essential` processes ended; the text has the end of its log.
        """
        deadline = time.monotonic() + seconds
        self._essential = {child.name for child in essential}
        try:
            while not done():
                left = deadline - time.monotonic()
                if left <= 0:
                    return False
                self._pump(min(left, 1.0))
        finally:
            self._essential = set()
        return True

    def run(self) -> None:
        """Keep the processes running until someone asks us to stop.

        Raises:
            Interrupted: always, in the end.
        """
        while True:
            self._pump(1.0)

    def stop(self) -> None:
        """End the children, the last started first; a second Ctrl-C does not wait for them."""
        asked = self._asked_to_stop
        for group in self._stop_order():
            for number, patience in ((signal.SIGTERM, _PATIENCE), (signal.SIGKILL, 5.0)):
                for child in group:
                    child.signal(number)
                deadline = time.monotonic() + patience
                while any(child.pid for child in group) and time.monotonic() < deadline:
                    if self._asked_to_stop > max(asked, 1) and number is signal.SIGTERM:
                        break
                    self._wait(0.2)
                    for child in group:
                        if child.pid:
                            child.reap()
                        child.due = None
        self._record()

    def _stop_order(self) -> list[list[Child]]:
        edges = [child for child in self._children if child.name.startswith("edgecore")]
        others = [[child] for child in reversed(self._children) if child not in edges]
        return [edges, *others]

    def _pump(self, timeout: float) -> None:
        soonest = min((child.due for child in self._children if child.due is not None), default=None)
        if soonest is not None:
            timeout = max(0.0, min(timeout, soonest - time.monotonic()))
        self._wait(timeout)
        if self._asked_to_stop or self._make_was_interrupted():
            raise Interrupted("stopping")
        changed = False
        for child in self._children:
            code = child.reap()
            if code is not None:
                changed = True
                self._on_exit(child, code)
            elif self._start_again(child):
                changed = True
        if changed or self._unrecorded:
            self._record()
        if time.monotonic() >= self._next_check:
            self._next_check = time.monotonic() + 60.0
            for child in self._children:
                child.trim_log()

    def _start_again(self, child: Child) -> bool:
        try:
            return child.start_if_due()
        except OSError as exc:  # no memory, no process more, no log file
            delay = child.postpone()
            self._console.warn(
                f"{child.name} cannot be started: {exc.strerror}; trying again in {delay:.1f} s"
            )
            return False

    def _wait(self, timeout: float) -> None:
        for key, _ in self._selector.select(timeout):
            key.data(key.fileobj)

    def _on_exit(self, child: Child, code: int) -> None:
        if child.name in self._essential:
            raise UserError(
                f"{child.name} {describe_exit(code)} before it was ready",
                hint="\n".join([*child.last_lines(), f"the whole log: {child.log}"]),
            )
        delay = max(0.0, (child.due or 0.0) - time.monotonic())
        self._console.warn(
            f"{child.name} {describe_exit(code)}; starting it again in {delay:.1f} s ({child.log})"
        )

    def _on_notifications(self, inbox: socket.socket) -> None:
        with contextlib.suppress(BlockingIOError):
            while True:
                self._on_notification(parse_notification(inbox.recv(4096)))

    def _on_notification(self, fields: dict[str, str]) -> None:
        for key, ready in (("NODE_READY", True), ("NODE_NOT_READY", False)):
            if key in fields:
                self._on_node(fields[key], ready=ready)
        for child in self._children:
            if child.pid and fields.get("PID") == str(child.pid):
                child.status = safe_label(fields.get("STATUS", child.status))
                if fields.get("READY") == "1" and not child.ready:
                    child.ready = True
                    if child.restarts:
                        self._console.done(f"{child.name} is back")

    def _on_node(self, node: str, *, ready: bool) -> None:
        before = self.nodes_ready.get(node)
        self.nodes_ready[node] = ready
        if before is not None and before != ready and not self._essential:
            if ready:
                self._console.done(f"node {safe_label(node)} is Ready")
            else:
                self._console.warn(f"node {safe_label(node)} is not Ready any more")

    def _on_stop_signal(self, _number: int, _frame: FrameType | None) -> None:
        self._asked_to_stop += 1

    def _make_was_interrupted(self) -> bool:
        """Whether our parent is a `make` that got a SIGINT for itself alone and now waits for us.

        make does not pass it on (it expects a terminal to signal the whole group), and would wait for ever.
        """
        try:
            lines = Path(f"/proc/{self._parent}/status").read_text(encoding="utf-8").splitlines()
        except OSError:
            return False
        fields = dict(line.split(":\t", 1) for line in lines if ":\t" in line)
        if fields.get("Name") not in ("make", "gmake"):
            return False
        # While it handles the signal it waits with SIGINT blocked.
        return bool(int(fields.get("SigBlk", "0"), 16) & 1 << (signal.SIGINT - 1))

    def _record(self) -> None:
        try:
            record_processes(self._layout, [child.identity for child in self._children if child.identity])
        except OSError as exc:  # a full disk must not end what runs
            if not self._unrecorded:
                self._console.warn(f"{self._layout.run} cannot be written: {exc.strerror}")
            self._unrecorded = True
        else:
            self._unrecorded = False


def _drain(sock: socket.socket) -> None:
    with contextlib.suppress(BlockingIOError):
        while sock.recv(512):
            pass


def write_state(layout: Layout, **fields: object) -> None:
    """Tell `edgehive status` and `up --detach` how far we are."""
    temporary = layout.run / "state.json.new"
    temporary.write_text(json.dumps(fields), encoding="utf-8")
    temporary.replace(layout.run / "state.json")


def read_state(layout: Layout) -> dict[str, object]:
    """What `write_state` wrote last."""
    try:
        state = json.loads((layout.run / "state.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return state if isinstance(state, dict) else {}
