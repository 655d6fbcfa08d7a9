"""One supervised process of `edgehive up`: started, watched, started again with back-off, stopped."""

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from edgehive.cli.up_lock import ProcessId, boot_id, start_time
from edgehive.kit.backoff import Backoff

_STABLE_AFTER = 30.0  # seconds a process must have run before its back-off starts again
_LOG_LIMIT = 32 * 1024 * 1024


def command_of(program: str, arguments: Sequence[str]) -> list[str]:
    """The command line of one of our own programs, in the interpreter that runs us."""
    script = Path(sys.executable).parent / program
    if script.is_file():  # as installed: a readable line in `ps`
        return [sys.executable, str(script), *arguments]
    return [sys.executable, "-m", "edgehive", *([] if program == "edgehive" else [program]), *arguments]


class Child:
    """A process with a log file, a back-off and what it last said about itself."""

    def __init__(
        self, name: str, *, command: Sequence[str], log: Path, environment: Mapping[str, str]
    ) -> None:
        self.name = name
        self.log = log
        self.ready = False
        self.status = ""
        self.restarts = 0
        self.due: float | None = None
        self._command = list(command)
        self._environment = dict(environment)
        self._backoff = Backoff(0.5, 30.0)
        self._process: subprocess.Popen[bytes] | None = None
        self._identity: ProcessId | None = None
        self._started = 0.0
        self._log_start = 0

    @property
    def identity(self) -> ProcessId | None:
        """The running process."""
        return self._identity

    @property
    def pid(self) -> int:
        """Its pid, 0 while it does not run."""
        return self._process.pid if self._process else 0

    def start(self) -> None:
        """Start it, in its own session: a Ctrl-C in the terminal is for the supervisor alone."""
        self._rotate_log()
        self.ready = False
        self.due = None
        self._started = time.monotonic()
        descriptor = os.open(self.log, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
        try:
            self._log_start = os.fstat(descriptor).st_size
            self._process = subprocess.Popen(
                self._command,
                stdin=subprocess.DEVNULL,
                stdout=descriptor,
                stderr=descriptor,
                env=self._environment,
                start_new_session=True,
                cwd="/",
            )
        finally:
            os.close(descriptor)
        self._identity = ProcessId(self.name, self._process.pid, start_time(self._process.pid), boot_id())

    def reap(self) -> int | None:
        """Return the exit code once, when it has ended; it is then due to start again later."""
        if self._process is None:
            return None
        code = self._process.poll()
        if code is None:
            return None
        self._process = self._identity = None
        self.ready = False
        if time.monotonic() - self._started > _STABLE_AFTER:
            self._backoff.reset()
        self.postpone()
        return code

    def postpone(self) -> float:
        """Let it start later, each time more so; returns after how many seconds."""
        delay = self._backoff.next()
        self.due = time.monotonic() + delay
        return delay

    def start_if_due(self) -> bool:
        """Start it again when its time has come."""
        if self.due is None or time.monotonic() < self.due:
            return False
        self.restarts += 1
        self.start()
        return True

    def signal(self, number: signal.Signals) -> None:
        """Send a signal to it."""
        self.due = None
        if self._process is not None:
            with contextlib.suppress(ProcessLookupError):
                self._process.send_signal(number)

    def trim_log(self) -> None:
        """Keep the log file of a process that never ends from filling the disk."""
        with contextlib.suppress(OSError):
            if self.log.stat().st_size > _LOG_LIMIT:
                self._rotate_log(keep_file=True)

    def last_lines(self, count: int = 8) -> list[str]:
        """The end of what this run wrote to its log."""
        try:
            with self.log.open("rb") as file:
                size = os.fstat(file.fileno()).st_size
                file.seek(max(self._log_start, size - 16384))
                return file.read().decode("utf-8", "replace").splitlines()[-count:]
        except OSError:
            return []

    def _rotate_log(self, *, keep_file: bool = False) -> None:
        old = self.log.with_name(self.log.name + ".1")
        with contextlib.suppress(OSError):
            if not keep_file:
                if self.log.stat().st_size > _LOG_LIMIT:
                    self.log.replace(old)
                return
            # The process writes on into the open file (O_APPEND), so it is copied and emptied.
            with self.log.open("r+b") as source, old.open("wb") as target:
                while chunk := source.read(65536):
                    target.write(chunk)
                source.truncate(0)
            self._log_start = 0


def describe_exit(code: int) -> str:
    """``ended with exit code 3`` or ``was ended by SIGKILL``."""
    if code >= 0:
        return f"ended with exit code {code}"
    try:
        return f"was ended by {signal.Signals(-code).name}"
    except ValueError:
        return f"was ended by signal {-code}"
