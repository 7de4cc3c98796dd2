"""The public functions on objects in memory, as the README shows them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import polars as pl
import pytest

import distilrec as dr
from distilrec.errors import DataError, KnowledgeError, RecipeError
from distilrec.types import Split

TRAINING = {"epochs": 2, "batch_size": 32, "learning_rate": 0.01, "negatives": "full"}


@pytest.fixture(scope="module")
def split() -> Split:
    rng = np.random.default_rng(0)
    users = np.repeat(np.arange(60), 8)
    rows = {"user_id": users, "item_id": (users % 2) * 20 + rng.integers(0, 20, len(users)),
            "timestamp": np.arange(len(users))}
    return dr.prepare(pl.DataFrame(rows).unique(["user_id", "item_id"], maintain_order=True), split="leave-last-out")


def test_the_readme_in_small(split: Split, tmp_path: Path) -> None:
    teacher = dr.teach("sasrec", split, dim=16, layers=1, max_length=10, **TRAINING)
    knowledge = dr.extract(teacher, split, top_k=10, folder=tmp_path / "store")
    student = dr.distill("sasrec", split, knowledge, dim=8, layers=1, max_length=10,
                         losses={"cross_entropy": 0.2, "kl": 0.8}, **TRAINING)
    bundle = dr.export(student, tmp_path / "small.bundle")
    report = dr.evaluate(split, teacher=teacher, student=bundle)
    assert [m["role"] for m in report["models"]] == ["teacher", "student", "control", "baseline", "baseline"]
    assert report.verdict in ("distill", "do not distill", "undecided")
    assert "student" in str(report)
    again = dr.load(tmp_path / "small.bundle").recommend(history=["1", "3"], k=5)
    assert len(again.items) == 5
    assert not {"1", "3"} & set(again.items)


def test_unknown_names_and_settings_say_what_is_near(split: Split) -> None:
    with pytest.raises(RecipeError, match="did you mean 'sasrec'"):
        dr.teach("sasrek", split)
    with pytest.raises(RecipeError, match="did you mean 'dropout'"):
        dr.teach("sasrec", split, dropuot=0.1)
    with pytest.raises(RecipeError, match="did you mean 'temperature'"):
        dr.teach("file", split, path="scores.parquet", temprature=0.1)
    with pytest.raises(RecipeError, match="epochs"):
        dr.teach("sasrec", split, epochs="many")
    with pytest.raises(DataError, match="no item texts"):
        dr.teach("text_sasrec", split, encoder="all-MiniLM-L6-v2")


def test_a_start_that_the_store_cannot_give_is_refused(split: Split, tmp_path: Path) -> None:
    path = tmp_path / "scores.parquet"
    users = split.dataset.user_keys
    pl.DataFrame({"user_id": np.repeat(users, 2).tolist(), "item_id": list(split.dataset.item_keys[:2]) * len(users),
                  "score": [1.0, 0.5] * len(users)}).write_parquet(path)
    knowledge = dr.extract(dr.teach("file", split, path=path), split, folder=tmp_path / "store")
    with pytest.raises(KnowledgeError, match="item vectors"):
        dr.distill("sasrec", split, knowledge, start="teacher", **TRAINING)
    student = dr.distill("sasrec", split, knowledge, start="none", dim=8, layers=1, control=False, **TRAINING)
    assert student.control is None


def test_a_control_starts_from_the_vectors_that_an_outside_teacher_brought(split: Split, tmp_path: Path) -> None:
    path, rng = tmp_path / "vectors.parquet", np.random.default_rng(0)
    vectors = rng.normal(size=(split.n_items, 12)).astype(np.float32)
    pl.DataFrame({"item_id": list(split.dataset.item_keys), "vector": vectors.tolist()}).write_parquet(path)
    knowledge = dr.extract(dr.teach("file", split, path=path), split, folder=tmp_path / "store")
    content = knowledge.vectors("content")
    assert content is not None
    np.testing.assert_allclose(content, vectors)


def test_no_control_is_cut_short_and_the_bare_one_has_no_content(split: Split, tmp_path: Path) -> None:
    teacher = dr.teach("sasrec", split, dim=8, layers=1, **TRAINING)
    content = np.random.default_rng(0).normal(size=(split.n_items, 12)).astype(np.float32)
    knowledge = dr.extract(teacher, split, folder=tmp_path / "store", content=content)
    student = dr.distill("sasrec", split, knowledge, dim=8, layers=1, scratch=True, control_settings={"epochs": 1},
                         **{**TRAINING, "epochs": 3})
    assert student.control is not None and student.scratch is not None
    for control in (student.control, student.scratch):
        assert control.training["steps"] >= student.model.training["steps"]
    report = dr.evaluate(split, teacher=teacher, student=student)
    assert [m["name"] for m in report["models"] if m["role"] == "control"] == ["control", "control-scratch"]


def test_a_model_alone_needs_its_split(split: Split, tmp_path: Path) -> None:
    teacher = dr.teach("sasrec", split, dim=8, layers=1, **TRAINING)
    with pytest.raises(DataError, match="the split it was trained on"):
        dr.export(teacher, tmp_path / "x.bundle")


@pytest.fixture(scope="module")
def content(split: Split) -> np.ndarray:
    return np.random.default_rng(5).normal(size=(split.n_items, 6)).astype(np.float32)


@pytest.mark.parametrize("use", ["add", "only"])
def test_a_student_that_keeps_item_content_is_given_it_and_its_control_too(
    split: Split, content: np.ndarray, tmp_path: Path, use: str
) -> None:
    teacher = dr.teach("mf", split, dim=8, **TRAINING)
    knowledge = dr.extract(teacher, split, top_k=10, folder=tmp_path / "store", content=content)
    made = dr.distill("mf", split, knowledge, start="none", dim=4, content_use=use, scratch=True, **TRAINING)
    assert made.control is not None and made.scratch is not None
    for trained in (made.model, made.control):
        np.testing.assert_array_equal(trained.model.table.content.numpy(), content)
    assert made.scratch.model.table.content is None
    with pytest.raises(RecipeError, match="start 'none'"):
        dr.distill("mf", split, knowledge, start="teacher", dim=4, content_use=use, **TRAINING)


def test_a_student_cannot_keep_content_that_is_not_there(split: Split, tmp_path: Path) -> None:
    knowledge = dr.extract(dr.teach("mf", split, dim=8, **TRAINING), split, top_k=10, folder=tmp_path / "store")
    with pytest.raises(KnowledgeError, match="item content"):
        dr.distill("mf", split, knowledge, start="none", dim=4, content_use="add", **TRAINING)


@pytest.mark.parametrize(("setting", "message"), [
    ({"temprature": 1.0}, "did you mean 'temperature'"), ({"temperature": "warm"}, "temperature: 'warm'"),
    ({"temperature": 0.0}, "greater than 0"), ({"name": 3}, "name: 3"),
])
def test_settings_of_a_file_teacher_are_checked(split: Split, tmp_path: Path, setting: dict, message: str) -> None:
    with pytest.raises(RecipeError, match=message):
        dr.teach("file", split, path=tmp_path / "scores.parquet", **setting)
