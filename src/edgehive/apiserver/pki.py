"""The control plane's certificates and keys in one directory (keys 0600), made once.

``ca`` signs everything; ``apiserver`` is the server; ``admin``, ``cloudcore`` are clients; ``sa.key`` signs
service-account tokens. Making them needs `cryptography` (10 MB of memory), which therefore happens in a short-lived
child process: ``python -m edgehive.apiserver.pki DIR NAME...``.
"""

import datetime
import ipaddress
import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from edgehive.aio.pki import KeyPair

_CLIENTS = {
    "admin": ("kubernetes-admin", ("system:masters",)),
    "cloudcore": ("system:cloudcore", ("system:cloudcore",)),
    "kubelet-client": ("kube-apiserver-kubelet-client", ("system:masters",)),  # the API server, to nodes
}
_ALWAYS = (
    "localhost",
    "127.0.0.1",
    "::1",
    "kubernetes",
    "kubernetes.default",
    "kubernetes.default.svc",
    "kubernetes.default.svc.cluster.local",
)
_RENEW = datetime.timedelta(days=30)


@dataclass(frozen=True, slots=True)
class PkiDir:
    """Names of the files."""

    path: Path

    def cert(self, name: str) -> Path:
        """The certificate of `name`, PEM."""
        return self.path / f"{name}.crt"

    def key(self, name: str) -> Path:
        """The private key of `name`, PEM."""
        return self.path / f"{name}.key"

    @property
    def token_key(self) -> Path:
        """The public half of the key that signs service-account tokens, PEM."""
        return self.path / "sa.pub"

    @property
    def names_file(self) -> Path:
        """For which names the server's certificate was made, and until when: read without `cryptography`."""
        return self.path / "apiserver.names"

    def ca_pem(self) -> str:
        """The CA's certificate."""
        return self.cert("ca").read_text("ascii")

    def kubeconfig(self, client: str, server: str, *, cluster: str = "edgehive") -> str:
        """A kubeconfig with everything in it for one of the clients (``admin``, ``cloudcore``)."""
        import base64

        def embed(path: Path) -> str:
            return base64.b64encode(path.read_bytes()).decode()

        user = _CLIENTS[client][0]
        return (
            "apiVersion: v1\nkind: Config\n"
            f"clusters:\n- name: {cluster}\n  cluster:\n    server: {server}\n"
            f"    certificate-authority-data: {embed(self.cert('ca'))}\n"
            f"users:\n- name: {user}\n  user:\n"
            f"    client-certificate-data: {embed(self.cert(client))}\n"
            f"    client-key-data: {embed(self.key(client))}\n"
            f"contexts:\n- name: {cluster}\n  context:\n    cluster: {cluster}\n    user: {user}\n"
            f"current-context: {cluster}\n"
        )

    def needs(self, names: Sequence[str], now: datetime.datetime) -> bool:
        """Tell whether `make` has anything to do."""
        stems = ("ca", "apiserver", *_CLIENTS)
        files = [
            self.names_file,
            self.key("sa"),
            self.token_key,
            *(f(s) for s in stems for f in (self.cert, self.key)),
        ]
        if not all(path.is_file() for path in files):
            return True
        until, *known = self.names_file.read_text("ascii").split()
        expiry = datetime.datetime.fromisoformat(until)
        return now + _RENEW > expiry or not {*names, *_ALWAYS} <= set(known)


def make(directory: PkiDir, names: Sequence[str], now: datetime.datetime) -> None:
    """Make what is missing or runs out; never replace the CA or the signing key."""
    from edgehive.aio.pki import create_ca, issue, key_pem, load_pair, new_key, public_key_pem

    directory.path.mkdir(mode=0o700, parents=True, exist_ok=True)
    if directory.cert("ca").is_file() and directory.key("ca").is_file():
        ca = load_pair(directory.cert("ca").read_bytes(), directory.key("ca").read_bytes())
    else:
        ca = create_ca(f"edgehive-ca@{int(now.timestamp())}", now)  # two installations are told apart
        _write_pair(directory, "ca", ca)
    if not directory.key("sa").is_file():
        write_private(directory.key("sa"), key_pem(new_key()))
    write_private(directory.token_key, public_key_pem(directory.key("sa").read_bytes()))
    known = directory.names_file.read_text("ascii").split()[1:] if directory.names_file.is_file() else []
    wanted = sorted({*names, *known, *_ALWAYS})
    days = 3650
    addresses = [name for name in wanted if _is_address(name)]
    server = issue(
        ca,
        common_name="kube-apiserver",
        now=now,
        server=True,
        dns_names=[name for name in wanted if name not in addresses],
        addresses=addresses,
        days=days,
    )
    _write_pair(directory, "apiserver", server)
    for client, (common_name, organizations) in _CLIENTS.items():
        pair = issue(
            ca, common_name=common_name, organizations=organizations, now=now, client=True, days=days
        )
        _write_pair(directory, client, pair)
    until = now + datetime.timedelta(days=days)
    write_private(directory.names_file, " ".join([until.isoformat(), *wanted]).encode())


def _is_address(text: str) -> bool:
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True


def _write_pair(directory: PkiDir, name: str, pair: "KeyPair") -> None:
    write_private(directory.key(name), pair.key_pem)
    write_private(directory.cert(name), pair.cert_pem)


def write_private(path: Path, data: bytes) -> None:
    """Write a file that only its owner can read, whole or not at all."""
    part = path.with_name(path.name + ".part")
    part.unlink(missing_ok=True)
    descriptor = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    part.replace(path)


if __name__ == "__main__":
    make(PkiDir(Path(sys.argv[1])), sys.argv[2:], datetime.datetime.now(datetime.UTC))
