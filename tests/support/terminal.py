"""A person at a terminal, for programs that want one: kubectl on a pseudo-terminal."""

import contextlib
import fcntl
import os
import select
import signal
import struct
import subprocess
import termios
import time
from typing import Any

from tests.support.installation import Installation, find_kubectl


class Terminal:
    """kubectl on a terminal of the given size. `until` fails with what was seen instead."""

    def __init__(self, made: Installation, *arguments: str, rows: int = 24, columns: int = 80) -> None:
        self._command = [find_kubectl(), f"--kubeconfig={made.layout.kubeconfig}", *arguments]
        self._environment = os.environ | {"HOME": str(made.root), "TERM": "xterm"}
        self._size = (rows, columns)
        self._seen = ""

    def __enter__(self) -> "Terminal":
        self._terminal, theirs = os.openpty()
        self._set_size(*self._size)
        self._process = subprocess.Popen(
            ["setsid", "--ctty", "--wait", *self._command],
            stdin=theirs,
            stdout=theirs,
            stderr=theirs,
            env=self._environment,
        )
        os.close(theirs)
        return self

    def __exit__(self, *error: Any) -> None:
        self._process.kill()
        self._process.wait()
        os.close(self._terminal)

    def _set_size(self, rows: int, columns: int) -> None:
        fcntl.ioctl(self._terminal, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))

    def resize(self, rows: int, columns: int) -> None:
        """Make it larger or smaller; the kernel tells whoever is in its foreground."""
        self._set_size(rows, columns)
        with contextlib.suppress(ProcessLookupError, OSError):
            os.killpg(os.tcgetpgrp(self._terminal), signal.SIGWINCH)

    def say(self, text: str) -> None:
        """Type."""
        os.write(self._terminal, text.encode())

    def ask(self, question: str, answer: str, tries: int = 20) -> None:
        """Type until the answer comes."""
        for left in reversed(range(tries)):
            self.say(question)
            with contextlib.suppress(AssertionError if left else ()):
                self.until(answer, seconds=2.0)
                return

    def until(self, *texts: str, seconds: float = 40.0) -> str:
        """Wait for one of these to appear; return everything since the last wait."""
        deadline = time.monotonic() + seconds
        while not any(text in self._seen for text in texts):
            left = deadline - time.monotonic()
            if left <= 0:
                raise AssertionError(f"not seen: {texts!r}; but: {self._seen[-2000:]!r}")
            if select.select([self._terminal], [], [], min(left, 1.0))[0]:
                try:
                    self._seen += os.read(self._terminal, 65536).decode(errors="replace")
                except OSError as exc:  # the program has ended
                    if any(text in self._seen for text in texts):
                        break
                    raise AssertionError(f"ended without {texts!r}: {self._seen[-2000:]!r}") from exc
        seen, self._seen = self._seen, ""
        return seen
