"""Counters of all workers in one piece of shared memory, and their text for Prometheus.

The memory is mapped before the workers are forked. Each worker writes to a slot of its own, so nothing is locked; a scrape
adds the slots up, whichever worker answers it. A worker that is started again goes on in the slot of the one that died,
so no counter ever falls.
"""

from __future__ import annotations

import mmap
from bisect import bisect_left
from collections.abc import Iterable, Sequence

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

ENDPOINTS = ("invocations", "predict", "infer", "health", "other")
STATUSES = (200, 400, 404, 405, 408, 413, 415, 422, 429, 499, 500, 503, 504)
LATENCY = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
BATCH = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024, 4096)
# A model with more columns than this counts the rest as "other".
MAX_FIELDS = 1000
CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"


class Metrics:
    """All counters of one model."""

    def __init__(self, fields: Sequence[str] = (), *, name: str = "", version: str = "", workers: int = 1) -> None:
        """Map the memory; ``fields`` are the names of the signature."""
        self.labels = {"model": name, "version": version}
        self.fields = (*dict.fromkeys(fields[:MAX_FIELDS]), "other")
        self.workers = workers
        self._field_at = {field: place for place, field in enumerate(self.fields)}
        self._requests = 0
        self._latency = len(ENDPOINTS) * len(STATUSES)
        self._latency_sum = self._latency + len(LATENCY) + 1
        self._batch = self._latency_sum + 1
        self._batch_sum = self._batch + len(BATCH) + 1
        self._rejects = self._batch_sum + 1
        self._in_flight = self._rejects + len(self.fields)
        self._queue = self._in_flight + 1
        self._stuck = self._queue + 1
        self._beats = self._stuck + 1
        self._restarts = self._beats + 1
        self._size = self._restarts + 1
        self._all = memoryview(mmap.mmap(-1, 8 * self._size * workers)).cast("d")
        self._request_at = {
            (endpoint, status): row * len(STATUSES) + column
            for row, endpoint in enumerate(ENDPOINTS)
            for column, status in enumerate(STATUSES)
        }
        self._mine = self._all[: self._size]

    def use_slot(self, worker: int) -> None:
        """Write to this worker's slot from now on; nothing is in flight in a process that has just started."""
        self._mine = self._all[worker * self._size : (worker + 1) * self._size]
        self.load(0, 0, 0.0)

    def answered(self, endpoint: str, status: int, seconds: float) -> None:
        """Count one answer to a prediction endpoint and its time."""
        mine = self._mine
        mine[self._request_at[endpoint, status if status in STATUSES else 500]] += 1.0
        mine[self._latency + bisect_left(LATENCY, seconds)] += 1.0
        mine[self._latency_sum] += seconds

    def counted(self, endpoint: str, status: int) -> None:
        """Count one answer whose time says nothing about the model."""
        key = (endpoint, status if status in STATUSES else 500)
        self._mine[self._request_at[key]] += 1.0

    def batch(self, requests: int, _rows: int = 0) -> None:
        """Count one call of the model, for so many requests."""
        mine = self._mine
        mine[self._batch + bisect_left(BATCH, requests)] += 1.0
        mine[self._batch_sum] += requests

    def rejected(self, fields: Iterable[str]) -> None:
        """Count one rejected body by the fields that were wrong; names that the signature does not have are "other"."""
        other = self._field_at["other"]
        for place in {self._field_at.get(field, other) for field in fields}:
            self._mine[self._rejects + place] += 1.0

    def load(self, in_flight: int, queue: int, stuck: float) -> None:
        """Set how many requests are being answered, how many of them wait, and for how long the model has computed."""
        mine = self._mine
        mine[self._in_flight] = in_flight
        mine[self._queue] = queue
        mine[self._stuck] = stuck
        mine[self._beats] += 1.0

    def stuck(self) -> float:
        """Seconds that the longest call of the model has been running, of all workers."""
        return max(map(self.stuck_of, range(self.workers)))

    def stuck_of(self, worker: int) -> float:
        """The same of one worker."""
        return self._all[worker * self._size + self._stuck]

    def beats_of(self, worker: int) -> float:
        """How often a worker has set its load: it does so many times a second while its event loop runs."""
        return self._all[worker * self._size + self._beats]

    def restarted(self, worker: int) -> None:
        """Count a worker that had to be started again; the parent does this."""
        self._all[worker * self._size + self._restarts] += 1.0
        self._all[worker * self._size + self._stuck] = 0.0

    def text(self) -> bytes:
        """What GET /metrics answers."""
        registry = CollectorRegistry(auto_describe=False)
        registry.register(_Scrape(self))
        return generate_latest(registry)

    def totals(self) -> list[float]:
        """The sums over all workers."""
        slots = [self._all[worker * self._size : (worker + 1) * self._size].tolist() for worker in range(self.workers)]
        return [sum(column) for column in zip(*slots, strict=True)]

    def collect(self) -> Iterable[Metric]:
        """The metric families, read at this moment."""
        total = self.totals()
        names, values = list(self.labels), list(self.labels.values())
        requests = CounterMetricFamily(
            "serving_requests", "Answers by endpoint and status", labels=[*names, "endpoint", "status"]
        )
        for (endpoint, status), place in self._request_at.items():
            if total[place]:
                requests.add_metric([*values, endpoint, str(status)], total[place])
        yield requests
        latency = HistogramMetricFamily(
            "serving_request_duration_seconds", "Time from the request's head to the answer's end", labels=names
        )
        buckets = _buckets(LATENCY, total[self._latency : self._latency_sum])
        latency.add_metric(values, buckets, total[self._latency_sum])
        yield latency
        batch = HistogramMetricFamily(
            "serving_batch_requests", "Requests that one call of the model answers", labels=names
        )
        batch.add_metric(values, _buckets(BATCH, total[self._batch : self._batch_sum]), total[self._batch_sum])
        yield batch
        rejects = CounterMetricFamily(
            "serving_validation_rejects", "Rejected bodies by offending field", labels=[*names, "field"]
        )
        for place, field in enumerate(self.fields):
            if total[self._rejects + place]:
                rejects.add_metric([*values, field], total[self._rejects + place])
        yield rejects
        for name, text, place in (
            ("serving_in_flight_requests", "Requests that are being answered", self._in_flight),
            ("serving_queue_requests", "Requests that wait for the model", self._queue),
        ):
            gauge = GaugeMetricFamily(name, text, labels=names)
            gauge.add_metric(values, total[place])
            yield gauge
        restarts = CounterMetricFamily(
            "serving_worker_restarts", "Workers that died and were started again", labels=names
        )
        restarts.add_metric(values, total[self._restarts])
        yield restarts


class _Scrape(Collector):
    def __init__(self, metrics: Metrics) -> None:
        self.metrics = metrics

    def collect(self) -> Iterable[Metric]:
        return self.metrics.collect()


def _buckets(bounds: Sequence[float], counts: Sequence[float]) -> list[tuple[str, float]]:
    """Cumulative buckets as Prometheus has them."""
    seen, found = 0.0, []
    for bound, count in zip((*map(float, bounds), float("inf")), counts, strict=True):
        seen += count
        found.append(("+Inf" if bound == float("inf") else str(bound), seen))
    return found
