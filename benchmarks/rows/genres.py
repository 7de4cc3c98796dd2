"""Genres of MovieLens 1M from titles and from who watched what: five folds over the films, five seeds.

    python benchmarks/rows/genres.py [--seeds 0 1 2 3 4] [--out runs/genres] [--keep]

Data: DISTILREC_DATA/ml-1m (items with title and genres, interactions without ratings). Every film is tested once for
each seed, by models that were trained on four fifths of the films and chosen on a tenth of these. A title is its words
and its MiniLM vector; behavior is the film's place in a spectral embedding of who watched what, in which no genre
occurs, so that it may know all films, and how many watched it.

Compared are one network that reads titles, the same on behavior, the same on both, the mean of three of the last (the
teacher), a student of a fraction of its size, and a control of the student's size without a teacher. Each chooses among
as many settings by the validation part of its fold at seed 0. What is finished in --out is not done again; with --keep
the report goes to benchmarks/results/genres-ml1m/.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import torch
from scipy.sparse import csr_array, diags_array
from scipy.sparse.linalg import svds

from distilrec import progress
from distilrec.api_rows import distill_on_rows, extract_from_rows, teach_on_rows
from distilrec.data import encode_texts, prepare_rows
from distilrec.evaluation.pointwise import choose_thresholds, evaluate_classes, row_statistics
from distilrec.evaluation.report import ModelResult, build_report, validate_report, write_report
from distilrec.evaluation.row_significance import Sample, compare_samples, mean_over_seeds, resample
from distilrec.evaluation.significance import Comparison
from distilrec.files import atomic_file, read_json, write_json
from distilrec.teachers.row_ensemble import RowEnsemble
from distilrec.types_rows import RowSplit

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from rivals import commit, hardware

RESULT = Path(__file__).resolve().parents[1] / "results" / "genres-ml1m"
FOLDS, WIDTH, METRIC, DRAWS = 5, 64, "micro_f1", 2000
SHOWN = (METRIC, "macro_f1", "hit@1", "hit@3", "log_loss")
TITLE, BEHAVIOR = ("words", "title"), ("behavior", "watched")
FEATURES = {
    "words": {"kind": "text", "column": "text", "min_count": 2, "max_length": 12}, "title": "vector",
    "behavior": "vector", "watched": {"kind": "number", "log": True},
}
TRAIN = {"epochs": 30, "batch_size": 256, "learning_rate": 0.004, "schedule": "cosine", "patience": 8}
# What every arm chooses among: from hardly any regularization to a lot.
TRIALS = [
    {"dropout": 0.0, "embedding_dropout": 0.0, "weight_decay": 0.05},
    {"dropout": 0.3, "embedding_dropout": 0.1, "weight_decay": 0.3},
    {"dropout": 0.5, "embedding_dropout": 0.3, "weight_decay": 1.0},
]
WIDE = {"dim": 64, "hidden": [256]}  # of title, behavior, both, and the three members of the teacher
SMALL = {"dim": 12, "hidden": [32]}  # of student and control
MEMBERS = 3
STEP = 1000  # between the seeds of members
TITLE_SIZE = 0.25  # root mean square of a title vector's entries, where behavior has 1: fewer films to learn it from
LOSSES = {"binary_cross_entropy": 0.3, "bernoulli_kl": 0.7}
ROLES = {"title": "baseline", "behavior": "baseline", "title and behavior": "baseline", "teacher": "teacher",
         "student": "student", "control": "control"}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2, 3, 4])
    parser.add_argument("--out", type=Path, default=Path("runs") / "genres")
    parser.add_argument("--keep", action="store_true", help="write the report to benchmarks/results")
    options = parser.parse_args()
    torch.set_num_threads(1)
    made = commit()
    films = read_films(Path(os.environ["DISTILREC_DATA"]) / "ml-1m", options.out)
    for fold in range(FOLDS):
        split = split_of(films, fold)
        for seed in options.seeds:
            work(split, fold, seed, options.out)
            print(f"fold {fold + 1} of {FOLDS}, seed {seed}: done", flush=True)
    report = report_of(films, options.seeds, options.out)
    target = RESULT if options.keep else options.out
    write_report(report, target / "report.json")
    write_json(target / "run.json", {
        "command": f"python benchmarks/rows/genres.py --seeds {' '.join(map(str, options.seeds))} --keep",
        "date": time.strftime("%Y-%m-%d", time.gmtime()), "commit": made, "hardware": hardware(),
        "seeds": options.seeds, "recipe": "benchmarks/rows/genres.py"})
    for model in report["models"]:
        stats = model["metrics"]["test"]
        shown = (f"{m} {stats[m]['mean']:.4f}" for m in SHOWN)
        print(f"{model['name']:20}", *shown)
    for one in report["comparisons"]:
        if one["metric"] == METRIC:
            print(f"{one['a']} - {one['b']}: {one['difference']:+.4f} {one['interval']} p {one['p_value']:.4g}")
    print("\n".join(report["notes"]))


def read_films(data: Path, out: Path) -> pl.DataFrame:
    """One row a film: text, title and behavior (vectors), watched, genres."""
    films = pl.read_parquet(data / "items.parquet").sort("item_id")
    seen = pl.read_parquet(data / "interactions.parquet", columns=["user_id", "item_id"]).unique()
    titles = encode_texts(films["title"].to_list(), "all-MiniLM-L6-v2", cache=out / "texts")
    watched = films.join(seen.group_by("item_id").len("watched"), on="item_id", how="left", maintain_order="left")
    vectors = behavior(seen, films["item_id"].to_numpy())
    return films.select(
        "item_id", pl.col("title").alias("text"), pl.col("genres").str.split("|"),
        pl.Series("title", titles * np.sqrt(titles.shape[1]) * TITLE_SIZE).cast(pl.List(pl.Float32)),
        pl.Series("behavior", vectors.astype(np.float32)).cast(pl.List(pl.Float32)),
        watched["watched"].fill_null(0),
    )


def behavior(seen: pl.DataFrame, items: np.ndarray, width: int = WIDTH) -> np.ndarray:
    """[I, width]: films by the leading right singular vectors of users x films, with rows and columns divided by the
    roots of their sums, the first one, which tells popularity alone, left out (Dhillon, KDD 2001). Films that nobody
    watched are zero."""
    users = seen["user_id"].unique().sort().to_numpy()
    rows, columns = np.searchsorted(users, seen["user_id"].to_numpy()), np.searchsorted(items, seen["item_id"])
    table = csr_array((np.ones(len(rows)), (rows, columns)), shape=(len(users), len(items)))
    shrunk = [diags_array(1 / np.sqrt(np.maximum(table.sum(axis=axis), 1))) for axis in (1, 0)]
    start = np.random.default_rng(0).normal(size=min(table.shape))  # the same vectors in every run
    _, values, right = svds(shrunk[0] @ table @ shrunk[1], k=width + 1, v0=start)
    order = np.argsort(-values)[1:]
    place = shrunk[1] @ (right[order].T * values[order])
    length = np.linalg.norm(place, axis=1, keepdims=True)
    return np.where(length > 0, place / np.maximum(length, 1e-12), 0.0) * np.sqrt(width)


def work(split: RowSplit, fold: int, seed: int, out: Path) -> None:
    """Train all arms on one fold with one seed, as far as their answers are not there."""
    def single(features: Sequence[str] | None, size: Mapping[str, Any]) -> Callable[[Mapping[str, Any], int], Any]:
        return lambda own, at: teach_on_rows("mlp", split, features=features, seed=at, metric=METRIC,
                                             **{**size, **TRAIN, **own})

    def arm(name: str, make: Callable[[Mapping[str, Any], int], Any]) -> Any:
        model = make(_chosen(out / "chosen" / f"{name}-{fold}.json", make), seed)
        _keep(model, split, _answers(out, name, fold, seed))
        return model

    missing = {name for name in ROLES if not _answers(out, name, fold, seed).exists()}
    both = single(None, WIDE)
    with progress.quiet(), tempfile.TemporaryDirectory() as folder:
        for name, features, size in (("title", TITLE, WIDE), ("behavior", BEHAVIOR, WIDE), ("control", None, SMALL)):
            if name in missing:
                arm(name, single(features, size))
        if not missing & {"title and behavior", "teacher", "student"}:
            return
        first = arm("title and behavior", both)
        own = _chosen(out / "chosen" / f"title and behavior-{fold}.json", both)
        teacher = RowEnsemble([first, *(both(own, seed + STEP * i) for i in range(1, MEMBERS))], name="teacher")
        _keep(teacher, split, _answers(out, "teacher", fold, seed))
        store = extract_from_rows(teacher, split, folder=folder)
        arm("student", lambda own, at: distill_on_rows(
            "mlp", split, store, losses=LOSSES, control=False, seed=at, metric=METRIC, **{**SMALL, **TRAIN, **own})[0])


def split_of(films: pl.DataFrame, fold: int) -> RowSplit:
    return prepare_rows(films, features=FEATURES, labels={"genres": {"column": "genres", "kind": "tags"}},
                        split={"method": "k-fold", "folds": FOLDS, "fold": fold, "carve": 0.1, "seed": 0},
                        name="ml-1m genres")


def report_of(films: pl.DataFrame, seeds: Sequence[int], out: Path) -> dict[str, Any]:
    """The report over all films: answers of the folds put together, decisions by each fold's own thresholds."""
    splits = [split_of(films, fold) for fold in range(FOLDS)]
    first = splits[0]
    if any(one.heads != first.heads for one in splits):
        raise SystemExit("a fold's train rows lack a genre: the folds cannot be put together")
    labels = first.label_matrix(np.arange(len(first)))
    models, samples = [], {}
    for name, role in ROLES.items():
        kept = [_together(out, name, seed, splits) for seed in seeds]
        samples[name] = mean_over_seeds([resample(_statistics(one, labels, first), None, len(labels), resamples=DRAWS)
                                         for one in kept])
        each = [{m: float(s.of()) for m, s in _statistics(one, labels, first).items()} for one in kept]
        classes = [evaluate_classes(one["decisions"], labels, first.heads, {"genres": 0.0}) for one in kept]
        models.append(ModelResult(
            name, role, {m: np.array([[one[m]] for one in each]) for m in each[0]},
            parameters=int(kept[0]["parameters"]), valid={METRIC: [float(one["valid"]) for one in kept]},
            intervals={m: span for m, one in samples[name].items() if (span := one.interval()) is not None},
            groups={c: {m: np.array([[one[c][m]] for one in classes]) for m in ("f1", "precision", "recall", "auc")}
                    for c in classes[0]},
        ))

    def comparer(a: str, b: str, metric: str) -> Comparison:
        return compare_samples(samples[a][metric], samples[b][metric])

    report = build_report(
        task="tag", recipe="genres-ml1m", metric=METRIC, metrics=SHOWN,
        models=models, comparer=comparer, notes=[_kept(samples, b, a) for a, b in (
            ("teacher", "student"), ("teacher", "control"), ("title", "title and behavior"))],
        dataset={"name": "ml-1m", "digest": first.digest, "users": 0, "items": len(first), "interactions": len(first),
                 "unit": "rows", "parts": {part: first.n_rows(part) for part in ("train", "valid", "test")},
                 "heads": {"genres": {"kind": "tags", "base_rate": float(labels.mean()), "observed": len(labels),
                                      "classes": dict(zip(first.heads[0].classes, labels.mean(0).tolist(),
                                                          strict=True))}}},
        protocol={"split": f"{FOLDS}-fold over films, all tested", "selection": "validation", "seeds": list(seeds),
                  "thresholds": "highest F1 on the fold's validation part, one for all genres", "k": [1, 3, 5]},
        lineage={"trials": TRIALS, "wide": WIDE, "small": SMALL, "train": TRAIN, "losses": LOSSES},
    )
    for a, b in (("title and behavior", "title"), ("title and behavior", "behavior"), ("teacher", "title")):
        for metric in (metric for metric in SHOWN if metric in samples[a]):
            one = comparer(a, b, metric)
            report["comparisons"].append({
                "a": a, "b": b, "metric": metric, "difference": one.difference, "interval": list(one.interval),
                "p_value": one.p_value, "n": one.n, "test": one.test, "relative": one.relative,
                "relative_interval": list(one.relative_interval or ()) or None})
    validate_report(report)
    return report


def _chosen(place: Path, make: Callable[[Mapping[str, Any], int], Any]) -> dict[str, Any]:
    """The settings that validate best on this fold at seed 0; looked up where they were chosen before."""
    if not place.exists():
        place.parent.mkdir(parents=True, exist_ok=True)
        values = [make(own, 0).training["valid"][METRIC] for own in TRIALS]
        write_json(place, {"valid": values, "settings": TRIALS[int(np.argmax(values))]})
    return dict(read_json(place)["settings"])


def _answers(out: Path, name: str, fold: int, seed: int) -> Path:
    return out / f"seed-{seed}" / f"fold-{fold}" / f"{name}.npz"


def _keep(model: Any, split: RowSplit, place: Path) -> None:
    """Write down the logits of the test rows and the threshold that validation chose."""
    valid, test = split.rows("valid"), split.rows("test")
    before, labels = model.predict(split, valid), split.label_matrix(valid)
    cut = choose_thresholds(before, labels, split.heads, by_class=False)
    reached = row_statistics(before, labels, None, split.heads, cut)[METRIC].of()
    place.parent.mkdir(parents=True, exist_ok=True)
    with atomic_file(place) as temporary, temporary.open("wb") as file:
        np.savez(file, test=model.predict(split, test), cut=cut["genres"], parameters=model.parameters, valid=reached)


def _together(out: Path, name: str, seed: int, splits: Sequence[RowSplit]) -> dict[str, Any]:
    """Logits [I, C] of all films, "decisions" (above 0 where predicted), parameters, and mean validation metric."""
    parts = [dict(np.load(_answers(out, name, fold, seed), allow_pickle=False)) for fold in range(FOLDS)]
    logits = np.empty((len(splits[0]), splits[0].outputs.size), dtype=np.float32)
    decisions = np.empty_like(logits)
    for split, part in zip(splits, parts, strict=True):
        rows = split.rows("test")
        logits[rows], decisions[rows] = part["test"], part["test"] - part["cut"]
    return {"logits": logits, "decisions": decisions, "parameters": parts[0]["parameters"],
            "valid": np.mean([part["valid"] for part in parts])}


def _statistics(answers: Mapping[str, Any], labels: np.ndarray, split: RowSplit) -> dict[str, Any]:
    """Metrics of decisions by threshold, and of the logits themselves without one."""
    decided = row_statistics(answers["decisions"], labels, None, split.heads, {"genres": 0.0})
    plain = row_statistics(answers["logits"], labels, None, split.heads)
    return {**decided, **plain}


def _kept(samples: Mapping[str, Mapping[str, Sample]], a: str, b: str) -> str:
    """How much of b's metric a has, with its interval."""
    one, other = samples[a][METRIC], samples[b][METRIC]
    low, high = np.quantile(one.draws / other.draws, [0.025, 0.975])
    return f"{METRIC} of {a} / {b}: {one.value / other.value:.4f} (95 % interval {low:.4f} to {high:.4f})."


if __name__ == "__main__":
    main()
