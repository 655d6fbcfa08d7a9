"""The key that signs service-account tokens, and the process that holds it.

``python -m edgehive.apiserver.tokenkey KEYFILE`` answers lines on its standard input: ``id``, ``sign DATA`` and
``verify DATA SIGNATURE`` (base64). It ends at end of file, or when nobody has asked for a while. Loading
`cryptography` costs 10 MB, which this process gives back and the API server would keep.
"""

import base64
import hashlib
import select
import sys
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey

_IDLE = 20.0


def load(path: Path) -> "EllipticCurvePrivateKey":
    """Read a PEM key."""
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    key = serialization.load_pem_private_key(path.read_bytes(), None)
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise TypeError(f"{path} must hold an elliptic-curve key")
    return key


def key_id(key: "EllipticCurvePrivateKey") -> str:
    """A name for a key: the hash of its public half."""
    from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

    der = key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    return base64.urlsafe_b64encode(hashlib.sha256(der).digest()).rstrip(b"=").decode()


def sign(key: "EllipticCurvePrivateKey", data: bytes) -> bytes:
    """The ES256 signature of JWS: r and s, 32 bytes each."""
    from cryptography.hazmat.primitives import hashes
    from cryptography.hazmat.primitives.asymmetric import ec, utils

    r, s = utils.decode_dss_signature(key.sign(data, ec.ECDSA(hashes.SHA256())))
    return r.to_bytes(32, "big") + s.to_bytes(32, "big")


def verify(key: "EllipticCurvePrivateKey", data: bytes, signature: bytes) -> bool:
    """Check an ES256 signature."""
    from cryptography.exceptions import InvalidSignature
    from cryptography.hazmat.primitives import hashes
    from cryptography.hazmat.primitives.asymmetric import ec, utils

    if len(signature) != 64:
        return False
    der = utils.encode_dss_signature(
        int.from_bytes(signature[:32], "big"), int.from_bytes(signature[32:], "big")
    )
    try:
        key.public_key().verify(der, data, ec.ECDSA(hashes.SHA256()))
    except InvalidSignature:
        return False
    return True


def answer(key: "EllipticCurvePrivateKey", line: bytes) -> bytes:
    """Answer one line."""
    command, *parts = line.split()
    data = [base64.b64decode(part) for part in parts]
    if command == b"sign":
        return base64.b64encode(sign(key, data[0]))
    if command == b"verify":
        return b"1" if verify(key, data[0], data[1]) else b"0"
    return key_id(key).encode()


def serve(path: Path) -> None:
    """Answer lines until nobody asks any more."""
    key = load(path)
    while select.select([sys.stdin.fileno()], [], [], _IDLE)[0]:
        line = sys.stdin.buffer.readline()
        if not line:
            return
        sys.stdout.buffer.write(answer(key, line) + b"\n")
        sys.stdout.buffer.flush()


if __name__ == "__main__":
    serve(Path(sys.argv[1]))
