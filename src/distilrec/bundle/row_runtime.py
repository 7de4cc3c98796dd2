"""Answering rows of raw features from a bundle of the task predict or tag: numpy and ONNX Runtime, never torch.

    bundle = load("ads.bundle")
    bundle.predict([{"user": "u7", "item": "i3", "price": 4.5}])["click"]
    bundle.rank({"user": "u7"}, [{"item": "i3"}, {"item": "i9"}], k=10).places
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime

from distilrec.bundle import config as folder
from distilrec.bundle.row_inputs import check_fields, columns_of, encode_columns, fields_of, graph_input
from distilrec.bundle.session import open_graph, timed
from distilrec.errors import BundleError, DataError, nearest, problem
from distilrec.features import KINDS, Feature
from distilrec.types_rows import Head, Outputs

__all__ = ["Ranked", "RowBundle", "open_rows", "row_latency"]

_BLOCK = 2048  # rows of one run of the graph: bounds the memory of any file
_NOT_FEATURES = ("dtype", "shape", "default")  # what an input of config.json has beside the fields of a Feature
_HALF = 0.5


@dataclass(frozen=True, slots=True)
class Ranked:
    """Candidates by one head, best first. Iterating gives (place in the list of candidates, score) pairs."""

    head: str
    places: list[int]
    scores: list[float]  # probability of a binary head, value of a number head

    def __len__(self) -> int:
        return len(self.places)

    def __iter__(self) -> Iterator[tuple[int, float]]:
        return iter(zip(self.places, self.scores, strict=True))


class RowBundle:
    """A served student of rows. Safe to call from several threads.

    Attributes: path, config (config.json), task, features (in the order of the graph's inputs), heads, outputs (where
    each head lies), fields (raw field of a row -> features made of it), thresholds (head -> float32 [C]).
    """

    def __init__(
        self, path: Path, config: dict[str, Any], session: onnxruntime.InferenceSession, features: Sequence[Feature],
        heads: Sequence[Head],
    ) -> None:
        self.origin: Any = None  # what it was exported from, where that happened in this process
        self.path, self.config, self.task = path, config, str(config["task"])
        self.features, self.heads, self.outputs = tuple(features), tuple(heads), Outputs(tuple(heads))
        self.fields = fields_of(self.features)
        self.thresholds = _thresholds(config, self.heads)
        self._session = session

    @property
    def name(self) -> str:
        return str(self.config.get("student", "student"))

    @property
    def parameters(self) -> int:
        """Every number that the graph reads, frozen tables included."""
        return self.config["parameters"]

    @cached_property
    def bytes(self) -> int:
        """Size of the graph files: what a device must load to answer."""
        return sum((self.path / name).stat().st_size for name in self.config["graphs"].values())

    @cached_property
    def digest(self) -> str:
        """SHA-256 that stands for every file of the bundle."""
        return folder.bundle_digest(self.path)

    def predict(self, rows: Sequence[Mapping[str, Any]] | Mapping[str, Any]) -> dict[str, np.ndarray]:
        """{head: float32 [n], or [n, C] for tags}: probabilities of binary and tags heads, values of number heads.

        rows: n rows of raw values, or one column of n raw values per field. A value that is None or not given is
        missing; a category that the bundle does not know is answered like a missing one.

        Raises DataError for no rows, unknown fields (with the nearest name), required fields that are missing and
        values of the wrong type; the message names the rows.
        """
        return self.answers(self.encode(rows))

    def encode(self, rows: Sequence[Mapping[str, Any]] | Mapping[str, Any]) -> dict[str, np.ndarray]:
        """What the graph reads of raw rows, by feature; see `predict`."""
        columns, n = columns_of(rows, self.fields)
        if not n:
            raise DataError(problem("no rows", "at least one row"))
        return encode_columns(self.features, columns, n)

    def answers(self, encoded: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """`predict` for rows that `encode` has encoded."""
        (outputs,) = self._run(encoded, ["outputs"])
        self._check_finite(outputs)
        return {head.name: outputs[:, place] if head.kind == "tags" else outputs[:, place.start]
                for head, place in zip(self.heads, self.outputs.slices.values(), strict=True)}

    def scores(self, encoded: Mapping[str, np.ndarray]) -> np.ndarray:
        """float32 [n, O]: logits (values of number heads) of rows that are encoded already, as in RowSplit.columns."""
        return self._run(encoded, ["logits"])[0]

    def rank(
        self, context: Mapping[str, Any], candidates: Sequence[Mapping[str, Any]], k: int = 10, head: str | None = None
    ) -> Ranked:
        """The k best of `candidates` by a head, best first; equal ones keep their order.

        context: the fields that all candidates share (user, time, device), encoded once.
        head: a binary or number head; the first such head if None.

        Raises DataError as `predict` does, for a field that is in both, and for a head that cannot rank.
        """
        return self.ranked(self.encode_request(context, candidates, k), k, head)

    def encode_request(
        self, context: Mapping[str, Any], candidates: Sequence[Mapping[str, Any]], k: int = 10
    ) -> dict[str, np.ndarray]:
        """What the graph reads of a context and its candidates; see `rank`."""
        _check_k(k)
        if not isinstance(context, Mapping):
            raise DataError(problem(f"the context is {context!r:.60}", "fields with their values"))
        check_fields(context, self.fields, "context")
        columns, n = columns_of(candidates, self.fields, "candidate")
        if not n:
            raise DataError(problem("no candidates", "at least one candidate"))
        both = [name for name in context if name in columns]
        if both:
            raise DataError(problem(f"field {both[0]!r} is in the context and in the candidates", "each field once",
                                    "leave it out of the one where it does not belong"))
        return encode_columns(self.features, columns, n, shared=context, what="candidate")

    def ranked(self, encoded: Mapping[str, np.ndarray], k: int = 10, head: str | None = None) -> Ranked:
        """`rank` for candidates that `encode_request` has encoded."""
        chosen = self._head(head, ("binary", "number"))
        column = self.outputs.slices[chosen.name].start
        logits, outputs = self._run(encoded, ["logits", "outputs"])
        self._check_finite(outputs, "candidate")
        # by the logit: probabilities near one are equal long before their logits are
        best = np.argsort(-logits[:, column], kind="stable")[:k]
        return Ranked(chosen.name, best.tolist(), outputs[best, column].tolist())

    def tags(
        self, row: Mapping[str, Any], k: int | None = None, *, threshold: float | None = None, head: str | None = None
    ) -> list[tuple[str, float]]:
        """(class, probability) pairs of a tags head for one row, most probable first.

        k: so many classes, whatever their probability; otherwise those from `threshold` on, or from the thresholds
        that the bundle was exported with (0.5 where it has none). head: the first tags head if None.
        """
        chosen = self._head(head, ("tags",))
        if k is not None:
            _check_k(k)
        return self.chosen_tags(chosen.name, self.predict([row])[chosen.name][0], k, threshold)

    def chosen_tags(
        self, head: str, probabilities: np.ndarray, k: int | None = None, threshold: float | None = None
    ) -> list[tuple[str, float]]:
        """`tags` for the probabilities [C] of a head."""
        classes = self._head(head, ("tags",)).classes
        order = np.argsort(-probabilities, kind="stable")
        if k is not None:
            order = order[:k]
        else:
            least = self.thresholds[head] if threshold is None else np.full(len(classes), threshold, dtype=np.float32)
            order = order[probabilities[order] >= least[order]]
        return [(classes[place], float(probabilities[place])) for place in order.tolist()]

    def hold(self) -> None:
        """Take hold of all that is read from the folder: a bundle put in its place later cannot mix with this one."""
        _ = self.digest, self.bytes

    def _run(self, encoded: Mapping[str, np.ndarray], names: list[str]) -> list[np.ndarray]:
        absent = [feature.name for feature in self.features if feature.name not in encoded]
        if absent:
            raise BundleError(problem(f"encoded columns without {', '.join(absent)}",
                                      f"{', '.join(feature.name for feature in self.features)}",
                                      "use the table that the student was trained on"))
        n = len(encoded[self.features[0].name])
        found = [np.empty((n, self.outputs.size), dtype=np.float32) for _ in names]
        for start in range(0, n, _BLOCK):
            rows = slice(start, start + _BLOCK)
            feed = {feature.name: graph_input(feature, encoded[feature.name][rows]) for feature in self.features}
            for target, part in zip(found, self._session.run(names, feed), strict=True):
                target[rows] = part
        return found

    def _check_finite(self, outputs: np.ndarray, what: str = "row") -> None:
        bad = np.flatnonzero(~np.isfinite(outputs).all(1))
        if len(bad):
            raise DataError(problem(f"{what} {bad[0]}: its numbers are so large that the answer is not finite",
                                    "numbers of the size that the student was trained on", "look at their units"))

    def _head(self, name: str | None, kinds: tuple[str, ...]) -> Head:
        fitting = [head for head in self.heads if head.kind in kinds]
        what = f"a {' or '.join(kinds)} head: {', '.join(head.name for head in fitting) or 'this bundle has none'}"
        if name is None and fitting:
            return fitting[0]
        for head in fitting:
            if head.name == name:
                return head
        hint = "" if name is None else nearest(name, [head.name for head in fitting])
        raise DataError(problem("no head is given" if name is None else f"head {name!r}{hint}", what))


def open_rows(path: Path, config: dict[str, Any], threads: int = 1) -> RowBundle:
    """The RowBundle of a folder whose config.json is read; BundleError if the files do not fit together."""
    try:
        features = [_feature(path, entry) for entry in config["inputs"]]
        heads = _heads(config["outputs"])
        graph = path / str(config["graphs"].get("predict"))
        session = open_graph(graph, threads)
        held = {value.name for value in session.get_inputs()}
        if held != {feature.name for feature in features} or session.get_outputs()[0].shape[-1] != Outputs(heads).size:
            raise ValueError(f"the inputs or outputs of {graph.name} are others than those of config.json")
        bundle = RowBundle(path, config, session, features, heads)
    except (TypeError, ValueError, KeyError, OSError) as error:
        raise BundleError(problem(f"{path} does not fit together: {error}", "the files of one export",
                                  "export it again with `distilrec export`")) from None
    bundle.hold()
    return bundle


def row_latency(bundle: RowBundle, rows: Sequence[Mapping[str, Any]], *, warm_up: int = 20) -> dict[str, float]:
    """Wall milliseconds of `predict` for one row at a time: {"p50", "p99", "cpu"} ("cpu" is the mean CPU time)."""
    return timed(len(rows), lambda place: bundle.predict([rows[place]]), warm_up)


def _feature(path: Path, entry: Mapping[str, Any]) -> Feature:
    document = {key: value for key, value in entry.items() if key not in _NOT_FEATURES}
    vocabulary = document.get("vocabulary")
    if isinstance(vocabulary, str):
        vocabulary = json.loads((path / vocabulary).read_text(encoding="utf-8"))
    if document["columns"] == [document["name"]]:
        document["columns"] = []
    feature = Feature.from_json({**document, "vocabulary": vocabulary or []})
    if feature.kind not in KINDS:
        raise ValueError(f"input {feature.name!r} has the kind {feature.kind!r}")
    held = feature.vocabulary
    if vocabulary is not None and (len(held) != feature.size - 1 or not all(isinstance(one, str) for one in held)):
        raise ValueError(f"input {feature.name!r} has {len(held)} values for {feature.size} ids")
    return feature


def _heads(outputs: Sequence[Mapping[str, Any]]) -> tuple[Head, ...]:
    entries: dict[str, list[Mapping[str, Any]]] = {}
    for entry in outputs:
        entries.setdefault(entry["head"], []).append(entry)
    return tuple(
        Head(name, of[0]["kind"], tuple(one["class"] for one in of) if of[0]["kind"] == "tags" else (),
             of[0].get("after"))
        for name, of in entries.items()
    )


def _thresholds(config: Mapping[str, Any], heads: Sequence[Head]) -> dict[str, np.ndarray]:
    """Probabilities from which on a class counts as given, by head: float32 [C]; 0.5 where config.json has none."""
    given = config.get("thresholds") or {}
    return {head.name: np.broadcast_to(np.asarray(given.get(head.name, _HALF), dtype=np.float32), len(head.columns))
            for head in heads if head.kind != "number"}


def _check_k(k: Any) -> None:
    if not isinstance(k, int | np.integer) or isinstance(k, bool) or k < 1:
        raise DataError(problem(f"k = {k!r}", "a whole number of at least 1"))
