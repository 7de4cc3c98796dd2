"""What the server reads and writes, as typed structures: the OpenAPI document is made from these."""

from __future__ import annotations

from typing import Annotated, Any

import msgspec

from distilrec.errors import nearest

__all__ = [
    "MAX_BODY_BYTES", "MAX_HISTORY", "MAX_K", "MAX_ROWS", "MAX_ROWS_BYTES", "Event", "Health", "Prediction",
    "PredictRequest", "PredictResponse", "Problem", "RankedCandidate", "RecommendRequest", "RecommendResponse",
    "ScoredItem", "explain",
]

MAX_K = 1000
MAX_HISTORY = 10_000
MAX_BODY_BYTES = 1 << 20
MAX_ROWS = 1000  # rows, or candidates, of one request
MAX_ROWS_BYTES = 8 << 20  # a vector of 384 numbers is 8 KB of JSON

_Key = Annotated[str, msgspec.Meta(max_length=512)] | int
_Keys = Annotated[list[_Key], msgspec.Meta(max_length=MAX_HISTORY)]


class Event(msgspec.Struct):
    """One raw event. Further fields are ignored, so that a log can be sent as it is."""

    item: Annotated[_Key, msgspec.Meta(description="Item key of the catalog.")]
    timestamp: Annotated[float | None, msgspec.Meta(description="Unix seconds, or any rising number.")] = None


class RecommendRequest(msgspec.Struct, forbid_unknown_fields=True):
    """Give `history` (item keys, oldest first) or `events`; a bundle that knows users can do with `user` alone."""

    history: Annotated[_Keys | None, msgspec.Meta(description="Item keys, oldest first.")] = None
    events: Annotated[
        Annotated[list[Event], msgspec.Meta(max_length=MAX_HISTORY)] | None,
        msgspec.Meta(description="Raw events, put in order of time; equal times keep the order given."),
    ] = None
    k: Annotated[int, msgspec.Meta(ge=1, le=MAX_K, description="How many items to return.")] = 10
    exclude: Annotated[_Keys, msgspec.Meta(description="Item keys that must not come back.")] = []
    user: Annotated[_Key | None, msgspec.Meta(description="User key, for bundles that know users.")] = None

    def sequence(self) -> list[str]:
        """Item keys, oldest first. Raises ValueError if the request does not say which, or how to order them."""
        if self.history is not None and self.events is not None:
            raise ValueError("both history and events are given")
        if self.events is not None:
            times = [event.timestamp for event in self.events if event.timestamp is not None]
            if times and len(times) < len(self.events):
                raise ValueError(f"{len(self.events) - len(times)} of {len(self.events)} events have no timestamp")
            events = sorted(self.events, key=lambda event: event.timestamp or 0) if times else self.events
            return [str(event.item) for event in events]
        if self.history is None and self.user is None:
            raise ValueError("neither history nor events are given")
        return [str(key) for key in self.history or []]


class ScoredItem(msgspec.Struct, omit_defaults=True):
    """One recommended item."""

    item: str
    score: float
    title: str | None = None


class RecommendResponse(msgspec.Struct):
    """Best first. `unknown` events of the history were skipped because the bundle does not know their items."""

    items: list[ScoredItem]
    known: int
    unknown: int


class PredictRequest(msgspec.Struct, forbid_unknown_fields=True):
    """Give `rows`, or a `context` with `candidates` to rank. The fields of a row are those of the structure Row."""

    rows: Annotated[
        Annotated[list[dict[str, Any]], msgspec.Meta(max_length=MAX_ROWS)] | None,
        msgspec.Meta(description="Rows of raw values; a field that is null or left out is missing."),
    ] = None
    context: Annotated[
        dict[str, Any] | None, msgspec.Meta(description="The fields that all candidates share, such as the user."),
    ] = None
    candidates: Annotated[
        Annotated[list[dict[str, Any]], msgspec.Meta(max_length=MAX_ROWS)] | None,
        msgspec.Meta(description="Rows to rank; a field that is in the context is in none of them."),
    ] = None
    k: Annotated[
        Annotated[int, msgspec.Meta(ge=1, le=MAX_K)] | None,
        msgspec.Meta(description="How many candidates to return; 10 if left out."),
    ] = None
    head: Annotated[str | None, msgspec.Meta(description="The head to rank by; the first that can if left out.")] = None


class Prediction(msgspec.Struct, omit_defaults=True):
    """The answer to one row, by head."""

    probabilities: Annotated[dict[str, float], msgspec.Meta(description="Of binary heads.")] = {}
    values: Annotated[dict[str, float], msgspec.Meta(description="Of number heads.")] = {}
    tags: Annotated[
        dict[str, list[str]], msgspec.Meta(description="Classes from their threshold on, most probable first."),
    ] = {}
    classes: Annotated[dict[str, dict[str, float]], msgspec.Meta(description="The probability of every class.")] = {}


class RankedCandidate(msgspec.Struct):
    """One candidate: its place in the list that was sent, from 0, and its probability (or value)."""

    candidate: int
    score: float


class PredictResponse(msgspec.Struct, omit_defaults=True):
    """`predictions`, one per row, or the `ranking` of the candidates by `head`, best first."""

    predictions: list[Prediction] | None = None
    ranking: list[RankedCandidate] | None = None
    head: str | None = None


class Health(msgspec.Struct, omit_defaults=True):
    """What is running here, and since when."""

    status: str
    bundle: str
    name: str
    version: str
    uptime_seconds: float
    parameters: int
    created: str
    task: str
    items: Annotated[int | None, msgspec.Meta(description="Size of the catalog, of a bundle that recommends.")] = None
    fields: Annotated[list[str] | None, msgspec.Meta(description="Fields of a row, of a bundle that predicts.")] = None
    heads: Annotated[list[str] | None, msgspec.Meta(description="What it predicts.")] = None


class Problem(msgspec.Struct):
    """Every error answer: what was seen, what was expected, what to do."""

    status: int
    seen: str
    expected: str
    do: str


def explain(seen: str) -> str:
    """A message of msgspec about an unknown field, with the nearest field that exists."""
    parts = seen.split("`")
    if "unknown field" in seen and len(parts) >= 3:
        return seen + nearest(parts[1], [*RecommendRequest.__struct_fields__, *PredictRequest.__struct_fields__])
    return seen
