"""Gradient-boosted trees (LightGBM: Ke et al., NeurIPS 2017) trained on a table: often the best teacher there is.

What the trees read of a feature: numbers as they are (missing stays missing, and buckets are not needed), ids of
categories as categories, lists of up to 64 values as one column per value, longer ones, sequences and texts as counts,
vectors as they are.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from distilrec.errors import DataError, RecipeError, nearest, problem
from distilrec.features import RAGGED_KINDS, Feature
from distilrec.files import atomic_folder, digest_json, read_json, write_json
from distilrec.teachers.lightgbm_model import count_numbers
from distilrec.teachers.matrix import matrix
from distilrec.teachers.outside import library, output_names
from distilrec.types_rows import RowSplit

__all__ = ["DEFAULTS", "Trees", "fit_trees"]

DEFAULTS: dict[str, Any] = {
    "rounds": 1000, "patience": 50, "learning_rate": 0.05, "leaves": 31, "depth": -1, "min_rows": 20,
    "row_share": 1.0, "column_share": 1.0, "l1": 0.0, "l2": 0.0, "threads": 1,
}
MOST_HOT = 64  # values of a list up to which each gets a column
BLOCK = 65536


@dataclass(frozen=True, eq=False)
class Trees:
    """One booster per output, and how a row becomes what they read. A Predictor (types_rows)."""

    name: str
    outputs: tuple[str, ...]
    texts: tuple[str | None, ...]  # of each output: the model as LightGBM writes it; None where a constant answers
    constants: tuple[float, ...]  # of each output: what is answered without a booster
    sources: tuple[str, ...]  # see teachers.matrix
    columns: tuple[str, ...]  # names of the matrix's columns
    owners: tuple[str, ...]  # the feature that each column is of
    notes: Mapping[str, str]  # feature or output -> what was left out or shortened, and why
    training: Mapping[str, Any]

    def __post_init__(self) -> None:
        object.__setattr__(self, "_boosters", [None if text is None else _booster(text) for text in self.texts])

    def predict(self, split: RowSplit, rows: np.ndarray) -> np.ndarray:
        """float32 [n, O]: raw scores, which are logits; values for number heads.

        Raises:
            DataError: a table with other heads, columns or vocabularies of lists.
        """
        if tuple(output_names(split.heads)) != self.outputs:
            raise DataError(problem(f"{self.name} answers {', '.join(self.outputs)}, the table asks for other heads",
                                    "the heads that it was trained on"))
        out = np.empty((len(rows), len(self.outputs)), dtype=np.float32)
        for start in range(0, len(rows), BLOCK):
            chosen = rows[start : start + BLOCK]
            table, names = matrix(split, chosen, self.sources, np.float64)
            if tuple(names) != self.columns:
                raise DataError(problem(f"the table gives {len(names)} columns that are not those of {self.name}",
                                        f"{len(self.columns)} columns: {', '.join(self.columns[:10])} ...",
                                        "train the trees on this table"))
            for place, booster in enumerate(self._boosters):  # type: ignore[attr-defined]
                out[start : start + len(chosen), place] = self.constants[place] if booster is None else \
                    booster.predict(table, raw_score=True, num_threads=self.training.get("threads", 1))
        return out

    def importance(self) -> dict[str, float]:
        """{feature: its share of the gain of all splits}, the largest first; each output counts the same."""
        total = dict.fromkeys(dict.fromkeys(self.owners), 0.0)
        grown = [one for one in self._boosters if one is not None]  # type: ignore[attr-defined]
        for booster in grown:
            gain = booster.feature_importance("gain")
            for owner, one in zip(self.owners, gain / max(gain.sum(), 1e-12), strict=True):
                total[owner] += float(one) / len(grown)
        return dict(sorted(total.items(), key=lambda pair: -pair[1]))

    @property
    def parameters(self) -> int:
        return sum(1 if text is None else count_numbers(text) for text in self.texts)

    @property
    def digest(self) -> str:
        return _digest(self.texts, self.constants, self.sources, self.columns)

    def save(self, folder: str | Path) -> Path:
        """Write `trees.json` and one LightGBM text file for each output; returns the folder."""
        folder = Path(folder)
        with atomic_folder(folder) as temporary:
            files: list[str | None] = []
            for place, text in enumerate(self.texts):
                files.append(None if text is None else f"output_{place}.txt")
                if text is not None:
                    (temporary / f"output_{place}.txt").write_text(text, encoding="utf-8", newline="\n")
            write_json(temporary / "trees.json", {
                "name": self.name, "outputs": list(self.outputs), "files": files, "constants": list(self.constants),
                "sources": list(self.sources), "columns": list(self.columns), "owners": list(self.owners),
                "notes": dict(self.notes), "training": dict(self.training), "digest": self.digest,
            })
        return folder

    @classmethod
    def load(cls, folder: str | Path) -> Trees:
        """Raises DataError for a folder that is damaged, incomplete or no trees."""
        folder = Path(folder)
        try:
            said = read_json(folder / "trees.json")
            texts = tuple(None if file is None else (folder / Path(file).name).read_text(encoding="utf-8")
                          for file in said["files"])
            if said["digest"] != _digest(texts, said["constants"], said["sources"], said["columns"]):
                raise ValueError("the files have changed since they were written")  # LightGBM would end the process
            return cls(said["name"], tuple(said["outputs"]), texts, tuple(said["constants"]), tuple(said["sources"]),
                       tuple(said["columns"]), tuple(said["owners"]), said["notes"], said["training"])
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise DataError(problem(f"{folder} cannot be read as trees ({error!r})", "a folder of saved trees")) \
                from error


def fit_trees(
    split: RowSplit, settings: Mapping[str, Any] | None = None, *, features: Sequence[str] | None = None,
    name: str = "trees", seed: int = 0,
) -> Trees:
    """Train one booster per output on train rows, each stopped early by its loss on validation rows.

    Rows without a label of an output are left out for that output. A head `after` another one is trained on all rows,
    so what it answers is both happening. A class of tags of which train rows do not show both labels is answered by a
    constant, and `notes` say so.

    Args:
        settings: any of DEFAULTS. min_rows: rows in a leaf; row_share, column_share: what each tree sees.
        features: names of the features to read; all by default.
    Raises:
        RecipeError: an unknown setting or feature.
        DataError: a head without labels, or whose train or validation labels are all the same.
        MissingExtraError: lightgbm is not installed.
    """
    lightgbm = library("lightgbm", "lightgbm", "trees")
    known = _settings(settings or {})
    sources, notes = _sources(split, features)
    train_rows, valid_rows = split.rows("train"), split.rows("valid")
    table, columns = matrix(split, train_rows, list(sources), np.float64)
    checked = matrix(split, valid_rows, list(sources), np.float64)[0]
    owners = [sources[source] for source in sources for _ in matrix(split, train_rows[:0], [source])[1]]
    categories = [place for place, (column, owner) in enumerate(zip(columns, owners, strict=True))
                  if f"encoded:{owner}" in sources and split.features[owner].kind == "category" and column == owner]
    labels = {"train": split.label_matrix(train_rows), "valid": split.label_matrix(valid_rows)}
    kinds = [head.kind for head in split.heads for _ in head.columns]
    texts: list[str | None] = []
    constants: list[float] = []
    steps: dict[str, int] = {}
    for place, (output, kind) in enumerate(zip(output_names(split.heads), kinds, strict=True)):
        target, wanted = labels["train"][:, place], labels["valid"][:, place]
        constant = _constant(target, wanted, kind, output, notes)
        constants.append(constant if constant is not None else 0.0)
        if constant is not None:
            texts.append(None)
            continue
        data = _dataset(lightgbm, table, target, categories, _chosen(split.weights, train_rows))
        held = _dataset(lightgbm, checked, wanted, categories, _chosen(split.weights, valid_rows), data)
        booster = lightgbm.train(
            _parameters(known, kind, seed), data, num_boost_round=known["rounds"], valid_sets=[held],
            callbacks=[lightgbm.early_stopping(known["patience"], verbose=False), lightgbm.log_evaluation(0)])
        steps[output] = booster.best_iteration or booster.current_iteration()
        text = booster.model_to_string(num_iteration=steps[output])
        texts.append(re.sub(r"\[num_threads: -?\d+\]", "[num_threads: 1]", text))  # the trees are the same
    return Trees(name, tuple(output_names(split.heads)), tuple(texts), tuple(constants), tuple(sources), tuple(columns),
                 tuple(owners), notes, {**known, "seed": seed, "trees": steps, "split_digest": split.digest})


def _digest(*parts: Sequence[Any]) -> str:
    return digest_json([list(part) for part in parts])


def _settings(given: Mapping[str, Any]) -> dict[str, Any]:
    unknown = [f"{one!r}{nearest(one, DEFAULTS)}" for one in given if one not in DEFAULTS]
    if unknown:
        raise RecipeError(problem(f"trees have no setting {', '.join(unknown)}", ", ".join(DEFAULTS)))
    return {**DEFAULTS, **given}


def _parameters(known: Mapping[str, Any], kind: str, seed: int) -> dict[str, Any]:
    """Settings in LightGBM's words; the same seed gives the same trees."""
    return {
        "objective": "regression" if kind == "number" else "binary", "metric": "l2" if kind == "number" else
        "binary_logloss", "learning_rate": known["learning_rate"], "num_leaves": known["leaves"],
        "max_depth": known["depth"], "min_data_in_leaf": known["min_rows"], "bagging_fraction": known["row_share"],
        "bagging_freq": int(known["row_share"] < 1), "feature_fraction": known["column_share"],
        "lambda_l1": known["l1"], "lambda_l2": known["l2"], "num_threads": known["threads"], "seed": seed,
        "deterministic": True, "force_row_wise": True, "verbosity": -1,
    }


def _sources(split: RowSplit, features: Sequence[str] | None) -> tuple[dict[str, str], dict[str, str]]:
    """({source: feature}, {feature: why it is not read as it is})."""
    chosen = list(split.features) if features is None else list(features)
    unknown = [f"{one!r}{nearest(one, split.features)}" for one in chosen if one not in split.features]
    if unknown or not chosen:
        raise RecipeError(problem(f"trees cannot read the features {', '.join(unknown) or '(none)'}",
                                  ", ".join(split.features)))
    sources: dict[str, str] = {}
    notes: dict[str, str] = {}
    for name in chosen:
        source, note = _source(split.features[name])
        if source in sources:
            notes[name] = f"left out: the same column as {sources[source]!r}"
            continue
        sources[source] = name
        if note:
            notes[name] = note
    return sources, notes


def _source(feature: Feature) -> tuple[str, str]:
    if feature.kind == "number" or feature.bucketed:
        return feature.sources[0], ""  # trees find cuts of their own
    if feature.kind in RAGGED_KINDS:
        if feature.kind == "list" and feature.size - 1 <= MOST_HOT:
            return f"hot:{feature.name}", ""
        return f"count:{feature.name}", f"only how many: a {feature.kind} of {feature.size - 1:,} values is too wide"
    return f"encoded:{feature.name}", ""


def _constant(target: np.ndarray, wanted: np.ndarray, kind: str, output: str, notes: dict[str, str]) -> float | None:
    """What answers an output that cannot be learned; None where it can.

    Raises DataError where that is not a class of tags but a head of its own.
    """
    seen, held = target[~np.isnan(target)], wanted[~np.isnan(wanted)]
    if kind == "number":
        if len(seen) and len(held):
            return None
    elif len(np.unique(seen)) == 2 and len(np.unique(held)) >= 1 + (kind == "binary"):
        return None
    text = (f"{len(seen)} train rows with {len(np.unique(seen))} different labels, {len(held)} validation rows with "
            f"{len(np.unique(held))}")
    if kind != "tags" or not len(seen):
        raise DataError(problem(f"{output!r} cannot be learned: {text}", "both labels among train and validation rows"
                                if kind != "number" else "labels among train and validation rows",
                                "split otherwise, or leave the head out"))
    notes[output] = f"answered by a constant: {text}"
    share = (seen.sum() + 0.5) / (len(seen) + 1)
    return float(np.log(share / (1 - share)))


def _dataset(
    lightgbm: Any, table: np.ndarray, target: np.ndarray, categories: list[int], weights: np.ndarray | None,
    reference: Any = None,
) -> Any:
    known = ~np.isnan(target)
    inputs = table if known.all() else table[known]
    return lightgbm.Dataset(inputs, label=target[known], weight=None if weights is None else weights[known],
                            categorical_feature=categories or "auto", reference=reference,
                            params={"verbosity": -1, "max_bin": 255})


def _chosen(weights: np.ndarray | None, rows: np.ndarray) -> np.ndarray | None:
    return None if weights is None else weights[rows]


def _booster(text: str) -> Any:
    return library("lightgbm", "lightgbm", "trees").Booster(model_str=text)
