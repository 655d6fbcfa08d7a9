"""A refusal with the HTTP answer that tells the peer why."""

from edgehive.kit.errors import ProtocolError


class Refused(ProtocolError):
    """The peer asked for something it may not have; answer `status` with `text` and close.

    `text` is meant for the peer, so it never holds a secret.
    """

    def __init__(self, status: int, text: str) -> None:
        super().__init__(text)
        self.status = status
        self.text = text
