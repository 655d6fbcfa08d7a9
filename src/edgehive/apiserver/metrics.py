"""Counters of the API server in Prometheus' text format."""

from collections.abc import Iterator
from typing import NamedTuple

from edgehive.aio.storage import Storage
from edgehive.apiserver.watches import Watcher

_BOUNDS = (0.005, 0.025, 0.1, 0.5, 1.0, 5.0)


class Series(NamedTuple):
    """The labels of one counter."""

    verb: str
    resource: str
    code: int


class Metrics:
    """Counts requests; bounded, since labels come from served resources only."""

    def __init__(self) -> None:
        self._requests: dict[Series, int] = {}
        self._buckets: dict[str, list[int]] = {}
        self._seconds: dict[str, float] = {}

    def count(self, series: Series, seconds: float) -> None:
        """Count one answered request."""
        self._requests[series] = self._requests.get(series, 0) + 1
        buckets = self._buckets.setdefault(series.verb, [0] * (len(_BOUNDS) + 1))
        index = next((i for i, bound in enumerate(_BOUNDS) if seconds <= bound), len(_BOUNDS))
        buckets[index] += 1
        self._seconds[series.verb] = self._seconds.get(series.verb, 0.0) + seconds

    def render(self, storage: Storage, watcher: Watcher) -> bytes:
        """The text of ``/metrics``."""
        return ("\n".join(self._lines(storage, watcher)) + "\n").encode()

    def _lines(self, storage: Storage, watcher: Watcher) -> Iterator[str]:
        yield "# HELP apiserver_request_total Requests answered."
        yield "# TYPE apiserver_request_total counter"
        for (verb, resource, code), n in sorted(self._requests.items()):
            yield f'apiserver_request_total{{verb="{verb}",resource="{resource}",code="{code}"}} {n}'
        yield "# HELP apiserver_request_duration_seconds Time to answer, without watches."
        yield "# TYPE apiserver_request_duration_seconds histogram"
        for verb, buckets in sorted(self._buckets.items()):
            total = 0
            for bound, n in zip((*_BOUNDS, "+Inf"), buckets, strict=True):
                total += n
                yield f'apiserver_request_duration_seconds_bucket{{verb="{verb}",le="{bound}"}} {total}'
            yield f'apiserver_request_duration_seconds_sum{{verb="{verb}"}} {self._seconds[verb]:.6f}'
            yield f'apiserver_request_duration_seconds_count{{verb="{verb}"}} {total}'
        yield "# HELP apiserver_longrunning_requests Watches that are open."
        yield "# TYPE apiserver_longrunning_requests gauge"
        yield f'apiserver_longrunning_requests{{verb="WATCH"}} {watcher.active}'
        yield "# HELP apiserver_storage_objects Objects by resource."
        yield "# TYPE apiserver_storage_objects gauge"
        for bucket, n in sorted(storage.buckets().items()):
            yield f'apiserver_storage_objects{{resource="{bucket}"}} {n}'
        yield "# HELP edgehive_store_revision The last durable revision."
        yield "# TYPE edgehive_store_revision counter"
        yield f"edgehive_store_revision {storage.revision}"
        yield "# HELP edgehive_store_commits_total Commits of the store, each with one sync of the disk."
        yield "# TYPE edgehive_store_commits_total counter"
        yield f"edgehive_store_commits_total {storage.commits}"
        yield "# HELP edgehive_store_failed_commits_total Commits that the disk refused."
        yield "# TYPE edgehive_store_failed_commits_total counter"
        yield f"edgehive_store_failed_commits_total {storage.failures}"
