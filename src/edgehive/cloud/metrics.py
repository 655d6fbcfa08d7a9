"""cloudcore's metrics in the Prometheus text format."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Metric:
    """One metric; `values` by label text (``node="a"``), or one value under ""."""

    name: str
    kind: str
    help: str
    values: Mapping[str, float]


def single(name: str, kind: str, help_text: str, value: float) -> Metric:
    """A metric without labels."""
    return Metric(name, kind, help_text, {"": value})


@dataclass(frozen=True, slots=True)
class Histogram:
    """A histogram; `counts` per bucket, the last one without bound."""

    name: str
    help: str
    bounds: tuple[float, ...]
    counts: tuple[int, ...]
    total: float


def render(metrics: Iterable[Metric | Histogram]) -> bytes:
    """The text a scraper reads."""
    lines: list[str] = []
    for metric in metrics:
        lines.append(f"# HELP {metric.name} {metric.help}")
        if isinstance(metric, Histogram):
            lines.append(f"# TYPE {metric.name} histogram")
            lines += _histogram(metric)
        else:
            lines.append(f"# TYPE {metric.name} {metric.kind}")
            lines += [
                f"{metric.name}{{{labels}}} {_number(value)}" if labels else f"{metric.name} {_number(value)}"
                for labels, value in metric.values.items()
            ]
    return ("\n".join(lines) + "\n").encode()


def _histogram(metric: Histogram) -> list[str]:
    lines: list[str] = []
    seen = 0
    for bound, count in zip((*map(_number, metric.bounds), "+Inf"), metric.counts, strict=True):
        seen += count
        lines.append(f'{metric.name}_bucket{{le="{bound}"}} {seen}')
    return [*lines, f"{metric.name}_sum {_number(metric.total)}", f"{metric.name}_count {seen}"]


def _number(value: float) -> str:
    return str(int(value)) if float(value).is_integer() else repr(float(value))
