"""One call from settings to a saved model; what is finished is not made twice."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from core_world import quick, walk_split
from distilrec.errors import TrainingError
from distilrec.knowledge.extract import extract
from distilrec.models.popularity import Popularity
from distilrec.training.checkpoint import NAME
from distilrec.training.train import train
from distilrec.types import Split

MODEL = {"dim": 8, "layers": 1, "max_length": 6}


@pytest.fixture(scope="module")
def split() -> Split:
    return walk_split(users=30)


def made(folder: Path) -> int:
    return (folder / "model.json").stat().st_mtime_ns


def test_a_finished_folder_is_read_not_made_again(split: Split, tmp_path: Path) -> None:
    first = train("sasrec", split, MODEL, quick(epochs=2), folder=tmp_path / "m")
    stamp = made(tmp_path / "m")
    again = train("sasrec", split, MODEL, quick(epochs=2), folder=tmp_path / "m")
    assert made(tmp_path / "m") == stamp
    assert again.digest == first.digest
    assert again.training == first.training
    assert not (tmp_path / "m" / NAME).exists(), "a finished model needs no checkpoint"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["m"]


@pytest.mark.parametrize(
    "change",
    [
        {"model": {**MODEL, "dropout": 0.4}},
        {"settings": quick(epochs=2, seed=1)},
        {"losses": {"bpr": 1.0}},
        {"metric": "mrr@5"},
        {"seen": "keep"},
        {"min_steps": 3},
        {"architecture": "gru4rec"},
        {"content": 1.0},
        {"start": 1.0},
        {"start": 2.0, "before": {"start": 1.0}},
        {"split": walk_split(users=30, seed=3)},
        {"before": {"knowledge": 3, "losses": {"kl": 1.0}}, "knowledge": 4, "losses": {"kl": 1.0}},
    ],
)
def test_whatever_changes_trains_anew(change: dict[str, Any], split: Split, tmp_path: Path) -> None:
    def run(changes: dict[str, Any]) -> Any:
        how = {"architecture": "sasrec", "split": split, "model": MODEL, "settings": quick(epochs=2), **changes}
        for name in ("content", "start"):
            if name in how:
                how[name] = np.random.default_rng(int(how[name])).normal(size=(30, 9)).astype(np.float32)
        if kept := how.get("knowledge"):
            how["knowledge"] = extract(Popularity.fit(split), split, tmp_path / f"k{kept}", top_k=kept)
        return train(**how, folder=tmp_path / "m")

    changes = dict(change)
    first = run(changes.pop("before", {}))
    stamp = made(tmp_path / "m")
    second = run(changes)
    assert made(tmp_path / "m") != stamp
    assert first.training["identity"] != second.training["identity"]


def test_who_learns_from_labels_alone_is_the_same_beside_any_store(split: Split, tmp_path: Path) -> None:
    how: dict[str, Any] = {"architecture": "sasrec", "split": split, "model": MODEL, "settings": quick(epochs=2),
                           "folder": tmp_path / "m"}
    train(**how)
    stamp = made(tmp_path / "m")
    train(**how, knowledge=extract(Popularity.fit(split), split, tmp_path / "k", top_k=3))
    assert made(tmp_path / "m") == stamp


def test_an_unfinished_run_with_other_first_weights_is_not_continued(split: Split, tmp_path: Path) -> None:
    """Shapes and settings agree, the start does not: the weights of one run must not end up in the other."""
    starts = [np.random.default_rng(seed).normal(size=(30, 9)).astype(np.float32) for seed in (0, 1)]
    done = train("sasrec", split, MODEL, quick(epochs=2), start=starts[0], folder=tmp_path / "m")
    (tmp_path / "m" / "model.json").unlink()
    from distilrec.models.trained import create
    from distilrec.training.fit import fit

    fit(
        create("sasrec", split, MODEL)[0],
        split,
        quick(epochs=2),
        folder=tmp_path / "m",
        origin=done.training["identity"],
    )
    with pytest.raises(TrainingError, match="origin differ"):
        train("sasrec", split, MODEL, quick(epochs=2), start=starts[1], folder=tmp_path / "m")


def test_what_is_recorded(split: Split) -> None:
    model = train("sasrec", split, MODEL, quick(epochs=3), name="student", losses={"cross_entropy": 1.0})
    record = model.training
    assert model.name == "student"
    assert record["epochs"] == 3
    assert record["steps"] == 3 * 2
    assert record["valid"]["ndcg@10"] == max(point["valid"] for point in record["curve"])
    assert record["curve"][record["best_epoch"] - 1]["valid"] == record["valid"]["ndcg@10"]
    assert record["seconds"] > 0
    assert record["settings"]["seed"] == 0


def test_a_start_is_where_the_table_begins(split: Split) -> None:
    start = np.random.default_rng(0).normal(size=(30, 8)).astype(np.float32)
    begun = train("sasrec", split, MODEL, quick(epochs=1, learning_rate=1e-12), start=start)
    vectors = begun.item_vectors()
    np.testing.assert_allclose(
        vectors / vectors.std(),
        start / np.sqrt((start**2).mean()) * np.sqrt((vectors**2).mean()) / vectors.std(),
        atol=1e-4,
    )
    for name, size in (("sasrec", 0.02), ("mf", 0.1)):
        model = train(name, split, {"dim": 8}, quick(epochs=1, learning_rate=1e-12), start=start)
        assert np.sqrt((model.item_vectors() ** 2).mean()) == pytest.approx(size, rel=1e-3), (
            "as large as a random start"
        )
