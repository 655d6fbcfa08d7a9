"""Which streams of a container a client of the kubelet's API wants."""

from edgehive.aio.http import Request
from edgehive.edge.kubelet_logs import BadQuery

_TRUE = ("1", "true")


def streams_of(request: Request) -> dict[str, bool]:
    """Which streams the client wants, in the kubelet's spelling of the parameters; raises `BadQuery`."""
    tty = request.param("tty") in _TRUE
    wanted = {
        "stdin": request.param("input") in _TRUE,
        "stdout": request.param("output") in _TRUE,
        "stderr": request.param("error") in _TRUE and not tty,  # a terminal has one output
        "tty": tty,
    }
    if not (wanted["stdin"] or wanted["stdout"] or wanted["stderr"]):
        raise BadQuery("you must specify at least 1 of stdin, stdout, stderr")
    return wanted
