"""Metrics of a server for Prometheus."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_LATEST

_SECONDS = (0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 30)
_TEXTS = (1, 2, 4, 8, 16, 32, 64, 128, 256)


class Figures:
    """Counters and histograms of one server, in a registry of their own."""

    content_type = CONTENT_TYPE_LATEST

    def __init__(self) -> None:
        self._registry = registry = CollectorRegistry()
        self.requests = Counter(
            "dure_serve_requests", "Requests for predictions, by status", ["status"], registry=registry
        )
        self.seconds = Histogram(
            "dure_serve_request_seconds",
            "From the first byte of a request for predictions to its answer",
            buckets=_SECONDS,
            registry=registry,
        )
        self.texts = Counter("dure_serve_texts", "Texts predicted", registry=registry)
        self.retries = Counter(
            "dure_serve_retries",
            "Requests that were asked again, since a batch failed or a replica died",
            registry=registry,
        )
        self.waiting = Gauge(
            "dure_serve_waiting_requests", "Requests that wait for a replica", registry=registry
        )
        self._batch_texts = Histogram(
            "dure_serve_batch_texts", "Texts in a batch", buckets=_TEXTS, registry=registry
        )
        self._batch_seconds = Histogram(
            "dure_serve_batch_seconds",
            "Of a batch, at its replica and on the way",
            buckets=_SECONDS,
            registry=registry,
        )

    def batch(self, num_texts: int, seconds: float) -> None:
        """Count a batch."""
        self._batch_texts.observe(num_texts)
        self._batch_seconds.observe(seconds)
        self.texts.inc(num_texts)

    def request(self, status: int, seconds: float) -> None:
        """Count a request for predictions."""
        self.requests.labels(str(status)).inc()
        self.seconds.observe(seconds)

    def statuses(self) -> dict[str, int]:
        """Return how many requests had each status."""
        return {
            sample.labels["status"]: int(sample.value)
            for metric in self.requests.collect()
            for sample in metric.samples
            if sample.name.endswith("_total")
        }

    def exposition(self) -> bytes:
        """Return all figures in Prometheus' text format."""
        return generate_latest(self._registry)
