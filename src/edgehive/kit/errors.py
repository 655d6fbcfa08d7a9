"""The one error tree of edgehive.

    EdgehiveError
        UserError            bad input from a person: config file, flag, token; carries a hint
        ProtocolError        a peer sent what the protocol does not allow
        Transient            it did not work now, trying again later may
            Unreachable      the other side could not be reached or went away
        StorageError         the local disk or database refused
        (kube.status.ApiStatus, aio errors and others derive from these or from EdgehiveError)

Errors carry their data in fields; ``str()`` gives the sentence a person reads.
"""


class EdgehiveError(Exception):
    """Root of every error that edgehive raises on purpose."""


class UserError(EdgehiveError):
    """Something a person gave us is wrong; `hint` says what to do next."""

    def __init__(self, message: str, *, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        return f"{self.message}\n  {self.hint}" if self.hint else self.message


class ProtocolError(EdgehiveError):
    """The peer broke the protocol; the message says where."""


class Transient(EdgehiveError):
    """It failed for now; a supervisor restarts the work with back-off."""


class Unreachable(Transient):
    """The other side could not be reached, or the connection to it was lost."""


class StorageError(EdgehiveError):
    """The local disk or database refused (full, read-only, corrupt)."""
