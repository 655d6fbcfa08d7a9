"""The monitor of the process runtime: one small program that has the pipes and terminals of all of a node's commands.

It stamps what they write and appends it to their logs in the CRI's format, and joins clients of ``kubectl attach``
to them. It outlives edgecore, so nothing blocks and nothing is lost while edgecore is away; it ends by itself a
while after its last container. It is run by path (``python -I -S process_monitor.py STATE_DIRECTORY``) and imports
nothing but the standard library's smallest parts: it is there for every node that runs processes.

Requests come over ``monitor.sock``, one a line, fields separated by tabs, each answered by ``ok`` or ``error``:

    add ID LOG FLAGS    take a container's pipes (``in``, ``out``, ``err`` in ``containers/ID``); FLAGS are of
                        ``t`` (a terminal; the answer has its name), ``i`` (input), ``o`` (input for one client)
    started ID          its command has the terminal open
    reopen ID           its log was renamed
    forget ID           it was removed
    attach ID FLAGS     from here on frames: ``i``, ``o``, ``e`` for what is wanted

A frame is a channel (0 input, 1 output, 2 error, 4 size as ``ROWS COLUMNS``), a length of four bytes, and data.
"""

import errno
import fcntl
import os
import select
import socket
import struct
import sys
import termios
import time
from collections.abc import Callable

SOCKET, LOCK = "monitor.sock", "monitor.lock"
HEAD = struct.Struct(">BI")
STDIN, STDOUT, STDERR, RESIZE = 0, 1, 2, 4
MOST_LINE = 16 << 10
"""Longer lines are written in parts, as containerd does."""

_BLOCK = 64 << 10
_MOST_INPUT = 64 << 10  # waiting for a command that does not read: its clients are not read any further
_MOST_OUTPUT = 4 << 20  # waiting for a client that does not read: it is let go
_MOST_FRAME = 1 << 20
_LINGER = 5.0


class CriLines:
    """Output in the form of CRI logs, ``TIME STREAM F|P TEXT``; a line without an end waits for it."""

    def __init__(self, stream: str) -> None:
        self._tags = {tag: f" {stream} {tag} ".encode() for tag in "FP"}
        self._rest = b""

    def feed(self, data: bytes, stamp: bytes) -> bytes:
        """Take output that came at the time `stamp`; return what is to be written."""
        whole, self._rest = self._rest + data, b""
        full, out = stamp + self._tags["F"], []
        lines = whole.split(b"\n")
        for line in lines[:-1]:
            out += [*self._parts(line, stamp), full, line[self._cut(line) :], b"\n"]
        last = lines[-1]
        out += self._parts(last, stamp)
        self._rest = last[self._cut(last) :]
        return b"".join(out)

    @staticmethod
    def _cut(line: bytes) -> int:
        """Where the last part of a line begins; a line of a whole part more has an end of its own."""
        return max(len(line) - 1, 0) // MOST_LINE * MOST_LINE

    def _parts(self, line: bytes, stamp: bytes) -> list[bytes]:
        part = stamp + self._tags["P"]
        cuts = range(0, self._cut(line), MOST_LINE)
        return [piece for at in cuts for piece in (part, line[at : at + MOST_LINE], b"\n")]

    def end(self, stamp: bytes) -> bytes:
        """What is left when nothing more will come."""
        rest, self._rest = self._rest, b""
        return stamp + self._tags["F"] + rest + b"\n" if rest else b""


def stamp_of(nanoseconds: int) -> bytes:
    """RFC 3339 with nanoseconds, UTC."""
    seconds, rest = divmod(nanoseconds, 1_000_000_000)
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(seconds)).encode() + b".%09dZ" % rest


class Output:
    """One pipe or terminal that a command writes to."""

    def __init__(self, owner: "Container", descriptor: int, channel: int) -> None:
        self.owner = owner
        self.descriptor = descriptor
        self.channel = channel
        self.lines = CriLines("stderr" if channel == STDERR else "stdout")

    def ready(self, events: int) -> None:
        """Read what there is; at the end, when no writer is left, close."""
        try:
            data = os.read(self.descriptor, _BLOCK)
        except BlockingIOError:
            return
        except OSError:  # EIO: a terminal that nobody has open any more
            data = b""
        if data:
            self.owner.write(self, data)
        elif events & select.EPOLLHUP:
            self.owner.ended(self)


class Container:
    """The pipes of one command."""

    def __init__(self, monitor: "Monitor", identity: str, log: str, flags: str) -> None:
        self.monitor = monitor
        self.identity = identity
        self.directory = f"containers/{identity}"
        self.log_path = log
        self.once = "o" in flags
        self.terminal = "t" in flags
        self.outputs: list[Output] = []
        self.clients: list[Client] = []
        self.slave = -1
        self.slave_name = ""
        self.input = -1
        self.waiting = b""
        """Input that the command has not taken yet."""
        self.closing = False
        """Its input is closed as soon as the command has taken what waits."""
        self.log = -1
        try:
            self._open_pipes("i" in flags)
            self.reopen()
        except OSError:
            self.close()
            raise
        for output in self.outputs:
            monitor.watch(output.descriptor, select.EPOLLIN, output.ready)

    def _open_pipes(self, wants_input: bool) -> None:
        if self.terminal:
            master, self.slave = os.openpty()
            os.set_blocking(master, False)
            self.slave_name = os.ttyname(self.slave)
            self.outputs.append(Output(self, master, STDOUT))
            self.input = master if wants_input else -1
            return
        for name, channel in (("out", STDOUT), ("err", STDERR)):
            pipe = os.open(f"{self.directory}/{name}", os.O_RDONLY | os.O_NONBLOCK)
            self.outputs.append(Output(self, pipe, channel))
        if wants_input:
            # Also for reading: without a reader, which is about to come, it could not be opened.
            self.input = os.open(f"{self.directory}/in", os.O_RDWR | os.O_NONBLOCK)

    def started(self) -> None:
        """The command has the terminal open: only its own end counts from here on."""
        if self.slave >= 0:
            os.close(self.slave)
            self.slave = -1

    def reopen(self) -> None:
        """Write to the file that has the log's name now."""
        opened = os.open(self.log_path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o640)
        if self.log >= 0:
            os.close(self.log)
        self.log = opened

    def write(self, output: Output, data: bytes) -> None:
        """Log output, and give it to whom is attached."""
        self._append(output.lines.feed(data, stamp_of(time.time_ns())))
        for client in list(self.clients):
            client.send(output.channel, data)

    def _append(self, text: bytes) -> None:
        try:
            while text:
                text = text[os.write(self.log, text) :]
        except OSError:
            return  # a full disk must not stop the command

    def ended(self, output: Output) -> None:
        """One of its outputs has no writer any more."""
        self.monitor.unwatch(output.descriptor)
        self._append(output.lines.end(stamp_of(time.time_ns())))
        self.outputs.remove(output)
        if output.descriptor != self.input:
            os.close(output.descriptor)
        if not self.outputs:
            self.close()
            try:
                os.close(os.open(f"{self.directory}/drained", os.O_WRONLY | os.O_CREAT, 0o600))
            except OSError:
                return  # it is being removed

    def close(self) -> None:
        """Let go of everything."""
        self.monitor.containers.pop(self.identity, None)
        for output in self.outputs:
            self.monitor.unwatch(output.descriptor)
            if output.descriptor != self.input:
                os.close(output.descriptor)
        self.outputs = []
        self.close_input()
        self.started()
        for client in list(self.clients):
            client.finish()
        if self.log >= 0:
            os.close(self.log)
            self.log = -1

    def take_input(self, data: bytes) -> bool:
        """Give the command input; False when enough of it waits already."""
        if self.input >= 0:
            self.waiting += data
            self._feed(0)
        return len(self.waiting) < _MOST_INPUT

    def _feed(self, events: int) -> None:
        del events
        try:
            while self.waiting:
                self.waiting = self.waiting[os.write(self.input, self.waiting) :]
        except BlockingIOError:
            pass
        except OSError:
            self.waiting = b""
        if self.waiting and not self.terminal:
            self.monitor.watch(self.input, select.EPOLLOUT, self._feed)
        elif not self.terminal:
            self.monitor.unwatch(self.input)
            if self.closing:
                self.close_input()
        else:
            self._watch_terminal()
        if len(self.waiting) < _MOST_INPUT:
            for client in self.clients:
                client.resume()

    def _watch_terminal(self) -> None:
        """A terminal is one descriptor for both directions."""

        def ready(events: int) -> None:
            if events & select.EPOLLOUT and self.waiting:
                self._feed(events)
            if events & ~select.EPOLLOUT and self.outputs:
                self.outputs[0].ready(events)

        if self.outputs:
            self.monitor.watch(self.input, select.EPOLLIN | (select.EPOLLOUT if self.waiting else 0), ready)

    def no_more_input(self) -> None:
        """The one client that may type is done, if there may be but one."""
        if self.once and not self.terminal:
            self.closing = True
            if not self.waiting:
                self.close_input()

    def close_input(self) -> None:
        """Nobody will type any more."""
        if self.input >= 0:
            self.monitor.unwatch(self.input)
            os.close(self.input)
            self.input = -1

    def resize(self, rows: int, columns: int) -> None:
        """Tell the command how large its terminal is."""
        if self.terminal and self.outputs:
            fcntl.ioctl(
                self.outputs[0].descriptor, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0)
            )

    def left(self, client: "Client") -> None:
        """A client has gone: with ``stdinOnce`` there is no second one to type."""
        if client in self.clients:
            self.clients.remove(client)
        if client.types:
            self.no_more_input()


class Client:
    """One connection: requests, and after ``attach`` frames."""

    def __init__(self, monitor: "Monitor", connection: socket.socket) -> None:
        self.monitor = monitor
        self.connection = connection
        self.container: Container | None = None
        self.wanted = ""
        self.incoming = b""
        self.outgoing = b""
        self.finishing = False
        self.finished = False
        """Everything was sent; what it still says is dropped until it closes."""
        self.paused = False
        connection.setblocking(False)
        self._watch()

    @property
    def types(self) -> bool:
        """Whether it gives input."""
        return "i" in self.wanted

    def _watch(self) -> None:
        events = (0 if self.paused else select.EPOLLIN) | (select.EPOLLOUT if self.outgoing else 0)
        self.monitor.watch(self.connection.fileno(), events, self.ready)

    def ready(self, events: int) -> None:
        """Move bytes in both directions."""
        if events & select.EPOLLOUT:
            self._flush()
        if self.connection.fileno() >= 0 and events & (select.EPOLLIN | select.EPOLLHUP | select.EPOLLERR):
            self._read()

    def _read(self) -> None:
        try:
            data = self.connection.recv(_BLOCK)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            self.close()
            return
        if self.finished:
            return
        self.incoming += data
        while self.container is None and b"\n" in self.incoming:
            line, _, self.incoming = self.incoming.partition(b"\n")
            self._put((self.monitor.answer(self, line.decode("utf-8", "surrogateescape")) + "\n").encode())
        if self.container is not None:
            self._frames(self.container)
        elif len(self.incoming) > _MOST_FRAME:
            self.close()

    def _frames(self, container: Container) -> None:
        while len(self.incoming) >= HEAD.size:
            channel, length = HEAD.unpack_from(self.incoming)
            if length > _MOST_FRAME:
                self.close()
                return
            if len(self.incoming) < HEAD.size + length:
                return
            data = self.incoming[HEAD.size : HEAD.size + length]
            self.incoming = self.incoming[HEAD.size + length :]
            if channel == STDIN and self.types:
                if not data:
                    container.no_more_input()
                elif not container.take_input(data):
                    self.paused = True
                    self._watch()
                    return
            elif channel == RESIZE:
                rows, _, columns = data.partition(b" ")
                if rows.isdigit() and columns.isdigit():
                    container.resize(min(int(rows), 65535), min(int(columns), 65535))

    def resume(self) -> None:
        """The command has taken input: read on."""
        if self.paused:
            self.paused = False
            self._watch()
            if self.container is not None:
                self._frames(self.container)

    def send(self, channel: int, data: bytes) -> None:
        """Send output that is wanted; a client that does not read for long is let go."""
        if ("o" if channel == STDOUT else "e") in self.wanted:
            if len(self.outgoing) > _MOST_OUTPUT:
                self.close()
            else:
                self._put(HEAD.pack(channel, len(data)) + data)

    def _put(self, data: bytes) -> None:
        self.outgoing += data
        self._flush()

    def _flush(self) -> None:
        try:
            while self.outgoing:
                self.outgoing = self.outgoing[self.connection.send(self.outgoing) :]
        except BlockingIOError:
            pass
        except OSError:
            self.close()
            return
        if self.finishing and not self.outgoing:
            self._hang_up()
        else:
            self._watch()

    def finish(self) -> None:
        """The command has ended: close once everything was sent."""
        self.finishing = True
        self._flush()

    def _hang_up(self) -> None:
        """Say that nothing more comes, and let the client close: were it to write to a closed connection, it would
        be told of that before it has read what was sent.
        """
        self._leave()
        self.finished, self.incoming, self.paused = True, b"", False
        try:
            self.connection.shutdown(socket.SHUT_WR)
        except OSError:
            self.close()
        else:
            self._watch()

    def _leave(self) -> None:
        if self.container is not None:
            container, self.container = self.container, None
            container.left(self)

    def close(self) -> None:
        """End the connection."""
        if self.connection.fileno() < 0:
            return
        self.monitor.unwatch(self.connection.fileno())
        self.connection.close()
        self.monitor.clients -= 1
        self._leave()


class Monitor:
    """The loop over everything."""

    def __init__(self) -> None:
        self.containers: dict[str, Container] = {}
        self.clients = 0
        self._epoll = select.epoll()
        self._handlers: dict[int, Callable[[int], None]] = {}

    def watch(self, descriptor: int, events: int, handler: Callable[[int], None]) -> None:
        """Call `handler` with what happens on a descriptor."""
        if descriptor in self._handlers:
            self._epoll.modify(descriptor, events)
        else:
            self._epoll.register(descriptor, events)
        self._handlers[descriptor] = handler

    def unwatch(self, descriptor: int) -> None:
        """Forget a descriptor that may be watched."""
        if self._handlers.pop(descriptor, None) is not None:
            self._epoll.unregister(descriptor)

    def answer(self, client: Client, line: str) -> str:
        """Do one request."""
        try:
            return "ok\t" + self._do(client, line.split("\t"))
        except KeyError:
            return "error\tno such container"
        except (OSError, ValueError, IndexError) as exc:
            return f"error\t{exc}".replace("\n", " ")

    def _do(self, client: Client, fields: list[str]) -> str:
        verb, identity = fields[0], fields[1]
        match verb:
            case "add":
                known = self.containers.get(identity)
                if known is None:
                    known = Container(self, identity, fields[2], fields[3])
                    self.containers[identity] = known
                return known.slave_name
            case "started":
                self.containers[identity].started()
            case "reopen":
                self.containers[identity].reopen()
            case "forget":
                if identity in self.containers:
                    self.containers[identity].close()
            case "attach":
                client.container, client.wanted = self.containers[identity], fields[2]
                client.container.clients.append(client)
            case _:
                raise ValueError(f"no such request: {verb[:20]}")
        return ""

    def run(self, listener: socket.socket) -> None:
        """Serve until there is nothing to do for a while."""
        self.watch(listener.fileno(), select.EPOLLIN, lambda _: self._accept(listener))
        idle_since = time.monotonic()
        while True:
            for descriptor, events in self._epoll.poll(_LINGER):
                handler = self._handlers.get(descriptor)
                if handler is not None:  # it may have gone with an event before
                    handler(events)
            if self.containers or self.clients:
                idle_since = time.monotonic()
            elif time.monotonic() - idle_since > _LINGER:
                return

    def _accept(self, listener: socket.socket) -> None:
        try:
            connection, _ = listener.accept()
        except OSError:
            return
        self.clients += 1
        Client(self, connection)


def main(directory: str) -> int:
    """Serve `directory` unless another monitor does."""
    os.chdir(directory)  # a socket's path must be short
    lock = os.open(LOCK, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as exc:
        return 0 if exc.errno in (errno.EAGAIN, errno.EACCES) else 1
    if os.path.exists(SOCKET):  # noqa: PTH110 - pathlib is a megabyte
        os.unlink(SOCKET)  # noqa: PTH108
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    os.umask(0o077)
    listener.bind(SOCKET)
    os.umask(0o027)
    listener.listen(64)
    os.ftruncate(lock, 0)
    os.write(lock, b"%d\n" % os.getpid())
    Monitor().run(listener)
    os.unlink(SOCKET)  # noqa: PTH108
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
