from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import subprocess
import sys
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

from distilrec.bundle.row_runtime import RowBundle
from distilrec.bundle.runtime import Bundle
from distilrec.serving.app import create_app
from distilrec.serving.schema import MAX_ROWS, MAX_ROWS_BYTES

ROWS = [{"item": "i1", "user": "u3", "price": 12.5, "colors": ["red"]}, {"item": "new", "title": "big cup"}]
CONTEXT = {"user": "u3", "past": ["i1", "i2"]}


@pytest.fixture
def row_app(row_bundle: RowBundle) -> Litestar:
    return create_app(row_bundle)


@pytest.fixture
def client(row_app: Litestar) -> Iterator[TestClient[Litestar]]:
    with TestClient(row_app) as client:
        yield client


def test_rows_get_what_the_bundle_gives(client: TestClient, row_bundle: RowBundle) -> None:
    answer = client.post("/predict", json={"rows": ROWS})
    assert answer.status_code == 200
    body = answer.json()
    assert set(body) == {"predictions"}
    expected = row_bundle.predict(ROWS)
    for place, found in enumerate(body["predictions"]):
        assert found["probabilities"] == pytest.approx(
            {"click": float(expected["click"][place]), "buy": float(expected["buy"][place])})
        assert found["values"] == pytest.approx({"rating": float(expected["rating"][place])})
        new, cheap = expected["tags"][place].tolist()
        assert found["classes"] == {"tags": pytest.approx({"new": new, "cheap": cheap})}
        assert found["tags"] == {"tags": [tag for tag, _ in row_bundle.tags(ROWS[place])]}


def test_candidates_are_ranked_by_a_head(client: TestClient, row_bundle: RowBundle) -> None:
    candidates = [{"item": f"i{n}", "price": float(n)} for n in range(8)]
    for head in (None, "click", "buy", "rating"):
        body = {"context": CONTEXT, "candidates": candidates, "k": 3} | ({"head": head} if head else {})
        answer = client.post("/predict", json=body).json()
        ranked = row_bundle.rank(CONTEXT, candidates, 3, head)
        assert [one["candidate"] for one in answer["ranking"]] == ranked.places
        assert [one["score"] for one in answer["ranking"]] == pytest.approx(ranked.scores)
        assert answer["head"] == (head or "click")
        assert "predictions" not in answer
    assert len(client.post("/predict", json={"candidates": candidates * 2}).json()["ranking"]) == 10


BAD: list[tuple[bytes, int, str]] = [
    (b"{nope", 400, "malformed"),
    (b"", 400, "empty"),
    (b"[]", 422, "Expected `object`"),
    (b"{}", 422, "neither rows nor candidates"),
    (b'{"rows": [{"item": "i1"}], "candidates": []}', 422, "both rows and candidates"),
    (b'{"rows": [{"item": "i1"}], "k": 3, "head": "click"}', 422, "k and head without candidates"),
    (b'{"row": []}', 422, "did you mean 'rows'?"),
    (b'{"rows": []}', 422, "no rows"),
    (b'{"candidates": []}', 422, "no candidates"),
    (b'{"rows": [1]}', 422, "Expected `object`"),
    (b'{"rows": [{"item": "i1"}, {"itm": "i1"}]}', 422, "row 1: unknown field 'itm', did you mean 'item'?"),
    (b'{"rows": [{"item": "i1"}, {"user": "u1"}]}', 422, "row 1: the required field 'item' is missing"),
    (b'{"rows": [{"item": "i1", "price": "cheap"}]}', 422, "row 0: field 'price': 'cheap'"),
    (b'{"rows": [{"item": "i1", "price": 1e300}]}', 422, "row 0: field 'price'"),
    (b'{"rows": [{"item": "i1", "picture": [1]}]}', 422, "row 0: field 'picture'"),
    (b'{"candidates": [{"item": "i1"}], "k": 0}', 422, ">= 1"),
    (b'{"candidates": [{"item": "i1"}], "head": "clik"}', 422, "did you mean 'click'?"),
    (b'{"candidates": [{"item": "i1"}], "head": "tags"}', 422, "head 'tags'"),
    (b'{"candidates": [{"item": "i1"}], "context": {"item": "i2"}}', 422, "in the context and in the candidates"),
    (json.dumps({"rows": [{"item": "i1"}] * (MAX_ROWS + 1)}).encode(), 422, f"length <= {MAX_ROWS}"),
    (json.dumps({"rows": [{"item": "a" * MAX_ROWS_BYTES}]}).encode(), 413, "too large"),
]


@pytest.mark.parametrize(("body", "status", "words"), BAD, ids=[f"{s}-{w}" for _, s, w in BAD])
def test_bad_bodies_are_told_which_row_and_field(client: TestClient, body: bytes, status: int, words: str) -> None:
    answer = client.post("/predict", content=body)
    assert answer.status_code == status, answer.text
    problem = answer.json()
    assert problem["status"] == status
    assert words in problem["seen"]
    assert "\n" not in problem["seen"]
    assert problem["expected"] and problem["do"]
    assert client.post("/predict", json={"rows": ROWS}).status_code == 200


def test_routes_of_the_other_task_say_which_fit(client: TestClient, bundle: Bundle) -> None:
    for path in ("/recommend", "/items/a/similar"):
        answer = client.post(path, json={}) if path == "/recommend" else client.get(path)
        assert answer.status_code == 404
        assert "does not fit this bundle, whose task is predict" in answer.json()["seen"]
        assert answer.json()["expected"] == "POST /predict"
    with TestClient(create_app(bundle)) as other:
        answer = other.post("/predict", json={"rows": ROWS})
        assert answer.status_code == 404
        assert answer.json()["expected"] == "POST /recommend or GET /items/{key}/similar"
        assert other.get("/nowhere").json()["seen"] == "nothing at /nowhere"


def test_it_describes_itself_by_the_config(client: TestClient, row_bundle: RowBundle) -> None:
    health = client.get("/health").json()
    assert (health["task"], health["name"], health["bundle"]) == ("predict", "small", row_bundle.digest)
    assert health["fields"] == ["user", "item", "price", "colors", "past", "title", "picture"]
    assert health["heads"] == ["click", "buy", "rating", "tags"]
    assert "items" not in health
    document = client.get("/docs/openapi.json").json()
    assert set(document["paths"]) == {"/predict", "/health", "/metrics"}
    row = document["components"]["schemas"]["Row"]
    assert list(row["properties"]) == health["fields"]
    assert row["properties"]["picture"]["minItems"] == 3
    assert "the last 4 count" in row["properties"]["past"]["description"]
    assert "item" in row["description"]
    page = client.get("/docs").text
    assert "POST /predict" in page and 'href="#Row"' in page and "category, 20 known" in page
    start = client.get("/").text
    assert "/predict" in start and row_bundle.digest in start


def test_the_example_of_the_start_page_works(client: TestClient) -> None:
    from html import unescape

    page = unescape(client.get("/").text)
    body = page.split("-d '")[1].split("'</pre>")[0]
    assert client.post("/predict", content=body.encode()).status_code == 200


def test_metrics_count_rows_and_what_was_unknown(client: TestClient) -> None:
    client.post("/predict", json={"rows": ROWS})
    client.post("/predict", json={"context": CONTEXT, "candidates": [{"item": "i1"}, {"item": "odd"}]})
    client.post("/predict", json={"rows": [{}]})
    lines = dict(line.rsplit(" ", 1) for line in client.get("/metrics").text.splitlines() if line[0] != "#")
    assert lines['distilrec_requests_total{method="POST",route="/predict",status="200"}'] == "2"
    assert lines['distilrec_requests_total{method="POST",route="/predict",status="422"}'] == "1"
    assert lines["distilrec_rows_total"] == "4"
    assert lines["distilrec_unknown_values_total"] == "3"  # item "new", no user in that row, item "odd"


@pytest.mark.parametrize("mode", [GenerationMode.POSITIVE, GenerationMode.NEGATIVE])
def test_the_server_keeps_its_own_openapi_document(row_app: Litestar, mode: GenerationMode) -> None:
    """Whatever is sent: documented statuses, documented bodies, never a 5xx. A valid body may still be refused, since
    a schema cannot say "rows or candidates, not both"."""
    load_all_checks()
    operation = schemathesis.openapi.from_asgi("/docs/openapi.json", row_app)["/predict"]["POST"]
    calls = []

    @settings(max_examples=30, deadline=None, derandomize=True, database=None, suppress_health_check=list(HealthCheck))
    @given(case=operation.as_strategy(generation_mode=mode))
    def send(case: Any) -> None:
        calls.append(case.call_and_validate(excluded_checks=[CHECKS.get_one("positive_data_acceptance")]).status_code)

    send()
    assert 422 in calls
    assert set(calls) <= {200, 400, 413, 422}


def test_item_keys_may_hold_slashes(bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    odd = {"a/b": 3, "a%2Fb": 4, "/": 5, "x/similar": 6, "ü ?": 7}
    monkeypatch.setattr(bundle, "_ids", {**bundle._ids, **odd})
    app = create_app(bundle)
    urls = {"a/b": 3, "a%2Fb": 3, "a%252Fb": 4, "%2F": 5, "x/similar": 6, "%C3%BC%20%3F": 7, "item-8": 8}

    async def ask() -> list[httpx.Response]:
        transport = httpx.ASGITransport(app=app)  # pyright: ignore[reportArgumentType]
        async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
            asked = [f"/items/{one}/similar?k=2" for one in (*urls, "no/such")]
            return [await client.get(url) for url in (*asked, "/metrics")]

    *found, missing, metrics = asyncio.run(ask())
    for answer, number in zip(found, urls.values(), strict=True):
        assert [one["item"] for one in answer.json()["items"]] == bundle.similar(f"item-{number}", 2).items
    assert (missing.status_code, missing.json()["seen"]) == (404, "unknown item 'no/such'")
    assert 'route="/items/{key}/similar",status="200"} 7' in metrics.text


def test_more_requests_than_the_limit_get_a_503_that_says_so(row_bundle: RowBundle) -> None:
    app = create_app(row_bundle, limit=2)

    async def ask() -> list[httpx.Response]:
        gate = asyncio.Event()

        async def slowly() -> Any:
            yield b'{"rows": '
            await gate.wait()
            yield json.dumps(ROWS).encode() + b"}"

        transport = httpx.ASGITransport(app=app)  # pyright: ignore[reportArgumentType]
        async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
            slow = [asyncio.create_task(client.post("/predict", content=slowly())) for _ in range(2)]
            await asyncio.sleep(0.1)
            answers = [await client.post("/predict", json={"rows": ROWS}), await client.get("/health")]
            gate.set()
            answers += await asyncio.gather(*slow)
            return [*answers, await client.post("/predict", json={"rows": ROWS})]

    refused, health, *rest = asyncio.run(ask())
    assert refused.status_code == 503
    assert refused.headers["retry-after"] == "1"
    assert refused.json()["seen"] == "2 requests are being answered already"
    assert health.status_code == 200
    assert [one.status_code for one in rest] == [200, 200, 200]


SERVER = "import sys; from distilrec.serving.app import serve; serve(sys.argv[1], port=int(sys.argv[2]), limit=4)"


def test_a_real_server_ranks_a_hundred_candidates_in_little_time(row_bundle_path: Path) -> None:
    """CPU time of the server, which does not depend on what else the machine does: at most 5 ms a request."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    candidates = [{"item": f"i{n % 9}", "price": n / 3, "colors": ["red", "blue"], "title": f"big cup {n}",
                   "picture": [0.1, n / 100, 2.0]} for n in range(100)]
    body = json.dumps({"context": CONTEXT, "candidates": candidates, "k": 10}).encode()
    command = [sys.executable, "-c", SERVER, str(row_bundle_path), str(port)]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as server:
        try:
            connection = connect(port, server)
            before, n = 0.0, 200
            for turn in range(n + 50):
                if turn == 50:
                    before = cpu_seconds(server.pid)
                connection.request("POST", "/predict", body)
                answer = connection.getresponse()
                assert len(json.loads(answer.read())["ranking"]) == 10
            assert (cpu_seconds(server.pid) - before) / n < 0.005
            # idle connections are bounded too
            idle = [socket.create_connection(("127.0.0.1", port), timeout=10) for _ in range(9)]
            time.sleep(0.5)
            connection.request("POST", "/predict", body)
            assert connection.getresponse().status == 503
            for one in idle:
                one.close()
            server.send_signal(signal.SIGTERM)
            assert server.wait(timeout=15) in (0, -signal.SIGTERM)
            assert server.stderr is not None
            log = server.stderr.read()
        finally:
            server.kill()
    assert "task predict" in log.splitlines()[0]
    assert "Traceback" not in log


def connect(port: int, process: subprocess.Popen[str], seconds: float = 30) -> HTTPConnection:
    end = time.perf_counter() + seconds
    while time.perf_counter() < end:
        assert process.poll() is None, process.stderr and process.stderr.read()
        try:
            connection = HTTPConnection("127.0.0.1", port, timeout=10)
            connection.request("GET", "/health")
            connection.getresponse().read()
            return connection
        except OSError:
            time.sleep(0.02)
    raise AssertionError("no answer")


def cpu_seconds(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
