"""Real servers for tests: each in a directory of its own, on a free port, ended with the test."""

import contextlib
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest


def free_port() -> int:
    """A port that nobody uses right now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def need(program: str) -> str:
    """The path of a program; skips the test without it."""
    found = shutil.which(program, path="/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin")
    if found is None:
        pytest.skip(f"there is no {program}")
    return found


@contextlib.contextmanager
def process(
    command: Sequence[str], port: int, log: Path, *, seconds: float = 20.0
) -> Iterator[subprocess.Popen[bytes]]:
    """Run a server until its port answers and the block ends."""
    with log.open("wb") as out:
        started = subprocess.Popen(command, stdout=out, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL)
    try:
        deadline = time.monotonic() + seconds
        while True:
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=0.2):
                break
            if started.poll() is not None or time.monotonic() > deadline:
                raise AssertionError(
                    f"{command[0]} does not listen: {log.read_text(errors='replace')[-2000:]}"
                )
            time.sleep(0.02)
        yield started
    finally:
        started.kill()
        started.wait()


@contextlib.contextmanager
def mosquitto(directory: Path, port: int = 0, *extra: str) -> Iterator[int]:
    """An MQTT broker, anonymous; yields its port."""
    program, port = need("mosquitto"), port or free_port()
    config = directory / f"mosquitto-{port}.conf"
    config.write_text("\n".join([f"listener {port} 127.0.0.1", "allow_anonymous true", *extra, ""]))
    with process([program, "-c", str(config)], port, directory / f"mosquitto-{port}.log"):
        yield port


@contextlib.contextmanager
def redis(directory: Path, *, password: str) -> Iterator[int]:
    """A Redis server; yields its port."""
    program, port = need("redis-server"), free_port()
    options = ["--bind", "127.0.0.1", "--port", str(port), "--requirepass", password]
    options += ["--save", "", "--dir", str(directory)]
    with process([program, *options], port, directory / "redis.log"):
        yield port


@contextlib.contextmanager
def mariadb(directory: Path, *, database: str, user: str, password: str) -> Iterator[int]:
    """A MariaDB server with one database and one user; yields its port."""
    install, server, port = need("mariadb-install-db"), need("mariadbd"), free_port()
    data = directory / "mariadb"
    subprocess.run(
        [
            install,
            "--no-defaults",
            f"--datadir={data}",
            "--auth-root-authentication-method=normal",
            "--skip-test-db",
        ]
        + ["--user=root"],
        check=True,
        capture_output=True,
        timeout=50,
    )
    script = directory / "init.sql"
    script.write_text(
        f"CREATE DATABASE {database};\n"
        f"CREATE USER '{user}'@'%' IDENTIFIED BY '{password}';\n"
        f"GRANT ALL ON {database}.* TO '{user}'@'%';\n"
    )
    options = [
        "--no-defaults",
        f"--datadir={data}",
        "--bind-address=127.0.0.1",
        f"--port={port}",
        "--user=root",
    ]
    options += [f"--socket={directory}/m.sock", f"--init-file={script}", f"--pid-file={directory}/m.pid"]
    with process([server, *options], port, directory / "mariadb.log"):
        yield port
