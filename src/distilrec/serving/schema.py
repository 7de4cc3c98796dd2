"""What the server reads and writes, as typed structures: the OpenAPI document is made from these."""

from __future__ import annotations

from typing import Annotated

import msgspec

from distilrec.errors import nearest

__all__ = [
    "MAX_BODY_BYTES", "MAX_HISTORY", "MAX_K", "Event", "Health", "Problem", "RecommendRequest", "RecommendResponse",
    "ScoredItem", "explain",
]

MAX_K = 1000
MAX_HISTORY = 10_000
MAX_BODY_BYTES = 1 << 20

_Key = Annotated[str, msgspec.Meta(max_length=512)] | int
_Keys = Annotated[list[_Key], msgspec.Meta(max_length=MAX_HISTORY)]


class Event(msgspec.Struct):
    """One raw event. Further fields are ignored, so that a log can be sent as it is."""

    item: Annotated[_Key, msgspec.Meta(description="Item key of the catalog.")]
    timestamp: Annotated[float | int | None, msgspec.Meta(description="Unix seconds, or any rising number.")] = None


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


class Health(msgspec.Struct):
    """What is running here, and since when."""

    status: str
    bundle: str
    name: str
    version: str
    uptime_seconds: float
    items: int
    parameters: int
    created: str


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
        return seen + nearest(parts[1], RecommendRequest.__struct_fields__)
    return seen
