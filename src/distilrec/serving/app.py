"""The HTTP face of a bundle: POST /recommend, /items/{key}/similar or POST /predict, and /health, /metrics, /docs.

The model runs in the thread of the event loop: one answer takes about 0.15 ms of it, and there is nothing to queue or
to lock. Whether a thread pool is better is not settled. Ten interleaved rounds each on two busy cores (12,101 items,
width 32, 50 events), medians, loop against pool: one connection 0.66 and 0.74 ms of CPU a request, 677 and 847
requests/s; eight connections 0.73 and 0.71 ms, 493 and 692 requests/s. Rounds of one way differed by a factor of four,
more than the two ways do.
"""

from __future__ import annotations

import logging
import socket
import sys
import time
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import quote, unquote

import uvicorn
from litestar import Litestar, MediaType, Request, Response, get, post
from litestar.datastructures import State
from litestar.exceptions import (
    ClientException,
    HTTPException,
    MethodNotAllowedException,
    NotFoundException,
    SerializationException,
    ValidationException,
)
from litestar.exceptions.http_exceptions import RequestEntityTooLarge
from litestar.openapi import OpenAPIConfig
from litestar.openapi.datastructures import ResponseSpec
from litestar.params import FromPath, JSONBody, QueryParameter
from litestar.types import ASGIApp, Receive, Scope, Send

from distilrec.bundle.config import library_version
from distilrec.bundle.row_runtime import RowBundle
from distilrec.bundle.runtime import Bundle, Recommendation, load
from distilrec.errors import BundleError, DistilrecError, problem
from distilrec.serving.metrics import Metrics, observe
from distilrec.serving.pages import DocsPage, start_page
from distilrec.serving.predict import describe_rows, predict
from distilrec.serving.schema import (
    MAX_BODY_BYTES,
    MAX_K,
    MAX_ROWS_BYTES,
    Health,
    Problem,
    RecommendRequest,
    RecommendResponse,
    ScoredItem,
    explain,
)

__all__ = ["create_app", "serve"]

_LOG = logging.getLogger("distilrec.serving")
_SEE = "see /docs"
_LIMIT = 1000  # requests under way at once
_ITEMS, _SIMILAR = "/items/", "/similar"
_RANK_ROUTES, _ROW_ROUTES = ("POST /recommend", "GET /items/{key}/similar"), ("POST /predict",)
_BAD_BODY = {
    400: ResponseSpec(Problem, description="The body is not JSON.", generate_examples=False),
    413: ResponseSpec(Problem, description="The body is too large.", generate_examples=False),
    422: ResponseSpec(Problem, description="The request is JSON, but not what is expected.", generate_examples=False),
}
_NO_ITEM = {
    404: ResponseSpec(Problem, description="The bundle does not know this item.", generate_examples=False),
    422: ResponseSpec(Problem, description="A parameter is out of its range.", generate_examples=False),
}


@post("/recommend", status_code=200, sync_to_thread=False, responses=_BAD_BODY, summary="The best next items",
      raises=[])
def recommend(data: JSONBody[RecommendRequest], state: State) -> RecommendResponse:
    """Items after a history, best first. Items that the bundle does not know are skipped and counted; a history without
    any known item gets the list for newcomers. Fewer than k items come back when no more are left."""
    bundle: Bundle = state.bundle
    if data.history is None and data.events is None and data.user is not None and not bundle.uses_users:
        raise ValidationException("only a user is given, and this bundle does not know users")
    try:
        history = data.sequence()
    except ValueError as error:
        raise ValidationException(str(error)) from None
    user = None if data.user is None else str(data.user)
    answer = bundle.recommend(history, data.k, user=user, exclude=[str(key) for key in data.exclude])
    state.metrics.unknown_events += answer.unknown
    state.metrics.newcomers += answer.known == 0
    return _response(bundle, answer)


@get("/items/{key:str}/similar", sync_to_thread=False, responses=_NO_ITEM, summary="Items like this one", raises=[])
def similar(
    key: FromPath[str], state: State,
    k: Annotated[int, QueryParameter(ge=1, le=MAX_K, description="How many items to return.")] = 10,
) -> RecommendResponse:
    """By the cosine of the item vectors. A key may hold slashes."""
    bundle: Bundle = state.bundle
    key = unquote(key)  # as `_whole_keys` quoted it
    if key not in bundle:
        raise NotFoundException(f"unknown item {key!r}")
    try:
        return _response(bundle, bundle.similar(key, k))
    except BundleError as error:
        raise NotFoundException(str(error).splitlines()[0]) from None


@get("/health", sync_to_thread=False, summary="Is it up, and what does it serve", raises=[])
def health(state: State) -> Health:
    """Answers 200 as soon as the bundle is loaded."""
    bundle: Bundle | RowBundle = state.bundle
    answer = Health("ok", bundle.digest, bundle.name, library_version(), round(time.monotonic() - state.started, 3),
                    bundle.parameters, str(bundle.config.get("created", "")), bundle.task)
    if isinstance(bundle, Bundle):
        answer.items = bundle.n_items
    else:
        answer.fields, answer.heads = list(bundle.fields), [head.name for head in bundle.heads]
    return answer


@get("/metrics", sync_to_thread=False, media_type=MediaType.TEXT, summary="Counts and times for Prometheus", raises=[])
def metrics(state: State) -> str:
    """Prometheus text format."""
    bundle: Bundle | RowBundle = state.bundle
    labels = {"bundle": bundle.digest, "name": bundle.name, "version": library_version()}
    return state.metrics.text(labels, time.monotonic() - state.started)


@get("/", sync_to_thread=False, media_type=MediaType.HTML, include_in_schema=False)
def start(state: State) -> str:
    return start_page(state.bundle)


def create_app(bundle: Bundle | RowBundle, limit: int = _LIMIT) -> Litestar:
    """The application around a loaded bundle, without a server; state holds `bundle`, `metrics` and `started`.

    Only the routes that fit the bundle's task are there. limit: requests under way at once, more get a 503.
    """
    counts = Metrics()
    routes = [recommend, similar] if isinstance(bundle, Bundle) else [predict]
    app = Litestar(
        route_handlers=[*routes, health, metrics, start],
        state=State({"bundle": bundle, "metrics": counts, "started": time.monotonic()}),
        request_max_body_size=MAX_BODY_BYTES,
        # Bytes that are no UTF-8 and brackets nested without end leave the JSON decoder as they are.
        exception_handlers={
            HTTPException: _http_problem, SerializationException: _bad_json, UnicodeDecodeError: _bad_json,
            RecursionError: _bad_json, Exception: _fault,
        },
        openapi_config=OpenAPIConfig(
            title=f"distilrec: {bundle.name}", version=library_version(), path="/docs", render_plugins=[DocsPage()],
            description="A small recommender that was taught by a large one.",
        ),
        logging_config=None,
    )
    if isinstance(bundle, RowBundle):
        describe_rows(app.openapi_schema, bundle)
    app.asgi_handler = observe(_whole_keys(app.asgi_handler), counts, limit)
    return app


def _whole_keys(inner: ASGIApp) -> ASGIApp:
    """Quote item keys again: the server unquotes paths, and a key "a/b" would look like two parts of one."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        path = scope.get("path", "")
        if scope["type"] == "http" and path.startswith(_ITEMS) and path.endswith(_SIMILAR):
            key = path[len(_ITEMS):-len(_SIMILAR)]
            scope["path"] = f"{_ITEMS}{quote(key, safe='')}{_SIMILAR}"
        await inner(scope, receive, send)

    return app


def serve(path: str | Path, host: str = "127.0.0.1", port: int = 8000, limit: int = _LIMIT) -> None:
    """Serve the bundle at `path` until SIGINT or SIGTERM; requests under way are finished first (10 s at most).

    port: 0 takes a free one; the first line of the log says which.
    limit: requests under way at once; more are answered with a 503 that says so.

    Raises BundleError for a damaged bundle and DistilrecError for an address that cannot be taken.
    """
    started = time.perf_counter()
    bundle = load(path)
    app = create_app(bundle, limit)
    listener = _listen(host, port)
    logging.basicConfig(stream=sys.stderr, level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s")
    # Idle connections count there too; past twice the limit uvicorn refuses by itself, in fewer words.
    config = uvicorn.Config(app, log_config=None, access_log=False, timeout_graceful_shutdown=10, lifespan="on",
                            limit_concurrency=2 * limit)
    what = f"{bundle.n_items:,} items" if isinstance(bundle, Bundle) else f"task {bundle.task}"
    shown = f"[{host}]" if ":" in host else host
    _LOG.info(
        "serving %s (%s, %s, %d parameters, digest %s) on http://%s:%d after %.2f s; stop with Ctrl-C",
        bundle.path, bundle.name, what, bundle.parameters, bundle.digest[:12], shown,
        listener.getsockname()[1], time.perf_counter() - started,
    )
    try:
        uvicorn.Server(config).run(sockets=[listener])
    except KeyboardInterrupt:  # uvicorn has shut down in good order, and raises the signal again
        _LOG.info("stopped")


def _listen(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    # The protocol must be named: asyncio turns Nagle's delay (40 ms an answer) off only for sockets that say TCP.
    listener = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
    except (OSError, OverflowError) as error:
        listener.close()
        raise DistilrecError(problem(
            f"cannot listen on {host}:{port}: {error}", "a free port and an address of this machine",
            "choose another --port, or stop what runs there",
        )) from None
    listener.set_inheritable(True)
    return listener


def _response(bundle: Bundle, answer: Recommendation) -> RecommendResponse:
    items = [ScoredItem(key, score, bundle.title(key)) for key, score in answer]
    return RecommendResponse(items, answer.known, answer.unknown)


def _http_problem(request: Request[Any, Any, Any], error: HTTPException) -> Response[Problem]:
    if isinstance(error, ValidationException):
        extra = error.extra if isinstance(error.extra, list) else []
        if any(e.get("message") == "'data'" for e in extra):  # litestar's way of saying that there was no body
            return _bad_json(request, ValueError("it is empty"))
        places = [("body" if e.get("key") in (None, "data") else e["key"], e["message"]) for e in extra]
        if not places and "\n" in error.detail:  # a `problem` of the library, which has all three parts
            return _library_problem(error.detail)
        faults = "; ".join(f"{place}: {message}" for place, message in places) or error.detail
        return _answer(422, explain(faults), "the fields and limits of this route")
    if isinstance(error, RequestEntityTooLarge):
        if request.url.path == "/predict":
            return _answer(413, "the body is too large", f"at most {MAX_ROWS_BYTES:,} bytes", "send fewer rows at once")
        return _answer(413, "the body is too large", f"at most {MAX_BODY_BYTES:,} bytes", "send the latest events only")
    if isinstance(error, MethodNotAllowedException):
        return _answer(405, f"{request.method} {request.url.path}", "another method", headers=error.headers)
    if isinstance(error, NotFoundException):
        return _not_found(request, error)
    if isinstance(error, ClientException):
        return _bad_json(request, error)
    return _answer(error.status_code, error.detail, "a request as documented")


def _not_found(request: Request[Any, Any, Any], error: HTTPException) -> Response[Problem]:
    if error.detail.startswith("unknown item"):
        return _answer(404, error.detail, "an item key or a route that exists")
    path, bundle = request.url.path, request.app.state.bundle
    own, other = (_RANK_ROUTES, _ROW_ROUTES) if isinstance(bundle, Bundle) else (_ROW_ROUTES, _RANK_ROUTES)
    if path in (one.split()[1] for one in other) or (path.startswith(_ITEMS) and path.endswith(_SIMILAR)):
        return _answer(404, f"{path} does not fit this bundle, whose task is {bundle.task}", " or ".join(own))
    return _answer(404, f"nothing at {path}", "an item key or a route that exists")


def _library_problem(text: str) -> Response[Problem]:
    """An error of the library, whose lines are those of errors.problem."""
    seen, *lines = text.split("\n  ")
    parts = dict(line.partition(": ")[::2] for line in lines)
    return _answer(422, seen, parts.get("expected", "the fields of this bundle"), parts.get("what to do", _SEE))


def _bad_json(_request: Request[Any, Any, Any], error: Exception) -> Response[Problem]:
    cause = error.__cause__ or error
    return _answer(400, f"the body cannot be read: {cause}"[:300], "a JSON object")


def _fault(request: Request[Any, Any, Any], error: Exception) -> Response[Problem]:
    """Anything that nobody foresaw: the whole story goes to the log, none of it to the caller."""
    _LOG.error("fault while answering %s %s", request.method, request.url.path, exc_info=error)
    return _answer(500, "a fault of the server", "an answer", "tell the operator; the log has the details")


def _answer(
    status: int, seen: str, expected: str, do: str = _SEE, headers: dict[str, str] | None = None
) -> Response[Problem]:
    return Response(Problem(status, seen, expected, do), status_code=status, media_type=MediaType.JSON, headers=headers)
