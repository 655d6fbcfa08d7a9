"""The few fields we route by, read out of a raw JSON object without building the rest.

Objects travel as the bytes they came as; decoding `Partial` costs a quarter of a full decode and keeps
about a quarter of the memory (measured: docs/dependencies.md, msgspec).
"""

import msgspec


class OwnerReference(msgspec.Struct, frozen=True, rename="camel", gc=False):
    """``metadata.ownerReferences[]``."""

    api_version: str = ""
    kind: str = ""
    name: str = ""
    uid: str = ""
    controller: bool | None = None
    block_owner_deletion: bool | None = None


class Meta(msgspec.Struct, frozen=True, rename="camel", gc=False):
    """``metadata``: the fields controllers and the hub look at."""

    name: str = ""
    generate_name: str = ""
    namespace: str = ""
    uid: str = ""
    resource_version: str = ""
    generation: int = 0
    creation_timestamp: str | None = None
    deletion_timestamp: str | None = None
    deletion_grace_period_seconds: int | None = None
    labels: dict[str, str] | None = None
    annotations: dict[str, str] | None = None
    owner_references: tuple[OwnerReference, ...] | None = None
    finalizers: tuple[str, ...] | None = None

    @property
    def rv(self) -> int:
        """The resourceVersion as a number; 0 when absent or not a decimal string (never raises)."""
        text = self.resource_version
        return int(text) if text.isascii() and text.isdigit() else 0


class Partial(msgspec.Struct, frozen=True, rename="camel", gc=False):
    """``apiVersion``, ``kind``, ``metadata``; everything else stays undecoded."""

    api_version: str = ""
    kind: str = ""
    metadata: Meta = Meta()


_partial = msgspec.json.Decoder(Partial)


def decode_partial(raw: bytes) -> Partial:
    """Read kind and metadata out of `raw`.

    Raises:
        msgspec.DecodeError: `raw` is not JSON, or one of these fields has the wrong type; with all of
            `kit.malformed.MALFORMED` it is for the caller to catch.
    """
    return _partial.decode(raw)
