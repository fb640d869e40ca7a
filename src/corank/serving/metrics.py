"""What Prometheus is told: counts and times of this process, and where the roll-out is."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from corank.extras import import_extra

if TYPE_CHECKING:
    import prometheus_client as prometheus

    from corank.rollout.rows import Run
else:
    prometheus = import_extra("prometheus_client", "serve")

STATUSES = ("running", "held", "promoted", "rolled back")
_SECONDS = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10)


class Metrics:
    """The metrics of one server, in a registry of their own."""

    def __init__(self) -> None:
        self.registry = prometheus.CollectorRegistry()
        own: dict[str, Any] = {"registry": self.registry}
        self._answers = prometheus.Counter("corank_answers", "Models' answers.", ["arm"], **own)
        self._failures = prometheus.Counter("corank_failures", "Answers that failed.", ["arm"], **own)
        self._model = prometheus.Histogram(
            "corank_model_seconds", "Time of a model.", ["arm"], buckets=_SECONDS, **own
        )
        self._http = prometheus.Histogram(
            "corank_http_seconds", "Time of a request.", ["path", "code"], buckets=_SECONDS, **own
        )
        gauges = {
            "stage": "The stage of the roll-out, from 0.",
            "share": "The challenger's share of the keys.",
            "outcomes": "Outcomes that were counted.",
            "store_age_seconds": "Seconds since the store last answered.",
        }
        self._gauges = {
            name: prometheus.Gauge(f"corank_rollout_{name}", text, **own) for name, text in gauges.items()
        }
        self._status = prometheus.Gauge("corank_rollout_status", "1 where it is.", ["status"], **own)
        self._dropped = prometheus.Gauge("corank_dropped", "What was not compared.", ["what"], **own)
        self._evidence = prometheus.Gauge(
            "corank_rollout_evidence", "A guard's evidence as a share of what it needs.", ["guard"], **own
        )

    def hear(self, arm: str, run: Run) -> None:
        """Count one model's run; a router's listener."""
        self._answers.labels(arm).inc()
        self._model.labels(arm).observe(run.ms / 1e3)
        if run.failed:
            self._failures.labels(arm).inc()

    def time(self, path: str, code: int, seconds: float) -> None:
        """Count one HTTP request."""
        self._http.labels(path, str(code)).observe(seconds)

    def write(self, status: dict[str, Any] | None, age: float) -> bytes:
        """Write everything in Prometheus' text format.

        Args:
            status: from `Router.status`; None leaves what was told last.
            age: seconds since the store last answered.
        """
        self._gauges["store_age_seconds"].set(age)
        if status is not None:
            self._set(status)
        return prometheus.generate_latest(self.registry)

    def _set(self, status: dict[str, Any]) -> None:
        for name in ("stage", "share", "outcomes"):
            self._gauges[name].set(status[name])
        for name in STATUSES:
            self._status.labels(name).set(status["status"] == name)
        for what, count in status["here"]["dropped"].items():
            self._dropped.labels(what).set(count)
        for guard in status["guards"]:
            self._evidence.labels(guard["name"]).set(guard["evidence"] / guard["needed"])
