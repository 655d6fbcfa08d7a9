"""What passes between edgecore and its certificate child (`edge.csr`), and the two files it installs.

Apart from the child so that edgecore does not import what only the child needs.
"""

from pathlib import Path

import msgspec

from edgehive.edge.enroll_files import write_atomically


class Job(msgspec.Struct):
    """What to do. Without a `token` the current certificate is used to renew itself."""

    server: str
    node: str
    ca_file: str
    cert_file: str
    key_file: str
    token: str = ""


class Outcome(msgspec.Struct):
    """How it went; `error` is empty on success, `retry` tells whether trying again may help."""

    error: str = ""
    hint: str = ""
    retry: bool = False


def install_pair(cert_file: Path, key_file: Path, cert: bytes, key: bytes) -> None:
    """Replace certificate and key so that a crash at any point leaves a pair that fits (`finish_install`)."""
    write_atomically(_next(key_file), key)
    write_atomically(_next(cert_file), cert)
    finish_install(cert_file, key_file)


def finish_install(cert_file: Path, key_file: Path) -> None:
    """Complete an interrupted `install_pair`: once the new certificate is there, so is its key."""
    if not _next(cert_file).exists():
        return
    if _next(key_file).exists():
        _next(key_file).replace(key_file)
    _next(cert_file).replace(cert_file)


def _next(path: Path) -> Path:
    return path.with_name(path.name + ".next")
