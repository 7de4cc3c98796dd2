"""A LightGBM model made elsewhere as teacher."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from distilrec.errors import DataError, problem
from distilrec.files import digest_json
from distilrec.teachers.matrix import Source, matrix
from distilrec.teachers.outside import OutsidePredictor, found, library, output_names
from distilrec.types_rows import RowSplit

__all__ = ["count_numbers", "lightgbm_teacher", "read_booster"]


def lightgbm_teacher(
    model: str | Path | Any | Mapping[str, Any], split: RowSplit, *, space: str | Mapping[str, str] | None = None,
    inputs: Sequence[Source] | None = None, name: str = "", threads: int = 1, narrow_logits: bool = False,
    block: int = 65536,
) -> OutsidePredictor:
    """A teacher that is a LightGBM text file (`Booster.save_model`) or a Booster.

    Args:
        model: a path or a Booster; one for each output, {output: path or Booster}, where there are several outputs.
            Outputs are named after their head, those of a tags head `head.class`.
        inputs: the model's columns in its order, as sources (see teachers.matrix); left out, the model's own column
            names must be raw columns of numbers.
        space: "logit" reads raw scores, "probability" and "value" what the objective makes of them.
    Raises:
        DataError: no such file or no LightGBM model; another number of columns; all that OutsidePredictor refuses.
        MissingExtraError: lightgbm is not installed.
    """
    names = output_names(split.heads)
    given = dict(model) if isinstance(model, Mapping) else None
    if given is not None and sorted(given) != sorted(names):
        raise DataError(problem(f"models are given for {', '.join(given)}", f"each of {', '.join(names)}"))
    boosters = [read_booster(given[one]) for one in names] if given is not None else [read_booster(model)]
    columns = [_columns(booster, inputs, split) for booster in boosters]
    logits = _logits(space, split)

    def score(batch: list[np.ndarray]) -> np.ndarray:
        answers = []
        for place, (booster, table) in enumerate(zip(boosters, batch, strict=True)):
            raw = logits[place] if given is not None else logits[0]
            answers.append(booster.predict(table, raw_score=raw, num_threads=threads))
        return answers[0] if len(answers) == 1 else np.stack(answers, axis=1)

    texts = [booster.model_to_string() for booster in boosters]
    stem = Path(model).stem if isinstance(model, str | Path) else "lightgbm"
    return OutsidePredictor(
        score, split, space=space, name=name or stem, block=block, narrow_logits=narrow_logits,
        rows=lambda split, rows: [matrix(split, rows, one, np.float64)[0] for one in columns],
        parameters=sum(map(count_numbers, texts)), digest=digest_json([texts, columns]),
    )


def read_booster(model: Any) -> Any:
    """A Booster from the path of a text file; a Booster is returned as it is.

    Raises:
        DataError: the file is missing or is no model.
    """
    lightgbm = library("lightgbm", "lightgbm", "trees")
    if not isinstance(model, str | Path):
        if not isinstance(model, lightgbm.Booster):
            inner = getattr(model, "booster_", None)  # LGBMClassifier and its kin
            if not isinstance(inner, lightgbm.Booster):
                raise DataError(problem(f"a {type(model).__name__} where a LightGBM model belongs",
                                        "a path, a Booster, or a fitted LGBM estimator"))
            return inner
        return model
    path = found(model, "a LightGBM text file, as Booster.save_model writes it")
    try:
        text = path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise DataError(problem(f"{path.name} is no text", "a LightGBM text file, as Booster.save_model writes it",
                                "a pickled estimator is read by sklearn:")) from error
    if not text.startswith("tree"):
        raise DataError(problem(f"{path.name} begins with {text[:20]!r}",
                                "a LightGBM text file, as Booster.save_model writes it: its first line is `tree`"))
    if not _whole(text):
        raise DataError(problem(f"{path.name} is cut off or was changed: its trees are not as long as its head says",
                                "a LightGBM text file, as Booster.save_model writes it"))
    try:
        return lightgbm.Booster(model_str=text)
    except lightgbm.basic.LightGBMError as error:
        raise DataError(problem(f"{path.name} cannot be read ({error})", "a LightGBM text file")) from error


def count_numbers(text: str) -> int:
    """The numbers that a LightGBM model reads: a column and a threshold per split, a value per leaf, and the words
    (32 categories each) of its category sets."""
    total = 0
    for line in text.splitlines():
        key, _, value = line.partition("=")
        if key == "num_leaves":
            total += 3 * int(value) - 2
        elif key == "cat_threshold":
            total += len(value.split())
    return total


def _whole(text: str) -> bool:
    """Whether every tree has the length that the head states. LightGBM itself ends the process where one has not."""
    head, _, _ = text.partition("\nTree=0\n")
    sizes = next((line.partition("=")[2].split() for line in head.splitlines() if line.startswith("tree_sizes=")), [])
    if not sizes or not all(size.isdigit() for size in sizes):
        return False
    data = text.encode()
    place = len(head.encode()) + 1
    for tree, size in enumerate(sizes):
        if not data[place : place + int(size)].startswith(f"Tree={tree}\n".encode()):
            return False
        place += int(size)
    return data[place:].startswith(b"end of trees")


def _columns(booster: Any, inputs: Sequence[Source] | None, split: RowSplit) -> list[Source]:
    """Sources in the order of the model's columns."""
    own = booster.feature_name()
    if inputs is None:
        lost = [one for one in own if one not in split.raw.column_names]
        if lost:
            raise DataError(problem(
                f"{len(lost)} of the model's {len(own)} columns are no raw columns of the table, e.g. "
                f"{', '.join(lost[:3])}", f"raw columns: {', '.join(split.raw.column_names)}",
                "give inputs: the model's columns in its order"))
        return list(own)
    wide = matrix(split, np.arange(0), inputs)[0].shape[1]
    if wide != booster.num_feature():
        raise DataError(problem(f"inputs give {wide} columns, and the model reads {booster.num_feature()}",
                                ", ".join(own[:20]), "name the model's columns in its order"))
    return list(inputs)


def _logits(space: str | Mapping[str, str] | None, split: RowSplit) -> list[bool]:
    """Which of the O outputs are read as raw scores."""
    if isinstance(space, Mapping):
        return [space.get(head.name) == "logit" for head in split.heads for _ in head.columns]
    return [space == "logit"] * split.outputs.size
