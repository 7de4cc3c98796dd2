"""One suite for whatever can teach: scores, extraction, a store that covers all decisions; files with their id maps."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from core_world import quick, split_of, walk_split
from distilrec.errors import DataError, KnowledgeError
from distilrec.knowledge.extract import decisions, extract
from distilrec.models import BASELINES, MODELS, model_class
from distilrec.teachers import TEACHERS, teacher_function
from distilrec.teachers.ensemble import Ensemble
from distilrec.teachers.file import FileTeacher
from distilrec.training.train import train
from distilrec.types import Histories, Ranker, Split

USERS, ITEMS = 15, 12
CONTENT = np.random.default_rng(5).normal(size=(ITEMS, 20)).astype(np.float32)
SCORES = np.random.default_rng(6).normal(size=(USERS, ITEMS)).astype(np.float32)
SMALL = {"dim": 8, "max_length": 6, "heads": 2}


@pytest.fixture(scope="module")
def split() -> Split:
    return walk_split(users=USERS, items=ITEMS, length=7)


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The three forms of a teacher's file, keys in no order; user u0 names only two items."""
    folder = tmp_path_factory.mktemp("files")
    long = (
        pl.DataFrame(
            {
                "user_id": np.repeat([f"u{u}" for u in range(USERS)], ITEMS),
                "item_id": [f"i{i}" for i in range(ITEMS)] * USERS,
                "score": SCORES.ravel(),
            }
        )
        .filter((pl.col("user_id") != "u0") | pl.col("item_id").is_in(["i3", "i7"]))
        .sample(fraction=1.0, shuffle=True, seed=1)
    )
    long.write_parquet(folder / "pairs.parquet")
    long.group_by("user_id").agg(pl.col("item_id").alias("items"), pl.col("score").alias("scores")).write_parquet(
        folder / "lists.parquet"
    )
    vectors = pl.DataFrame({"item_id": [f"i{i}" for i in range(ITEMS)], "vector": CONTENT.tolist()})
    vectors.sample(fraction=1.0, shuffle=True, seed=2).write_parquet(folder / "vectors.parquet")
    return {name: folder / f"{name}.parquet" for name in ("pairs", "lists", "vectors")}


@pytest.fixture(scope="module")
def teachers(split: Split, files: dict[str, Path]) -> dict[str, Any]:
    made: dict[str, Any] = {
        name: train(name, split, {k: v for k, v in SMALL.items() if name == "sasrec" or k != "heads"}, quick(epochs=1))
        for name in MODELS
    }
    made |= {name: model_class(name).fit(split) for name in BASELINES}
    made["text_sasrec"] = teacher_function("text_sasrec")(split, SMALL, quick(epochs=1), content=CONTENT)
    made |= {f"file of {form}": FileTeacher(path, split) for form, path in files.items()}
    made["ensemble"] = Ensemble([made["sasrec"], made["gru4rec"], made["popularity"]], weights=[2, 1, 1])
    made["ensemble with a file"] = Ensemble([made["sasrec"], made["file of lists"]])
    made["ensemble without vectors"] = Ensemble([made["popularity"], made["item_knn"]])
    return made


ALL = [
    *MODELS,
    *BASELINES,
    "text_sasrec",
    "file of pairs",
    "file of lists",
    "file of vectors",
    "ensemble",
    "ensemble with a file",
    "ensemble without vectors",
]


def test_every_row_of_the_table_is_among_them(teachers: dict[str, Any]) -> None:
    assert set(teachers) == set(ALL)
    assert all(any(name.startswith(row) for name in ALL) for row in TEACHERS)


@pytest.mark.req("A2")
@pytest.mark.parametrize("name", ALL)
def test_scores_are_finite_or_ruled_out(name: str, teachers: dict[str, Any], split: Split) -> None:
    teacher = teachers[name]
    assert isinstance(teacher, Ranker)
    scores = teacher.scores(split.histories(split.queries("test")))
    assert scores.dtype == np.float32
    assert scores.shape == (USERS, ITEMS)
    assert not np.isnan(scores).any()
    assert not np.isposinf(scores).any()
    assert np.isfinite(scores).any(axis=1).all()
    assert teacher.parameters > 0
    assert len(teacher.digest) == 64


@pytest.mark.req("A3")
@pytest.mark.parametrize("name", ALL)
def test_its_knowledge_covers_every_decision_and_trains_a_student(
    name: str, teachers: dict[str, Any], split: Split, tmp_path: Path
) -> None:
    store = extract(teachers[name], split, tmp_path / "store", top_k=5)
    batch = store.batch(decisions(split)[0])
    assert batch["response"].shape == (len(decisions(split)[0]), 5)
    assert np.isfinite(batch["response"]).all()
    assert ((batch["response.ids"] >= 0) & (batch["response.ids"] < ITEMS)).all()
    listed = getattr(teachers[name], "keyed", "event") == "user"
    by_user = listed or getattr(teachers[name], "per_user", False)
    assert store.signals["response"].key == ("user" if by_user else "event")
    assert ("response.mass" in batch) != listed
    vectors = store.vectors("item_vectors")
    has = name in (*MODELS, "als", "bpr", "text_sasrec", "file of vectors", "ensemble", "ensemble with a file")
    assert (vectors is not None) == has
    student = train(
        "sasrec",
        split,
        {"dim": 4, "max_length": 6},
        quick(epochs=1),
        start=vectors,
        losses={"cross_entropy": 0.5, "kl": 0.5},
        knowledge=store,
    )
    assert np.isfinite(student.scores(split.histories(split.queries("valid")))).all()


@pytest.mark.parametrize("name", ALL)
def test_the_digest_is_the_same_for_the_same_answers_only(name: str, teachers: dict[str, Any], split: Split) -> None:
    others = [teacher.digest for other, teacher in teachers.items() if other != name]
    assert teachers[name].digest not in others


# --- text


def test_text_sasrec_needs_texts_and_keeps_its_content(teachers: dict[str, Any], split: Split) -> None:
    for nothing in (None, np.zeros((ITEMS, 4), dtype=np.float32)):
        with pytest.raises(DataError, match="needs item texts"):
            teacher_function("text_sasrec")(split, SMALL, quick(epochs=1), content=nothing)
    assert np.array_equal(teachers["text_sasrec"].content, CONTENT)
    assert teachers["text_sasrec"].model.blocks[0].heads == 2


# --- files


@pytest.mark.parametrize("form", ["pairs", "lists"])
def test_a_file_of_scores_answers_by_user(form: str, teachers: dict[str, Any]) -> None:
    asked = Histories.of([[1], [2], []], np.array([3, 0, 3]))
    scores = teachers[f"file of {form}"].scores(asked)
    np.testing.assert_array_equal(scores[0], SCORES[3])
    np.testing.assert_array_equal(scores[0], scores[2])
    assert np.flatnonzero(np.isfinite(scores[1])).tolist() == [3, 7]
    np.testing.assert_array_equal(scores[1, [3, 7]], SCORES[0, [3, 7]])
    with pytest.raises(DataError, match="unknown user"):
        teachers[f"file of {form}"].scores(Histories.of([[1]]))
    with pytest.raises(DataError, match="holds scores"):
        teachers[f"file of {form}"].item_vectors()


def test_a_file_of_vectors_answers_by_cosine(teachers: dict[str, Any], split: Split, files: dict[str, Path]) -> None:
    teacher = teachers["file of vectors"]
    np.testing.assert_array_equal(teacher.item_vectors(), CONTENT)
    unit = CONTENT / np.linalg.norm(CONTENT, axis=1, keepdims=True)
    mean = unit[[2, 2, 5]].mean(0)
    expected = unit @ (mean / np.linalg.norm(mean)) / 0.1
    scores = teacher.scores(Histories.of([[2, 2, 5], []]))
    np.testing.assert_allclose(scores[0], expected, rtol=1e-4, atol=1e-5)
    assert (scores[1] == 0).all()
    warmer = FileTeacher(files["vectors"], split, temperature=0.5)
    assert warmer.digest != teacher.digest, "other answers, another digest: an old store must not be taken for it"


Change = Callable[[pl.DataFrame], pl.DataFrame]


@pytest.mark.req("A2")
@pytest.mark.parametrize(
    ("form", "change", "message"),
    [
        (
            "pairs",
            lambda t: t.with_columns(pl.col("user_id").replace({"u1": "x1", "u2": "x2", "u3": "x3", "u4": "x4"})),
            r"4 users that the data set does not have, e\.g\. x\d, x\d, x\d\n",
        ),
        (
            "pairs",
            lambda t: t.with_columns(pl.col("item_id").replace({"i1": "y1", "i2": "y2"})),
            r"2 items that the data set does not have, e\.g\. y\d, y\d\n",
        ),
        (
            "pairs",
            lambda t: t.filter(~pl.col("user_id").is_in(["u1", "u2", "u3", "u5"])),
            rf"4 of {USERS} users are missing, e\.g\. u1, u2, u3\n",
        ),
        (
            "pairs",
            lambda t: pl.concat([t, t.filter((pl.col("user_id") == "u9") & (pl.col("item_id") == "i4"))]),
            r"1 pairs stand twice, e\.g\. \(u9, i4\)",
        ),
        (
            "pairs",
            lambda t: t.with_columns(
                pl.when(pl.col("item_id") == "i3").then(None).otherwise(pl.col("score")).alias("score")
            ),
            f"{USERS} scores are null, NaN or infinite",
        ),
        ("pairs", lambda t: t.with_columns(pl.lit("high").alias("score")), "wrong type"),
        ("pairs", lambda t: t.rename({"score": "points"}), "has columns item_id, points, user_id"),
        ("pairs", lambda t: t.head(0), "no rows"),
        ("lists", lambda t: t.with_columns(pl.col("scores").list.head(1)), r"\d+ rows whose lists differ in length"),
        (
            "vectors",
            lambda t: t.filter(~pl.col("item_id").is_in(["i2", "i3", "i4", "i6"])),
            rf"4 of {ITEMS} items are missing, e\.g\. i2, i3, i4\n",
        ),
        ("vectors", lambda t: pl.concat([t, t.head(2)]), "2 items stand twice"),
        (
            "vectors",
            lambda t: t.with_columns(
                pl.when(pl.col("item_id") == "i1")
                .then(pl.col("vector").list.head(3))
                .otherwise(pl.col("vector"))
                .alias("vector")
            ),
            "vectors of widths",
        ),
        (
            "vectors",
            lambda t: t.with_columns(
                pl.when(pl.col("item_id") == "i1").then(None).otherwise(pl.col("vector")).alias("vector")
            ),
            "vectors of widths",
        ),
        ("vectors", lambda t: t.with_columns(pl.col("vector") * float("nan")), "NaN or infinite"),
        ("vectors", lambda t: t.with_columns(pl.lit("0.1 0.2").alias("vector")), "wrong type"),
    ],
)
def test_a_wrong_file_is_an_error_that_counts_and_shows_three(
    form: str, change: Change, message: str, files: dict[str, Path], split: Split, tmp_path: Path
) -> None:
    path = tmp_path / "teacher.parquet"
    change(pl.read_parquet(files[form])).write_parquet(path)
    with pytest.raises(DataError, match=message):
        FileTeacher(path, split)


def test_a_missing_and_a_truncated_file_are_named(files: dict[str, Path], split: Split, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="does not exist"):
        FileTeacher(tmp_path / "nothing.parquet", split)
    (tmp_path / "cut.parquet").write_bytes(files["pairs"].read_bytes()[:-20])
    with pytest.raises(DataError, match="cannot be read as Parquet"):
        FileTeacher(tmp_path / "cut.parquet", split)


def test_number_keys_and_vectors_of_fixed_width_are_read(tmp_path: Path) -> None:
    world = split_of([([0, 1], [2], [])], 3)
    world.dataset.item_keys[:] = ["10", "20", "30"]
    pl.DataFrame(
        {"item_id": [30, 10, 20], "vector": [[3.0, 0.0], [1.0, 0.0], [2.0, 0.0]]},
        schema_overrides={"vector": pl.Array(pl.Float64, 2)},
    ).write_parquet(tmp_path / "v.parquet")
    assert FileTeacher(tmp_path / "v.parquet", world).item_vectors()[:, 0].tolist() == [1.0, 2.0, 3.0]


# --- ensembles


class Fixed:
    """A member whose scores are known."""

    parameters = 3

    def __init__(self, row: list[float], name: str = "fixed") -> None:
        self.name, self.row = name, np.array(row, dtype=np.float32)

    def scores(self, histories: Histories) -> np.ndarray:
        return np.repeat(self.row[None], len(histories), axis=0)


def test_an_ensemble_is_the_weighted_geometric_mean() -> None:
    one, two = np.array([0.7, 0.2, 0.1]), np.array([0.1, 0.6, 0.3])
    # members on unlike scales: a constant added to all scores of one member says nothing
    both = Ensemble([Fixed(np.log(one).tolist()), Fixed((np.log(two) + 1000).tolist())], weights=[3, 1])
    scores = both.scores(Histories.of([[], [1]]))
    np.testing.assert_allclose(np.exp(scores[1]), one**0.75 * two**0.25, rtol=1e-3)
    assert both.parameters == 6
    assert both.digest == "", "members without a digest leave the whole without one"


def test_what_one_member_rules_out_is_ruled_out(split: Split, tmp_path: Path) -> None:
    lists = [Fixed([1.0, -np.inf, 0.0]), Fixed([0.0, 5.0, 1.0])]
    assert np.isneginf(Ensemble(lists).scores(Histories.of([[]]))[0]).tolist() == [False, True, False]
    nothing = Ensemble([Fixed([0.0] * 6 + [-np.inf] * 6), Fixed([-np.inf] * 6 + [0.0] * 6)])
    with pytest.raises(KnowledgeError, match="-inf"):
        extract(nothing, split, tmp_path)


@pytest.mark.parametrize(
    ("members", "weights"), [(0, None), (2, [1.0]), (2, [1.0, 0.0]), (2, [1.0, -1.0]), (1, [np.nan])]
)
def test_an_ensemble_of_nobody_or_with_odd_weights_is_refused(members: int, weights: list[float] | None) -> None:
    with pytest.raises(DataError, match="one positive weight"):
        Ensemble([Fixed([0.0])] * members, weights=weights)


def test_the_vectors_of_an_ensemble_stand_side_by_side(teachers: dict[str, Any]) -> None:
    vectors = teachers["ensemble"].item_vectors()
    assert vectors.shape == (ITEMS, 16)
    assert [float(np.sqrt((half**2).mean())) for half in np.split(vectors, 2, axis=1)] == pytest.approx(
        [1.0, 1.0], rel=1e-4
    )
    with pytest.raises(DataError, match="no member"):
        teachers["ensemble without vectors"].item_vectors()
