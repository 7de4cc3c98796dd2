"""Answering from a bundle: numpy and ONNX Runtime, never torch.

    bundle = load("movies.bundle")
    bundle.recommend(["1214", "1200"], k=10).items
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime

from distilrec.bundle import config as folder
from distilrec.bundle.row_runtime import RowBundle, open_rows
from distilrec.bundle.session import open_graph, timed
from distilrec.errors import BundleError, DataError, problem
from distilrec.files import well_formed
from distilrec.types import Histories, Recommendations

__all__ = ["Bundle", "Recommendation", "latency", "load", "load_rank", "load_rows"]

_OUTPUTS = ["items", "scores"]
_SCORES_BYTES = 32 << 20  # scores of one batch: bounds the memory of evaluating any catalog
_BATCH_ROWS = 256


@dataclass(frozen=True, slots=True)
class Recommendation:
    """Items for one request, best first. Iterating gives (item key, score) pairs."""

    items: list[str]
    scores: list[float]
    unknown: int = 0  # events of the history whose item the bundle does not know; they were skipped
    known: int = field(default=0)  # events of the history that it does know

    def __len__(self) -> int:
        return len(self.items)

    def __iter__(self) -> Iterator[tuple[str, float]]:
        return iter(zip(self.items, self.scores, strict=True))


def load(path: str | Path, *, verify: bool = True, threads: int = 1) -> Any:
    """Open the bundle at `path`: a Bundle for the task rank, a RowBundle for predict and tag.

    verify: hash every file first (a few milliseconds per megabyte).
    threads: CPU threads for one request. One is fastest for catalogs below a million items.

    Raises BundleError, naming the file, if a byte changed, a file is missing, or a newer distilrec made it.
    """
    path = Path(path)
    with well_formed(path, BundleError):
        return _open(path, verify, threads)


def _open(path: Path, verify: bool, threads: int) -> Any:
    if verify:
        folder.verify(path)
    config = folder.read_config(path)
    if config["task"] in folder.ROW_TASKS:
        return open_rows(path, config, threads)
    if config["task"] != "rank":
        raise BundleError(problem(f"{path} holds a bundle for the task {config['task']!r}", "rank, predict or tag"))
    keys = _vocabulary(path / "items.json", config["items"])
    users = _vocabulary(path / "users.json", None) if any(i["name"] == "user" for i in config["inputs"]) else None
    bundle = Bundle(path, config, open_graph(path / str(config["graphs"].get("rank")), threads), keys, users)
    bundle.hold()
    return bundle


def load_rank(path: str | Path, *, threads: int = 1) -> Bundle:
    """`load` for callers that need recommendations; BundleError for a bundle of another task."""
    bundle = load(path, threads=threads)
    if not isinstance(bundle, Bundle):
        raise BundleError(problem(f"{path} answers the task {bundle.task}: rows of features", "a bundle of task rank",
                                  "use `distilrec predict`, or POST /predict"))
    return bundle


def load_rows(path: str | Path, *, threads: int = 1) -> RowBundle:
    """`load` for callers that ask with rows of features; BundleError for a bundle of another task."""
    bundle = load(path, threads=threads)
    if not isinstance(bundle, RowBundle):
        raise BundleError(problem(f"{path} answers the task rank: histories of items", "a bundle of predict or tag",
                                  "use `distilrec recommend`, or POST /recommend"))
    return bundle


class Bundle:
    """A served student. Safe to call from several threads.

    Attributes: path, config (config.json), item_keys (the list; the place is the internal id), digest.
    """

    task = "rank"

    def __init__(
        self, path: Path, config: dict[str, Any], session: onnxruntime.InferenceSession, item_keys: list[str],
        user_keys: list[str] | None,
    ) -> None:
        self.origin: Any = None  # what it was exported from, where that happened in this process
        self.path, self.config, self.item_keys = path, config, item_keys
        self.max_length: int = config["max_length"]
        self._session = session
        self._ids = {key: i for i, key in enumerate(item_keys)}
        self._users = None if user_keys is None else {key: i for i, key in enumerate(user_keys)}

    def __repr__(self) -> str:
        return f"Bundle({str(self.path)!r}, {self.n_items:,} items, {self.parameters:,} parameters)"

    @property
    def name(self) -> str:
        return str(self.config.get("student", "student"))

    @property
    def n_items(self) -> int:
        return len(self.item_keys)

    @property
    def uses_users(self) -> bool:
        return self._users is not None

    @property
    def parameters(self) -> int:
        """Every number that the graph reads, frozen tables included."""
        return self.config["parameters"]

    @cached_property
    def bytes(self) -> int:
        """Size of the graph files: what a device must load to score."""
        return sum((self.path / name).stat().st_size for name in self.config["graphs"].values())

    def hold(self) -> None:
        """Take hold of all that is read from the folder: a bundle put in its place later cannot mix with this one."""
        _ = self.titles, self.digest
        if self.config.get("item_vectors"):
            _ = self.item_vectors

    @cached_property
    def digest(self) -> str:
        """SHA-256 that stands for every file of the bundle."""
        return folder.bundle_digest(self.path)

    @cached_property
    def titles(self) -> list[str | None] | None:
        """Titles by internal id, for display; None if the data had none."""
        file = self.path / "titles.json"
        titles = json.loads(file.read_text(encoding="utf-8")) if file.is_file() else None
        fitting = isinstance(titles, list) and len(titles) == self.n_items
        if titles is not None and not (fitting and all(isinstance(one, str | None) for one in titles)):
            raise BundleError(problem(f"{file} does not hold a title or null for each of {self.n_items} items",
                                      "files of one export"))
        return titles

    def title(self, key: str) -> str | None:
        return self.titles[self._ids[key]] if self.titles is not None and key in self._ids else None

    def __contains__(self, item: object) -> bool:
        return item in self._ids

    def recommend(
        self, history: Sequence[str], k: int = 10, *, user: str | None = None, exclude: Iterable[str] = (),
        seen: str | None = None,
    ) -> Recommendation:
        """The k best items after `history` (external keys, oldest first).

        Unknown items in the history are skipped and counted. A history that is empty, or holds unknown items only, gets
        the list that the student learned for newcomers. Fewer than k items come back when no more are left.

        exclude: further keys that must not come back; unknown ones cannot come back anyway.
        seen: "drop" or "keep" the items of the history; None: as the bundle was exported.
        """
        known = self._known(history)
        masked = [*known, *self._known(exclude)] if self.drops(seen) else self._known(exclude)
        feed = {
            "history": np.array([known[-self.max_length:] or [-1]], dtype=np.int64),
            "exclude": np.array([masked or [-1]], dtype=np.int64),
            "k": self._k(k),
        }
        if self._users is not None:
            feed["user"] = np.array([-1 if user is None else self._users.get(str(user), -1)], dtype=np.int64)
        items, scores = self._session.run(_OUTPUTS, feed)
        return self._answer(items[0], scores[0], len(history) - len(known), len(known))

    def recommend_batch(
        self, histories: Sequence[Sequence[str]], k: int = 10, *, users: Sequence[str | None] | None = None,
        seen: str | None = None,
    ) -> list[Recommendation]:
        """`recommend` for many histories at once; the same answers, several times faster."""
        if users is not None and len(users) != len(histories):
            raise DataError(problem(f"{len(users)} users for {len(histories)} histories", "one user per history"))
        known = [self._known(history) for history in histories]
        flat = Histories.of(known, self.user_ids(users))
        exclude = flat if self.drops(seen) else Histories.of([[] for _ in known])
        found = self.recommend_ids(flat, exclude, k)
        return [
            self._answer(found.items[row], found.scores[row], len(history) - len(known[row]), len(known[row]))
            for row, history in enumerate(histories)
        ]

    def recommend_ids(self, histories: Histories, exclude: Histories, k: int) -> Recommendations:
        """Internal ids in, internal ids out: what evaluation and offline jobs call.

        exclude: row b lists the items that row b must not get. Rows of similar length are computed together, and
        the scores of one batch stay below 32 MB, whatever the catalog. Item -1, score -inf where no item was left.
        """
        if len(histories) != len(exclude):
            raise DataError(problem(f"{len(histories)} histories, {len(exclude)} rows to exclude", "as many of both"))
        count = self._k(k)
        items = np.full((len(histories), k), -1, dtype=np.int32)
        scores = np.full((len(histories), k), -np.inf, dtype=np.float32)
        kept = np.minimum(histories.lengths, self.max_length)
        order = np.lexsort((exclude.lengths, kept))
        step = int(np.clip(_SCORES_BYTES // (4 * max(1, self.n_items)), 1, _BATCH_ROWS))
        for start in range(0, len(order), step):
            rows = order[start:start + step]
            stops = histories.offsets[1:][rows]
            feed = {
                "history": _padded(histories.items, stops - kept[rows], kept[rows]),
                "exclude": _padded(exclude.items, exclude.offsets[:-1][rows], exclude.lengths[rows]),
                "k": count,
            }
            if self._users is not None:
                feed["user"] = histories.users[rows].astype(np.int64)
            found, best = self._session.run(_OUTPUTS, feed)
            items[rows, : count[0]], scores[rows, : count[0]] = found, best
        return Recommendations(histories.users, items, scores)

    def similar(self, item: str, k: int = 10) -> Recommendation:
        """The k items whose vectors point most nearly the same way (cosine), the item itself left out.

        Raises DataError if the bundle does not know the item, BundleError if its student has no item vectors.
        """
        if item not in self._ids:
            known = f"one of the {self.n_items} item keys of {self.path.name}"
            raise DataError(problem(f"unknown item {item!r}", known))
        number, count = self._ids[item], int(self._k(k)[0])
        cosine = self._directions @ self._directions[number]
        cosine[number] = -np.inf
        count = min(count, self.n_items - 1)
        kth = np.partition(cosine, self.n_items - count)[self.n_items - count] if count else np.inf
        near = np.flatnonzero(cosine >= kth)
        # stable, so that equal items come in the order of their ids
        best = near[np.argsort(-cosine[near], kind="stable")][:count]
        return self._answer(best, cosine[best], 0, 1)

    @cached_property
    def item_vectors(self) -> np.ndarray:
        """float32 [I, D], read from the graph file, where they lie once."""
        place = self.config.get("item_vectors")
        if not place:
            raise BundleError(problem(f"{self.name} has no item vectors", "a student with an item table"))
        file, shape = self.path / place["file"], tuple(place["shape"])
        if file.stat().st_size < place["offset"] + 4 * int(np.prod(shape)):
            raise BundleError(problem(f"{file} ends inside the item vectors", "the whole file"))
        # mapped, not read: it costs nothing until somebody asks for it, and the map outlives the file's name
        return np.memmap(file, dtype="<f4", mode="r", offset=place["offset"], shape=shape)

    @cached_property
    def _directions(self) -> np.ndarray:
        vectors = self.item_vectors
        return vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)

    def _known(self, keys: Iterable[str]) -> list[int]:
        ids = self._ids
        return [i for key in keys if (i := ids.get(key if type(key) is str else str(key))) is not None]

    def user_ids(self, users: Sequence[str | None] | None) -> np.ndarray | None:
        """int32 [B], -1 for unknown users; None if this student does not look at users."""
        if self._users is None or users is None:
            return None
        return np.array([-1 if u is None else self._users.get(str(u), -1) for u in users], dtype=np.int32)

    def drops(self, seen: str | None = None) -> bool:
        """Whether items of the history are left out under `seen` (None: as the bundle was exported)."""
        seen = seen or self.config["seen"]
        if seen not in ("drop", "keep"):
            raise DataError(problem(f"seen: {seen!r}", "'drop' or 'keep'"))
        return seen == "drop"

    def _k(self, k: int) -> np.ndarray:
        if not isinstance(k, int | np.integer) or isinstance(k, bool) or k < 1:
            raise DataError(problem(f"k = {k!r}", "a whole number of at least 1"))
        return np.array([min(k, self.n_items)], dtype=np.int64)

    def _answer(self, items: np.ndarray, scores: np.ndarray, unknown: int, known: int) -> Recommendation:
        keys = self.item_keys
        pairs = [(i, score) for i, score in zip(items.tolist(), scores.tolist(), strict=True) if i >= 0]
        return Recommendation([keys[i] for i, _ in pairs], [score for _, score in pairs], unknown, known)


def latency(bundle: Bundle, histories: Sequence[Sequence[str]], k: int = 10, *, warm_up: int = 20) -> dict[str, float]:
    """Wall milliseconds of one `recommend` call at a time: {"p50", "p99", "cpu"} ("cpu" is the mean CPU time)."""
    return timed(len(histories), lambda place: bundle.recommend(histories[place], k), warm_up)


def _padded(flat: np.ndarray, starts: np.ndarray, lengths: np.ndarray) -> np.ndarray:
    """int64 [B, max(1, longest)]: `flat[start:start + length]` per row, padded with -1 on the right."""
    column = np.arange(max(1, int(lengths.max(initial=0))))
    padded = np.full((len(starts), len(column)), -1, dtype=np.int64)
    valid = column < lengths[:, None]
    padded[valid] = flat[(starts[:, None] + column)[valid]]
    return padded


def _vocabulary(file: Path, expected: int | None) -> list[str]:
    try:
        keys = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise BundleError(problem(f"{file} cannot be read: {error}", "a JSON list of keys")) from None
    listed = isinstance(keys, list) and all(isinstance(key, str) for key in keys)
    if not listed or (expected is not None and len(keys) != expected):
        raise BundleError(problem(f"{file} does not hold the {expected} keys of config.json", "files of one export"))
    return keys
