from __future__ import annotations

import asyncio
import json
import logging
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

import httpx
import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from litestar import Litestar
from litestar.testing import TestClient
from schemathesis import GenerationMode
from schemathesis.checks import CHECKS, load_all_checks

from bundle_world import ITEMS
from distilrec.bundle.runtime import Bundle
from distilrec.errors import BundleError, DistilrecError
from distilrec.serving.app import create_app, serve
from distilrec.serving.schema import MAX_BODY_BYTES, MAX_HISTORY


@pytest.fixture
def app(bundle: Bundle) -> Litestar:
    return create_app(bundle)


@pytest.fixture
def client(app: Litestar) -> Iterator[TestClient[Litestar]]:
    with TestClient(app) as client:
        yield client


def test_history_gives_what_the_bundle_gives(client: TestClient, bundle: Bundle) -> None:
    history = ["item-1", "gone", "item-2"]
    answer = client.post("/recommend", json={"history": history, "k": 6, "exclude": ["item-7"]})
    expected = bundle.recommend(history, 6, exclude=["item-7"])
    assert answer.status_code == 200
    body = answer.json()
    assert [entry["item"] for entry in body["items"]] == expected.items
    assert [entry["score"] for entry in body["items"]] == pytest.approx(expected.scores)
    assert (body["known"], body["unknown"]) == (2, 1)
    for entry in body["items"]:
        assert entry.get("title") == bundle.title(entry["item"])


def test_events_are_put_in_order_of_time_and_ties_stay(client: TestClient, bundle: Bundle) -> None:
    events = [{"item": "item-1", "timestamp": 30, "kind": "buy"}, {"item": "item-2", "timestamp": 10.5},
              {"item": "item-3", "timestamp": 30}, {"item": "item-4", "timestamp": -1}]
    answer = client.post("/recommend", json={"events": events}).json()
    expected = bundle.recommend(["item-4", "item-2", "item-1", "item-3"]).items
    assert [entry["item"] for entry in answer["items"]] == expected
    untimed = client.post("/recommend", json={"events": [{"item": "item-9"}, {"item": "item-5"}]}).json()
    assert [entry["item"] for entry in untimed["items"]] == bundle.recommend(["item-9", "item-5"]).items
    assert expected != bundle.recommend(["item-1", "item-2", "item-3", "item-4"]).items


def test_empty_and_unknown_histories_are_served(client: TestClient, bundle: Bundle) -> None:
    for body in ({"history": []}, {"events": []}, {"history": ["?", 5]}):
        answer = client.post("/recommend", json=body)
        assert answer.status_code == 200
        assert [entry["item"] for entry in answer.json()["items"]] == bundle.recommend([]).items


BAD = [
    (b"{nope", 400, "malformed"),
    (b"", 400, "empty"),
    (b'{"history": ["\xff"]}', 400, "utf-8"),
    (b'{"history": ' + b"[" * 5000 + b"]" * 5000 + b"}", 400, "cannot be read"),
    (b"[1, 2]", 422, "Expected `object`"),
    (b'{"histroy": []}', 422, "did you mean 'history'?"),
    (b'{"history": "item-1"}', 422, "Expected `array"),
    (b'{"history": [null]}', 422, "Expected `int | str`"),
    (b'{"history": [], "k": 0}', 422, ">= 1"),
    (b'{"history": [], "k": 1001}', 422, "<= 1000"),
    (b'{"history": [], "k": "ten"}', 422, "Expected `int`"),
    (b'{"events": [{"timestamp": 3}]}', 422, "item"),
    (b'{"events": [{"item": "a", "timestamp": "noon"}]}', 422, "Expected"),
    (b'{"events": [{"item": "a", "timestamp": 1}, {"item": "b"}]}', 422, "1 of 2 events have no timestamp"),
    (b'{"events": [], "history": []}', 422, "both history and events"),
    (b"{}", 422, "neither history nor events"),
    (b'{"user": "u"}', 422, "does not know users"),
    (json.dumps({"history": ["a"] * (MAX_HISTORY + 1)}).encode(), 422, f"length <= {MAX_HISTORY}"),
    (json.dumps({"history": ["a" * MAX_BODY_BYTES]}).encode(), 413, "too large"),
]


@pytest.mark.parametrize(("body", "status", "words"), BAD, ids=[f"{s}-{w}" for _, s, w in BAD])
def test_bad_bodies_are_told_what_is_wrong(client: TestClient, body: bytes, status: int, words: str) -> None:
    answer = client.post("/recommend", content=body)
    assert answer.status_code == status, answer.text
    problem = answer.json()
    assert set(problem) == {"status", "seen", "expected", "do"}
    assert problem["status"] == status
    assert words in problem["seen"]
    assert problem["expected"]
    assert problem["do"]
    assert client.post("/recommend", json={"history": ["item-1"]}).status_code == 200


def test_similar(client: TestClient, bundle: Bundle) -> None:
    answer = client.get("/items/item-5/similar", params={"k": 4})
    assert [entry["item"] for entry in answer.json()["items"]] == bundle.similar("item-5", 4).items
    missing = client.get("/items/nothing/similar")
    assert missing.status_code == 404
    assert "unknown item 'nothing'" in missing.json()["seen"]
    assert client.get("/items/item-5/similar?k=0").status_code == 422
    assert client.get("/items/item-5/similar?k=x").status_code == 422


def test_unknown_paths_and_methods(client: TestClient) -> None:
    assert client.get("/nowhere").json()["seen"] == "nothing at /nowhere"
    wrong = client.get("/recommend")
    assert wrong.status_code == 405
    assert "POST" in wrong.headers["allow"]


def test_a_fault_is_logged_whole_and_told_to_nobody(
    app: Litestar, bundle: Bundle, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(bundle, "_ids", None)
    with TestClient(app) as client:
        answer = client.post("/recommend", json={"history": ["secret-item"]})
    assert answer.status_code == 500
    assert "NoneType" not in answer.text
    assert "secret" not in answer.text
    assert any(record.exc_info for record in caplog.records if record.name == "distilrec.serving")


def test_health_and_start_page(client: TestClient, bundle: Bundle) -> None:
    body = client.get("/health").json()
    assert (body["status"], body["bundle"], body["name"]) == ("ok", bundle.digest, "small")
    assert (body["items"], body["parameters"]) == (ITEMS, bundle.parameters)
    assert body["uptime_seconds"] >= 0
    page = client.get("/")
    assert page.headers["content-type"].startswith("text/html")
    assert "/docs" in page.text
    assert bundle.digest in page.text


def test_docs_need_no_network(client: TestClient) -> None:
    page = client.get("/docs")
    assert page.status_code == 200
    assert "/recommend" in page.text
    assert "RecommendRequest" in page.text
    assert "http://" not in page.text
    assert "https://" not in page.text
    assert "<script" not in page.text
    document = client.get("/docs/openapi.json").json()
    assert set(document["paths"]) == {"/recommend", "/items/{key}/similar", "/health", "/metrics"}


def test_metrics_count_every_request(client: TestClient) -> None:
    client.post("/recommend", json={"history": ["item-1", "what"]})
    client.post("/recommend", json={"history": []})
    client.post("/recommend", content=b"{")
    client.get("/items/x/similar")
    client.get("/no/such/path")
    text = client.get("/metrics").text
    lines = dict(line.rsplit(" ", 1) for line in text.splitlines() if not line.startswith("#"))
    assert lines['distilrec_requests_total{method="POST",route="/recommend",status="200"}'] == "2"
    assert lines['distilrec_requests_total{method="POST",route="/recommend",status="400"}'] == "1"
    assert lines['distilrec_requests_total{method="GET",route="/items/{key}/similar",status="404"}'] == "1"
    assert lines['distilrec_requests_total{method="GET",route="(unknown)",status="404"}'] == "1"
    assert lines['distilrec_request_seconds_count{route="/recommend"}'] == "3"
    assert lines['distilrec_request_seconds_bucket{route="/recommend",le="+Inf"}'] == "3"
    assert (lines["distilrec_unknown_events_total"], lines["distilrec_newcomers_total"]) == ("1", "1")


def test_one_log_line_per_request_that_cannot_be_forged(client: TestClient, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, logger="distilrec.serving"):
        client.get("/items/a%0aERROR%20forged/similar")
    lines = [record.getMessage() for record in caplog.records if record.name == "distilrec.serving"]
    assert len(lines) == 1
    assert lines[0].startswith("GET /items/a%0AERROR%20forged/similar 404 ")


def test_a_thousand_at_once(app: Litestar, bundle: Bundle) -> None:
    async def ask() -> list[httpx.Response]:
        transport = httpx.ASGITransport(app=app)  # pyright: ignore[reportArgumentType]
        async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
            bodies = [{"history": [f"item-{i % ITEMS}"], "k": 3} for i in range(1000)]
            return await asyncio.gather(*(client.post("/recommend", json=body) for body in bodies))

    for i, answer in enumerate(asyncio.run(ask())):
        assert [e["item"] for e in answer.json()["items"]] == bundle.recommend([f"item-{i % ITEMS}"], 3).items


@pytest.mark.parametrize(("path", "method", "mode"), [
    ("/recommend", "POST", GenerationMode.POSITIVE), ("/recommend", "POST", GenerationMode.NEGATIVE),
    ("/items/{key}/similar", "GET", GenerationMode.POSITIVE), ("/items/{key}/similar", "GET", GenerationMode.NEGATIVE),
    ("/health", "GET", GenerationMode.POSITIVE), ("/metrics", "GET", GenerationMode.POSITIVE),
])
def test_the_server_keeps_its_own_openapi_document(app: Litestar, path: str, method: str, mode: GenerationMode) -> None:
    """Whatever is sent: documented statuses, documented bodies, never a 5xx. A valid body may still be refused, since a
    schema cannot say "history or events, not both"."""
    load_all_checks()
    operation = schemathesis.openapi.from_asgi("/docs/openapi.json", app)[path][method]
    calls = []

    @settings(max_examples=60, deadline=None, derandomize=True, database=None, suppress_health_check=list(HealthCheck))
    @given(case=operation.as_strategy(generation_mode=mode))
    def send(case: Any) -> None:
        calls.append(case.call_and_validate(excluded_checks=[CHECKS.get_one("positive_data_acceptance")]).status_code)

    send()
    assert (200 in calls) == (mode is GenerationMode.POSITIVE and path != "/items/{key}/similar")


SERVER = "import sys; from distilrec.serving.app import serve; serve(sys.argv[1], port=int(sys.argv[2]))"


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def ask(port: int, body: bytes) -> dict[str, Any]:
    connection = HTTPConnection("127.0.0.1", port, timeout=10)
    connection.request("POST", "/recommend", body)
    return json.loads(connection.getresponse().read())


def first_answer(port: int, process: subprocess.Popen[str], seconds: float = 20) -> float:
    """Seconds of wall time until the server answers for the first time."""
    start = time.perf_counter()
    while time.perf_counter() - start < seconds:
        assert process.poll() is None, process.stderr and process.stderr.read()
        try:
            assert ask(port, b'{"history": ["item-1"]}')["known"] == 1
            return time.perf_counter() - start
        except OSError:
            time.sleep(0.02)
    raise AssertionError("no answer")


def cpu_seconds(pid: int) -> float:
    """CPU time of a process: unlike wall time, it does not depend on what else the machine does."""
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def test_serve_answers_soon_and_stops_in_order(bundle_path: Path) -> None:
    port = free_port()
    command = [sys.executable, "-c", SERVER, str(bundle_path), str(port)]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as server:
        try:
            wall = first_answer(port, server)
            assert wall < 2 or cpu_seconds(server.pid) < 1.2  # the second on a machine that is busy with other things
            # a request that is still being sent when the signal comes is answered
            slow = socket.create_connection(("127.0.0.1", port), timeout=10)
            body = b'{"history": ["item-1"], "k": 2}'
            head = "POST /recommend HTTP/1.1\r\nHost: x\r\nConnection: close\r\n"
            slow.sendall(f"{head}Content-Length: {len(body)}\r\n\r\n".encode())
            time.sleep(0.2)
            threading.Timer(0.4, slow.sendall, [body]).start()
            server.send_signal(signal.SIGTERM)
            received = b"".join(iter(lambda: slow.recv(65536), b""))
            assert received.startswith(b"HTTP/1.1 200")
            assert b'"known":1' in received
            assert server.wait(timeout=15) in (0, -signal.SIGTERM)
            assert server.stderr is not None
            log = server.stderr.read()
        finally:
            server.kill()
    assert str(bundle_path) in log.splitlines()[0]
    assert f"http://127.0.0.1:{port}" in log.splitlines()[0]
    assert "POST /recommend 200" in log
    assert "Traceback" not in log


def test_serve_refuses_a_taken_port_and_a_damaged_bundle(bundle_path: Path, tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        with pytest.raises(DistilrecError, match=r"cannot listen on 127\.0\.0\.1"):
            serve(bundle_path, port=taken.getsockname()[1])
    with pytest.raises(DistilrecError, match="cannot listen"):
        serve(bundle_path, port=70000)
    with pytest.raises(BundleError, match="no bundle"):
        serve(tmp_path / "none")
