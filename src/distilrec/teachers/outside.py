"""Any outside scorer of rows, checked: shape, finite numbers, stated space, order of rows.

An outside model says nothing about what its numbers mean, and a wrong guess goes unseen: a probability taken for a
logit still ranks well and teaches a student that everything happens half of the time. So its `space` is stated, and
what it answers is held against that and against the rows that it was asked about.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from distilrec.errors import DataError, MissingExtraError, nearest, problem
from distilrec.files import digest_arrays, digest_file, digest_json
from distilrec.teachers.matrix import FORMS, frame
from distilrec.types_rows import Head, RowSplit

__all__ = [
    "RISK", "SPACES", "OutsidePredictor", "check_narrow", "check_space", "digest_of", "found", "library",
    "output_names", "spaces_of", "to_answers",
]

SPACES = ("probability", "logit", "value")
EDGE = 1e-7  # probabilities are kept this far from 0 and 1, where a logit has no end
PROBE = 256  # rows of the first check
CERTAIN = 32  # rows from which on logits that all lie in [0, 1] are no chance

RISK = ("reading it runs whatever code the file holds, with your rights on this machine: it can read, change, send or "
        "delete what you can")


class OutsidePredictor:
    """A Predictor (types_rows) around any function that scores a batch of rows.

    Before it is used at all it answers up to 256 rows of the split: once, once more, and shuffled as a smaller batch.
    So a model that reorders or drops rows, mixes the rows of a batch, or answers at random is refused at once.

    Args:
        score: a batch -> numbers [n, O] in the order of `split.outputs`, or [n] where O is 1. For a head `after`
            another one it answers both happening, like every teacher.
        space: what the numbers are: "probability" or "logit", or "value" where all heads are numbers (a number head
            always has values); a mapping of head to space where they differ. It is never guessed.
        rows: how a batch looks: "polars", "arrow", "pandas", "numpy" ({column: array}) with the raw `columns`, or a
            function (split, rows) -> batch such as matrix.named_or_matrix(sources).
        parameters: every number that the model reads to answer.
        digest: changes with the model; made of its answers to the probe where there is none.
        block: rows in a batch.
        narrow_logits: True says that logits which all lie in [0, 1] are meant.
    Raises:
        DataError: no or wrong space; a wrong shape, a number that is not finite or not of its space; answers that
            depend on order, batch or chance; an unknown column.
    """

    def __init__(
        self, score: Callable[[Any], Any], split: RowSplit, *, space: str | Mapping[str, str] | None, parameters: int,
        rows: str | Callable[[RowSplit, np.ndarray], Any] = "polars", columns: list[str] | None = None,
        name: str = "outside", digest: str = "", block: int = 4096, narrow_logits: bool = False,
    ) -> None:
        self.name = name
        self.heads = split.heads
        self.spaces = spaces_of(space, split.heads)
        self.parameters = parameters
        if isinstance(rows, str) and rows not in FORMS:
            raise DataError(problem(f"rows in the form {rows!r}{nearest(rows, FORMS)}", ", ".join(FORMS)))
        self._read = rows if callable(rows) else lambda split, chosen: frame(split, chosen, str(rows), columns)
        self._score = score
        self._block = block
        probe = _probe(split)
        raw = self._answers(split, probe)
        self._check_order(split, probe, raw)
        if not narrow_logits:
            check_narrow(raw, self.spaces, self.heads, name)
        said = digest or digest_arrays(name, raw, probe)
        self.digest = digest_json([said, list(self.spaces), output_names(self.heads)])

    def predict(self, split: RowSplit, rows: np.ndarray) -> np.ndarray:
        """float32 [n, O]: logits, and values for number heads."""
        if [one.columns for one in split.heads] != [one.columns for one in self.heads]:
            raise DataError(problem(f"{self.name} answers {', '.join(output_names(self.heads))}, and the table asks "
                                    f"for {', '.join(output_names(split.heads))}", "the heads that it was made for"))
        return to_answers(self._answers(split, np.asarray(rows)), self.spaces, self.heads, self.name)

    def _answers(self, split: RowSplit, rows: np.ndarray) -> np.ndarray:
        """float64 [n, O] as the model says them, checked for shape, finiteness and space."""
        size = len(self.spaces)
        out = np.empty((len(rows), size))
        for start in range(0, len(rows), self._block):
            chosen = rows[start : start + self._block]
            out[start : start + len(chosen)] = _shaped(self._score(self._read(split, chosen)), len(chosen), self.heads,
                                                       self.name)
        check_space(out, self.spaces, self.heads, self.name, rows)
        return out

    def _check_order(self, split: RowSplit, probe: np.ndarray, first: np.ndarray) -> None:
        """The same rows again, then a shuffled part of them: the answers must follow the rows."""
        if not _close(self._answers(split, probe), first):
            raise DataError(problem(f"{self.name} gives other answers to the same rows when it is asked again",
                                    "answers that depend on the row alone",
                                    "switch its dropout or sampling off before it is handed over"))
        order = np.random.default_rng(1).permutation(len(probe))[: max(1, len(probe) * 2 // 3)]
        shuffled = self._answers(split, probe[order])
        if not _close(shuffled, first[order]):
            wrong = int((~np.isclose(shuffled, first[order], rtol=1e-3, atol=1e-4).all(axis=1)).sum())
            raise DataError(problem(
                f"{self.name} answered {wrong} of {len(order)} rows differently when they came in another order",
                "answer i belongs to row i, and depends on nothing but row i",
                "sort nothing inside the model; return the rows in the order in which they came; take a batch norm out "
                "of training mode",
            ))


def spaces_of(space: str | Mapping[str, str] | None, heads: tuple[Head, ...]) -> tuple[str, ...]:
    """The stated space of each of the O outputs.

    Raises:
        DataError: not stated, unknown, or impossible for the kind of a head.
    """
    names = [head.name for head in heads]
    if space is None:
        raise DataError(problem("what the outside teacher's numbers are is not said", ", ".join(SPACES),
                                "state it: space=\"probability\" (0 to 1), \"logit\" (before the sigmoid), \"value\" "
                                "(of a number head), or a mapping of head to space"))
    if isinstance(space, str):  # a number head has nothing but values
        stated = {head.name: "value" if head.kind == "number" and space in SPACES else space for head in heads}
    else:
        stated = dict(space)
    if sorted(stated) != sorted(names):
        raise DataError(problem(f"spaces are stated for {', '.join(map(str, stated))}", f"each of {', '.join(names)}"))
    out: list[str] = []
    for head in heads:
        one = stated[head.name]
        if one not in SPACES:
            raise DataError(problem(f"space {one!r}{nearest(str(one), SPACES)}", ", ".join(SPACES)))
        if (one == "value") != (head.kind == "number"):
            raise DataError(problem(f"space {one!r} for the {head.kind} head {head.name!r}",
                                    "value for number heads, probability or logit for all others",
                                    "state one space per head: space={" + ", ".join(f"{n}: ..." for n in names) + "}"))
        out += [one] * len(head.columns)
    return tuple(out)


def output_names(heads: tuple[Head, ...]) -> list[str]:
    """A name for each of the O outputs: the head's own, or head.class for tags."""
    return [f"{head.name}.{one}" if head.kind == "tags" else one for head in heads for one in head.columns]


def check_space(
    scores: np.ndarray, spaces: tuple[str, ...], heads: tuple[Head, ...], who: str, rows: np.ndarray
) -> None:
    """Raises DataError for numbers that are not finite, and for probabilities outside [0, 1]."""
    for place, (name, space) in enumerate(zip(output_names(heads), spaces, strict=True)):
        column = scores[:, place]
        bad = np.flatnonzero(~np.isfinite(column))
        if len(bad):
            raise DataError(problem(f"{who}: {len(bad)} of {len(column)} answers for {name!r} are NaN or infinite, "
                                    f"first at row {rows[bad[0]]}", "finite numbers",
                                    "see what the model does with missing values"))
        if space != "probability":
            continue
        bad = np.flatnonzero((column < -1e-6) | (column > 1 + 1e-6))
        if len(bad):
            raise DataError(problem(
                f"{who}: {len(bad)} of {len(column)} probabilities of {name!r} lie outside [0, 1], e.g. "
                f"{', '.join(f'{one:.4g}' for one in column[bad[:3]])}", "probabilities, as is stated",
                "state space=\"logit\" if the numbers are those before the sigmoid"))


def check_narrow(scores: np.ndarray, spaces: tuple[str, ...], heads: tuple[Head, ...], who: str) -> None:
    """Raises DataError for logits that all lie in [0, 1]: most likely they are probabilities."""
    for place, (name, space) in enumerate(zip(output_names(heads), spaces, strict=True)):
        column = scores[:, place]
        if space == "logit" and len(column) >= CERTAIN and column.min() >= 0 and column.max() <= 1:
            raise DataError(problem(
                f"{who}: all {len(column)} logits of {name!r} that were tried lie in [0, 1] ({column.min():.4g} to "
                f"{column.max():.4g}), which is how probabilities look", "logits, as space=\"logit\" states",
                "state space=\"probability\"; or narrow_logits=True, if they are logits indeed"))


def to_answers(
    scores: np.ndarray, spaces: tuple[str, ...], heads: tuple[Head, ...], who: str
) -> np.ndarray:
    """float32 [n, O]: probabilities turned into logits (clipped to [1e-7, 1 - 1e-7]), everything else as it is.

    Raises:
        DataError: a value too large for float32.
    """
    out = np.array(scores, dtype=np.float64)
    for place in np.flatnonzero(np.array(spaces) == "probability"):
        share = np.clip(out[:, place], EDGE, 1 - EDGE)
        out[:, place] = np.log(share) - np.log1p(-share)
    with np.errstate(over="ignore"):
        answers = out.astype(np.float32)
    check_space(answers, ("logit",) * len(spaces), heads, who, np.arange(len(answers)))
    return answers


def library(module: str, package: str, extra: str) -> Any:
    """An optional library.

    Raises:
        MissingExtraError: it is not installed; the text holds the install line.
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise MissingExtraError(package, extra) from error


def found(path: str | Path, what: str, suffixes: tuple[str, ...] = ()) -> Path:
    """The path of a model's file. Raises DataError where there is none, or one of another kind."""
    path = Path(path)
    if not path.is_file():
        raise DataError(problem(f"the teacher's file {path} does not exist", what))
    if suffixes and path.suffix not in suffixes:
        raise DataError(problem(f"{path.name} ends in {path.suffix or 'nothing'}", f"{what}: {', '.join(suffixes)}"))
    return path


def digest_of(path: Path | None, *settings: Any) -> str:
    """The file's bytes with the settings that change its answers; empty without a file: see OutsidePredictor."""
    return digest_json([digest_file(path), *settings]) if path is not None else ""


def _shaped(answer: Any, n: int, heads: tuple[Head, ...], who: str) -> np.ndarray:
    names = output_names(heads)
    try:
        scores = np.asarray(answer, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise DataError(problem(f"{who} answered {type(answer).__name__}, which is no array of numbers ({error})",
                                f"numbers [{n}, {len(names)}]")) from error
    if scores.ndim == 1 and len(names) == 1:
        scores = scores[:, None]
    if scores.shape != (n, len(names)):
        raise DataError(problem(f"{who} answered {n} rows with an array of shape {list(scores.shape)}",
                                f"[{n}, {len(names)}]: {', '.join(names)}",
                                "choose the right output of the model, one column per output"))
    return scores


def _probe(split: RowSplit) -> np.ndarray:
    """The same rows each time, from anywhere in the table."""
    if not len(split):
        raise DataError(problem("the table has no rows", "rows that the teacher can be tried on"))
    return np.random.default_rng(0).permutation(len(split))[:PROBE]


def _close(a: np.ndarray, b: np.ndarray) -> bool:
    return bool(np.allclose(a, b, rtol=1e-3, atol=1e-4))
