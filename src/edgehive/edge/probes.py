"""Probes: what a pod asks, and what a row of answers means. Pure."""

import enum
from collections.abc import Mapping
from dataclasses import dataclass

from edgehive.edge.pods_spec import Container, JsonObject


class ProbeKind(enum.StrEnum):
    """Which of the three; the value is how events name it."""

    STARTUP = "Startup"
    LIVENESS = "Liveness"
    READINESS = "Readiness"


@dataclass(frozen=True, slots=True)
class Probe:
    """One probe with its defaults filled in."""

    kind: ProbeKind
    handler: Mapping[str, JsonObject]
    """``exec``, ``httpGet``, ``tcpSocket`` or ``grpc`` with its settings."""
    initial_delay: float
    timeout: float
    period: float
    success_threshold: int
    failure_threshold: int
    grace: int | None


def probes_of(container: Container) -> dict[ProbeKind, Probe]:
    """Return the probes of `container`."""
    given = {
        ProbeKind.STARTUP: container.startup_probe,
        ProbeKind.LIVENESS: container.liveness_probe,
        ProbeKind.READINESS: container.readiness_probe,
    }
    return {kind: _parse(kind, raw) for kind, raw in given.items() if handler_of(raw)}


def handler_of(raw: JsonObject) -> dict[str, JsonObject]:
    """Return the handler of a probe or lifecycle hook."""
    return {key: raw[key] for key in ("exec", "httpGet", "tcpSocket", "grpc", "sleep") if key in raw}


def _parse(kind: ProbeKind, raw: JsonObject) -> Probe:
    def number(name: str, default: int, least: int) -> int:
        value = raw.get(name, default)
        return max(value, least) if isinstance(value, int) else default

    grace = raw.get("terminationGracePeriodSeconds")
    return Probe(
        kind=kind,
        handler=handler_of(raw),
        initial_delay=float(number("initialDelaySeconds", 0, 0)),
        timeout=float(number("timeoutSeconds", 1, 1)),
        period=float(number("periodSeconds", 10, 1)),
        success_threshold=number("successThreshold", 1, 1),
        failure_threshold=number("failureThreshold", 3, 1),
        grace=grace if isinstance(grace, int) else None,
    )


class ProbeState:
    """Counts answers in a row; `outcome` changes only at the thresholds."""

    def __init__(self, probe: Probe, *, outcome: bool | None) -> None:
        self.outcome = outcome
        self._probe = probe
        self._last: bool | None = None
        self._row = 0

    def receive(self, success: bool) -> bool:
        """Take one answer; return whether the outcome has changed."""
        self._row = self._row + 1 if success == self._last else 1
        self._last = success
        needed = self._probe.success_threshold if success else self._probe.failure_threshold
        if self._row < needed or self.outcome is success:
            return False
        self.outcome = success
        return True
