"""``/healthz``, ``/livez``, ``/readyz``, ``/version``."""

import platform
from collections.abc import Callable, Mapping

import msgspec

from edgehive.aio.http import Request, Response

KUBERNETES_VERSION = "1.34"
"""The Kubernetes whose API this server speaks."""

_TEXT = {"content-type": "text/plain; charset=utf-8", "cache-control": "no-cache"}


class Health:
    """Runs named checks; each returns what is wrong, or ``""``."""

    def __init__(self, checks: Mapping[str, Callable[[], str]], *, product: str) -> None:
        self._checks = dict(checks)
        self._product = product

    def answer(self, request: Request) -> Response | None:
        """Answer a health path; None when it is none."""
        path = request.path.rstrip("/")
        if path == "/version":
            return self._version()
        _, endpoint, *rest = [*path.split("/"), ""][:4]
        if endpoint not in {"healthz", "livez", "readyz"}:
            return None
        name = rest[0] if rest else ""
        if name and name not in self._checks:
            return Response(404, b"404 page not found\n", dict(_TEXT))
        excluded = set(request.query.get("exclude", ()))
        checks = {n: c for n, c in self._checks.items() if (not name or n == name) and n not in excluded}
        lines, failed = [], False
        for check, run in checks.items():
            problem = run()
            failed = failed or bool(problem)
            lines.append(f"[-]{check} failed: {problem}" if problem else f"[+]{check} ok")
        if failed:
            return Response(500, "\n".join([*lines, f"{endpoint} check failed", ""]).encode(), dict(_TEXT))
        if "verbose" in request.query:
            return Response(200, "\n".join([*lines, f"{endpoint} check passed", ""]).encode(), dict(_TEXT))
        return Response(200, b"ok", dict(_TEXT))

    def _version(self) -> Response:
        major, minor = KUBERNETES_VERSION.split(".")
        body = {
            "major": major,
            "minor": minor,
            "gitVersion": f"v{KUBERNETES_VERSION}.0+edgehive.{self._product}",
            "gitCommit": "",
            "gitTreeState": "clean",
            "buildDate": "1970-01-01T00:00:00Z",
            "goVersion": f"python{platform.python_version()}",
            "compiler": platform.python_implementation().lower(),
            "platform": f"linux/{platform.machine()}",
        }
        return Response(200, msgspec.json.encode(body), {"content-type": "application/json"})
