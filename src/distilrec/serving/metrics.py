"""Counting and logging every request, and the Prometheus text of the counts."""

from __future__ import annotations

import logging
import time
from bisect import bisect_left
from collections import Counter
from typing import Any
from urllib.parse import quote

import msgspec
from litestar.types import ASGIApp, Message, Receive, Scope, Send

from distilrec.serving.schema import Problem

__all__ = ["Metrics", "observe"]

_LOG = logging.getLogger("distilrec.serving")
_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
_ALWAYS = ("/health", "/metrics")
_BOUNDS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0)


class Metrics:
    """Counters of one process. Only the event loop writes to it, so it needs no lock."""

    def __init__(self) -> None:
        self.requests: Counter[tuple[str, str, int]] = Counter()
        self.buckets: dict[str, list[int]] = {}
        self.seconds: Counter[str] = Counter()
        self.unknown_events = 0
        self.newcomers = 0
        self.rows = 0
        self.unknown_values = 0

    def count(self, method: str, route: str, status: int, seconds: float) -> None:
        # the method is the client's own word: an invented one must not make a time series
        self.requests[method if method in _METHODS else "(other)", route, status] += 1
        buckets = self.buckets.setdefault(route, [0] * (len(_BOUNDS) + 1))
        buckets[bisect_left(_BOUNDS, seconds)] += 1
        self.seconds[route] += seconds  # type: ignore[assignment]

    def text(self, labels: dict[str, str], uptime: float) -> str:
        """Prometheus exposition format 0.0.4."""
        lines = [
            "# HELP distilrec_info What is served.", "# TYPE distilrec_info gauge",
            f"distilrec_info{_labels(labels)} 1",
            "# HELP distilrec_uptime_seconds Seconds since the start.", "# TYPE distilrec_uptime_seconds gauge",
            f"distilrec_uptime_seconds {uptime:.3f}",
            "# HELP distilrec_requests_total Answers by route and status.", "# TYPE distilrec_requests_total counter",
        ]
        for (method, route, status), n in sorted(self.requests.items()):
            labels = {"method": method, "route": route, "status": str(status)}
            lines.append(f"distilrec_requests_total{_labels(labels)} {n}")
        lines.append("# HELP distilrec_request_seconds Wall time of a request.")
        lines.append("# TYPE distilrec_request_seconds histogram")
        for route, buckets in sorted(self.buckets.items()):
            total = 0
            for bound, n in zip((*map(str, _BOUNDS), "+Inf"), buckets, strict=True):
                total += n
                lines.append(f"distilrec_request_seconds_bucket{_labels({'route': route, 'le': bound})} {total}")
            lines.append(f"distilrec_request_seconds_sum{_labels({'route': route})} {self.seconds[route]:.6f}")
            lines.append(f"distilrec_request_seconds_count{_labels({'route': route})} {total}")
        lines += [
            "# HELP distilrec_unknown_events_total Events of histories whose item the bundle does not know.",
            "# TYPE distilrec_unknown_events_total counter", f"distilrec_unknown_events_total {self.unknown_events}",
            "# HELP distilrec_newcomers_total Requests without any known item.",
            "# TYPE distilrec_newcomers_total counter", f"distilrec_newcomers_total {self.newcomers}",
            "# HELP distilrec_rows_total Rows and candidates that were answered.",
            "# TYPE distilrec_rows_total counter", f"distilrec_rows_total {self.rows}",
            "# HELP distilrec_unknown_values_total Categories of rows that were missing, or unknown to the bundle.",
            "# TYPE distilrec_unknown_values_total counter", f"distilrec_unknown_values_total {self.unknown_values}",
        ]
        return "\n".join(lines) + "\n"


def observe(inner: ASGIApp, metrics: Metrics, limit: int) -> ASGIApp:
    """Wrap the whole application, so that answers to unknown paths are counted and logged as well.

    limit: requests that may be received and answered at once; the next one is told so with a 503 and may try again.
        /health and /metrics are always answered: an operator asks them just then.
    """
    busy = Problem(503, f"{limit} requests are being answered already", "fewer requests at once", "try again soon")
    body = msgspec.json.encode(busy)
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode()),
               (b"retry-after", b"1"), (b"connection", b"close")]
    under_way = 0

    async def refuse(scope: Scope, receive: Receive, send: Send) -> None:  # noqa: ARG001
        await send({"type": "http.response.start", "status": 503, "headers": headers})
        await send({"type": "http.response.body", "body": body, "more_body": False})

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await inner(scope, receive, send)
            return
        nonlocal under_way
        start = time.perf_counter()
        status = 500
        path = quote(scope["path"], safe="/:@,;=+~")[:200]

        async def watched(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        under_way += 1
        try:
            free = under_way <= limit or scope["path"] in _ALWAYS
            await (inner if free else refuse)(scope, receive, watched)
        finally:
            under_way -= 1
            seconds = time.perf_counter() - start
            details: Any = scope
            # the template, not the path: a key in the path must not make a time series of its own
            route = details.get("path_template") or "(unknown)"
            metrics.count(details["method"], route, status, seconds)
            _LOG.info("%s %s %d %.2f ms", details["method"], path, status, seconds * 1e3)

    return app


def _labels(labels: dict[str, str]) -> str:
    escaped = {k: v.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n") for k, v in labels.items()}
    return "{" + ",".join(f'{key}="{value}"' for key, value in escaped.items()) + "}"
