"""The contracts between the rooms, in one place (numpy and pyarrow only; torch is never imported here).

Letters in shapes: N rows, U users, I items, Q queries, B batch, L history length, D width, K kept candidates.

The one idea to know: a `Split` holds all events in one flat array, ordered by (user, part, time). The events
that a user gave us to train on, to validate on and to test on therefore lie side by side, a history is a
pair (start, stop) into that array, and the position of an event in it is the event's stable key.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal, Protocol, runtime_checkable

import numpy as np

from distilrec.errors import DataError, problem
from distilrec.files import digest_arrays

if TYPE_CHECKING:  # a served bundle reads this file too, and needs no tables
    import pyarrow as pa

__all__ = [
    "PARTS",
    "Bundle",
    "Dataset",
    "Examples",
    "Histories",
    "Interactions",
    "Knowledge",
    "Lister",
    "Part",
    "Ranker",
    "Recommendations",
    "Signal",
    "Split",
    "Task",
]

Task = Literal["rank", "predict", "tag", "write"]
Part = Literal["train", "valid", "test"]
PARTS: tuple[Part, ...] = ("train", "valid", "test")


@dataclass(frozen=True, eq=False)
class Interactions:
    """What happened, by internal ids, ordered by (user, time); equal times keep the order of the file."""

    user_ids: np.ndarray  # int32 [N]
    item_ids: np.ndarray  # int32 [N]
    weights: np.ndarray  # float32 [N], a rating or a strength; 1.0 where the log has none
    timestamps: np.ndarray  # int64 [N], Unix seconds, or the position within the user
    context: Mapping[str, np.ndarray] = field(default_factory=dict)  # further columns, each [N]

    def __len__(self) -> int:
        return len(self.user_ids)


@dataclass(frozen=True, eq=False)
class Dataset:
    """Interactions with what is known of users and items. Row i of `items` describes internal item i."""

    name: str
    interactions: Interactions
    user_keys: np.ndarray  # str objects [U]: internal id -> external key
    item_keys: np.ndarray  # str objects [I]; items without any event may be among them (cold items)
    items: pa.Table | None = None  # [I] rows; column "text" holds the item's text or null
    users: pa.Table | None = None  # [U] rows
    rows: pa.Table | None = None  # plain rows of a click table, for the predict task
    roles: Mapping[str, str] = field(default_factory=dict)  # column of `rows` -> its role
    counts: Mapping[str, int] = field(default_factory=dict)  # what reading and cleaning dropped, by reason
    timed: bool = True  # False: timestamps are positions or absent, so a split by time is refused
    quarantine: pa.Table | None = None  # bad rows set aside: file, line, reason, content

    def __repr__(self) -> str:
        return f"Dataset({self.name!r}, {self.n_users:,} users, {self.n_items:,} items)"

    @cached_property
    def digest(self) -> str:
        """Changes with any event, key or item text; independent of the name and of the machine."""
        events = self.interactions
        texts = self.item_texts()
        return digest_arrays(
            events.user_ids, events.item_ids, events.weights, events.timestamps,
            list(map(str, self.user_keys)), list(map(str, self.item_keys)), [text or "" for text in texts],
        )

    @property
    def n_users(self) -> int:
        return len(self.user_keys)

    @property
    def n_items(self) -> int:
        return len(self.item_keys)

    def item_texts(self) -> list[str | None]:
        """One text per internal item, None where there is none."""
        if self.items is None or "text" not in self.items.column_names:
            return [None] * self.n_items
        return self.items.column("text").to_pylist()


@dataclass(frozen=True, eq=False)
class Histories:
    """What a ranker sees: B users' past items, flat, with offsets. Nothing is padded."""

    users: np.ndarray  # int32 [B], -1 where the user is unknown
    items: np.ndarray  # int32 [sum of lengths], oldest first
    offsets: np.ndarray  # int64 [B + 1]

    def __len__(self) -> int:
        return len(self.users)

    @property
    def lengths(self) -> np.ndarray:
        return np.diff(self.offsets)

    @classmethod
    def of(cls, sequences: Sequence[Sequence[int] | np.ndarray], users: np.ndarray | None = None) -> Histories:
        """Histories from one sequence of internal item ids per user.

        >>> Histories.of([[3, 1], [], [2]]).offsets.tolist()
        [0, 2, 2, 3]
        """
        lengths = np.array([len(sequence) for sequence in sequences], dtype=np.int64)
        offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
        flat = np.concatenate([np.asarray(s, dtype=np.int32) for s in sequences]) if len(sequences) else np.empty(0)
        known = np.full(len(sequences), -1, dtype=np.int32) if users is None else np.asarray(users, dtype=np.int32)
        return cls(known, flat.astype(np.int32), offsets)


@dataclass(frozen=True, eq=False)
class Examples:
    """The decisions a model is asked to make.

    rank: from the events [history_start, history_stop) of the flat array predict each event of
    [target_start, target_stop). A training sequence is one row whose targets are the events after its first;
    each of them may be predicted from all events of the row before it. The key of a single decision is the
    position of its target event.
    """

    users: np.ndarray  # int32 [Q]
    history_start: np.ndarray  # int64 [Q]
    history_stop: np.ndarray  # int64 [Q]
    target_start: np.ndarray  # int64 [Q]
    target_stop: np.ndarray  # int64 [Q]
    columns: Mapping[str, np.ndarray] = field(default_factory=dict)  # features of a predict or tag example, each [Q]
    candidates: np.ndarray | None = None  # int32 [Q, C]; None: the whole catalog
    labels: Mapping[str, np.ndarray] = field(default_factory=dict)  # head -> [Q]
    label_mask: Mapping[str, np.ndarray] = field(default_factory=dict)  # head -> bool [Q]
    weight: np.ndarray | None = None  # float32 [Q]

    def __len__(self) -> int:
        return len(self.users)

    def take(self, rows: np.ndarray) -> Examples:
        """The examples at `rows` (indices or a boolean mask), in that order."""
        return Examples(
            self.users[rows], self.history_start[rows], self.history_stop[rows],
            self.target_start[rows], self.target_stop[rows],
            {name: column[rows] for name, column in self.columns.items()},
            None if self.candidates is None else self.candidates[rows],
            {head: label[rows] for head, label in self.labels.items()},
            {head: mask[rows] for head, mask in self.label_mask.items()},
            None if self.weight is None else self.weight[rows],
        )


@dataclass(frozen=True, eq=False)
class Split:
    """A data set with every event in exactly one of train, valid, test.

    `items[bounds[u, 0]:bounds[u, 1]]` are user u's train events, `[bounds[u, 1]:bounds[u, 2]]` valid,
    `[bounds[u, 2]:bounds[u, 3]]` test; oldest first within each part.
    """

    dataset: Dataset
    method: str  # "leave-last-out", "time", "random", "k-fold", "given"
    items: np.ndarray  # int32 [N], flat, ordered by (user, part, time)
    timestamps: np.ndarray  # int64 [N]
    weights: np.ndarray  # float32 [N]
    bounds: np.ndarray  # int64 [U, 4]
    counts: Mapping[str, int] = field(default_factory=dict)  # what the split left out, by reason

    def __post_init__(self) -> None:
        if len(self.bounds) != self.dataset.n_users or (np.diff(self.bounds, axis=1) < 0).any():
            raise DataError(problem(
                f"split bounds of shape {self.bounds.shape} for {self.dataset.n_users} users",
                "one row of four rising positions per user", "build the split with distilrec.prepare",
            ))

    def __repr__(self) -> str:
        return f"Split({self.dataset}, {self.method}, {', '.join(f'{self.n_events(part):,} {part}' for part in PARTS)})"

    @cached_property
    def digest(self) -> str:
        return digest_arrays(self.dataset.digest, self.method, self.items, self.timestamps, self.weights, self.bounds)

    @property
    def n_users(self) -> int:
        return self.dataset.n_users

    @property
    def n_items(self) -> int:
        return self.dataset.n_items

    def n_events(self, part: Part) -> int:
        column = PARTS.index(part)
        return int((self.bounds[:, column + 1] - self.bounds[:, column]).sum())

    @cached_property
    def train_counts(self) -> np.ndarray:
        """int64 [I]: how often each item occurs in the train part. The only popularity anybody may use."""
        return np.bincount(self.events("train")[1], minlength=self.n_items)

    def events(self, part: Part) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """(users int32 [n], items int32 [n], keys int64 [n]) of one part, in the order of the flat array."""
        column = PARTS.index(part)
        lengths = self.bounds[:, column + 1] - self.bounds[:, column]
        keys = _ranges(self.bounds[:, column], lengths)
        return np.repeat(np.arange(self.n_users, dtype=np.int32), lengths), self.items[keys], keys

    def queries(self, part: Part) -> Examples:
        """One example per user with events in `part`: history = all earlier parts, targets = the events of `part`.

        Raises DataError for "train", whose examples depend on the model (see training.batches).
        """
        column = PARTS.index(part)
        if column == 0:
            raise DataError(problem("queries('train')", "'valid' or 'test'", "use Split.events('train')"))
        users = np.flatnonzero(self.bounds[:, column + 1] > self.bounds[:, column])
        bounds = self.bounds[users]
        start, now, stop = bounds[:, 0], bounds[:, column], bounds[:, column + 1]
        return Examples(users.astype(np.int32), start, now, now, stop)

    def histories(self, examples: Examples) -> Histories:
        """The histories of `examples` as flat arrays."""
        return self.between(examples.users, examples.history_start, examples.history_stop)

    def between(self, users: np.ndarray, start: np.ndarray, stop: np.ndarray) -> Histories:
        """The events [start, stop) of each of B users, as flat arrays."""
        lengths = stop - start
        offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
        return Histories(np.asarray(users, dtype=np.int32), self.items[_ranges(start, lengths)], offsets)

    def deciders(self, keys: np.ndarray) -> np.ndarray:
        """int64 [B]: the user of each decision; one after a user's last train event has the key `len(items) + user`."""
        users = np.searchsorted(self.bounds[:, 0], keys, side="right") - 1
        return np.where(keys >= len(self.items), keys - len(self.items), users)

    def targets(self, examples: Examples) -> tuple[np.ndarray, np.ndarray]:
        """(items int32 [sum], offsets int64 [Q + 1]): the target items of each example."""
        lengths = examples.target_stop - examples.target_start
        offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
        return self.items[_ranges(examples.target_start, lengths)], offsets


def _ranges(starts: np.ndarray, lengths: np.ndarray) -> np.ndarray:
    """Concatenated ranges [start, start + length), vectorized."""
    lengths = np.asarray(lengths, dtype=np.int64)
    total = int(lengths.sum())
    if total == 0:
        return np.empty(0, dtype=np.int64)
    steps = np.arange(total, dtype=np.int64) - np.repeat(np.cumsum(lengths) - lengths, lengths)
    return np.repeat(np.asarray(starts, dtype=np.int64), lengths) + steps


@dataclass(frozen=True)
class Signal:
    """One kind of knowledge in a store: what it is, what it is keyed by, where it came from."""

    name: str
    kind: Literal[
        "response", "vector", "hidden", "attention", "relation", "gradient", "importance", "parameters", "text", "rows"
    ]
    key: Literal["event", "row", "user", "item", "token", "model"]
    space: Literal["logit", "probability", "score"] | None = None
    head: str | None = None
    layer: int | None = None
    teacher: str = ""
    width: int = 0  # K of a response, D of a vector
    rows: int = 0


@runtime_checkable
class Knowledge(Protocol):
    """All that training sees of any teacher: the store on disk, a live teacher, an average of the student."""

    @property
    def signals(self) -> Mapping[str, Signal]: ...

    def batch(self, keys: np.ndarray, signals: Collection[str] | None = None) -> dict[str, np.ndarray]:
        """Knowledge of the decisions `keys` (int64 [B]), of these signals alone where they are given.

        For a response signal `s`: `s` float32 [B, K] logits, `s.ids` int32 [B, K] items, `s.mass` float32 [B],
        the share of the teacher's probability (at temperature 1) that the K items hold, and `s.trust` float32 [B].
        For a vector signal: `s` float32 [B, D].
        """
        ...


@runtime_checkable
class Ranker(Protocol):
    """Anything that scores the whole catalog for a history: trained models, baselines, outside scorers."""

    name: str

    def scores(self, histories: Histories) -> np.ndarray:
        """float32 [B, I]; higher is better; -inf where the scorer does not know the item."""
        ...

    @property
    def parameters(self) -> int:
        """Every number that is read to answer, frozen tables included."""
        ...


@runtime_checkable
class Lister(Protocol):
    """Anything that gives lists: bundles, fusions, cascades."""

    def recommend_ids(self, histories: Histories, exclude: Histories, k: int) -> Recommendations: ...


@runtime_checkable
class Bundle(Lister, Protocol):
    """A served student: external keys in, external keys out; needs no torch."""

    def recommend(self, history: list[str], k: int = 10) -> Any: ...


@dataclass(frozen=True, eq=False)
class Recommendations:
    """The only thing that ranking metrics read. Row q answers query q; best first.

    Item -1 with score -inf fills rows that had fewer than k items to give.
    """

    users: np.ndarray  # int32 [Q]
    items: np.ndarray  # int32 [Q, k], internal ids
    scores: np.ndarray  # float32 [Q, k]

    def __len__(self) -> int:
        return len(self.users)
