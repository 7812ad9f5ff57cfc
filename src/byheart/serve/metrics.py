"""What Prometheus is told: requests, answers, how long both take, and what went wrong."""

from __future__ import annotations

import os
import time
import uuid

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest, multiprocess
from starlette.datastructures import MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
_SECONDS = (0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 30, 60)


class Metrics:
    """The counters of one server. With several worker processes they are added up (PROMETHEUS_MULTIPROC_DIR)."""

    def __init__(self) -> None:
        registry = CollectorRegistry()
        self._registry = registry
        self.requests = Counter(
            "byheart_requests", "Requests by route and status.", ["route", "status"], registry=registry
        )
        self.request_seconds = Histogram(
            "byheart_request_seconds", "From a request to its response's end.", ["route"],
            buckets=_SECONDS, registry=registry,
        )  # fmt: skip
        self.answers = Counter(
            "byheart_answers", "Questions by how they ended: answered, abstained, failed.", ["outcome"],
            registry=registry,
        )  # fmt: skip
        self.answer_seconds = Histogram(
            "byheart_answer_seconds", "From a question to its answer, without the sending.",
            buckets=_SECONDS, registry=registry,
        )  # fmt: skip
        self.tokens = Counter("byheart_tokens", "Words and marks in and out.", ["direction"], registry=registry)
        self.lost_notes = Counter(
            "byheart_lost_notes", "Exchanges and counts that the database did not take.", registry=registry
        )
        self.open_answers = Gauge(
            "byheart_open_answers",
            "Questions answered now or waiting.",
            registry=registry,
            multiprocess_mode="livesum",
        )
        self.engine_up = Gauge(
            "byheart_engine_up", "1 where the engine answers, 0 where it is gone, hangs or lacks the model.",
            registry=registry, multiprocess_mode="livemostrecent",
        )  # fmt: skip
        self.engine_restarts = Gauge(
            "byheart_engine_restarts", "How often an engine that byheart started was started again.",
            registry=registry, multiprocess_mode="max",
        )  # fmt: skip

    def text(self) -> bytes:
        """Return all figures in Prometheus' text format."""
        registry = self._registry
        if os.environ.get("PROMETHEUS_MULTIPROC_DIR"):
            registry = CollectorRegistry()
            multiprocess.MultiProcessCollector(registry)  # type: ignore[no-untyped-call]  # it has no types
        return generate_latest(registry)


class MeasuredApp:
    """Counts every request, and gives each response an id that can be found in the log."""

    def __init__(self, app: ASGIApp, metrics: Metrics) -> None:
        self._app = app
        self._metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on, and count it once it has ended."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started, status = time.perf_counter(), "none"  # none: the client left before there was a response

        async def send_counted(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = str(message["status"])
                MutableHeaders(scope=message).setdefault("x-request-id", uuid.uuid4().hex)
            await send(message)

        try:
            await self._app(scope, receive, send_counted)
        finally:
            route = _route_of(scope)
            self._metrics.requests.labels(route, status).inc()
            self._metrics.request_seconds.labels(route).observe(time.perf_counter() - started)


def _route_of(scope: Scope) -> str:
    """Return the route's pattern, never the address itself: whoever asks could make up any number of those."""
    return str(getattr(scope.get("route"), "path", "other"))
