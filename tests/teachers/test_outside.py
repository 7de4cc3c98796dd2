"""The checks that every outside scorer goes through, with scorers that are wrong in one way each."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

import rows_world
from distilrec.errors import DataError, MissingExtraError
from distilrec.teachers.outside import OutsidePredictor, library, spaces_of, to_answers
from distilrec.types_rows import Head, Predictor, RowSplit


def price(batch: pl.DataFrame) -> np.ndarray:
    return batch["price"].fill_null(10.0).to_numpy()


def logit(batch: pl.DataFrame) -> np.ndarray:
    return (price(batch) - 10) / 3


def chance(batch: pl.DataFrame) -> np.ndarray:
    return 1 / (1 + np.exp(-logit(batch)))


def made(score: Any, split: RowSplit, **given: Any) -> OutsidePredictor:
    return OutsidePredictor(score, split, **{"space": "probability", "parameters": 2, "name": "theirs", **given})


def test_probabilities_become_logits_and_logits_stay(clicks: RowSplit, everything: np.ndarray) -> None:
    teacher = made(chance, clicks)
    assert isinstance(teacher, Predictor)
    assert teacher.predict(clicks, everything) == pytest.approx(
        made(logit, clicks, space="logit").predict(clicks, everything), abs=1e-4)
    assert teacher.parameters == 2


def test_probabilities_of_0_and_1_become_the_logits_of_the_edge() -> None:
    answers = to_answers(np.array([[0.0], [1.0], [0.5]]), ("probability",), (Head("click"),), "theirs")
    edge = np.log((1 - 1e-7) / 1e-7)
    assert answers.ravel() == pytest.approx([-edge, edge, 0.0])


@given(st.lists(st.floats(0, 1), min_size=1, max_size=30))
def test_logits_keep_the_order_of_probabilities_and_are_finite(values: list[float]) -> None:
    answers = to_answers(np.array(values)[:, None], ("probability",), (Head("click"),), "theirs").ravel()
    assert np.isfinite(answers).all()
    assert (np.diff(answers[np.argsort(values)]) >= 0).all()


@pytest.mark.parametrize("form", ["polars", "arrow", "numpy"])
def test_rows_come_in_the_form_that_is_asked_for(form: str, clicks: RowSplit, everything: np.ndarray) -> None:
    seen: list[Any] = []

    def score(batch: Any) -> np.ndarray:
        seen.append(batch)
        if form == "numpy":
            return np.nan_to_num(batch["price"], nan=10.0) - 10
        return batch["price"].fill_null(10.0).to_numpy() - 10

    teacher = made(score, clicks, space="logit", rows=form, columns=["price", "item"])
    assert isinstance(seen[0], {"polars": pl.DataFrame, "arrow": pa.Table, "numpy": dict}[form])
    assert teacher.predict(clicks, everything[:1]).shape == (1, 1)


def test_one_space_per_head(both: RowSplit, everything: np.ndarray) -> None:
    teacher = made(lambda batch: np.stack([chance(batch), price(batch)], 1), both,
                   space={"click": "probability", "rating": "value"})
    raw = both.raw.column("price").fill_null(10.0).to_numpy()
    assert teacher.predict(both, everything) == pytest.approx(np.stack([(raw - 10) / 3, raw], 1), abs=1e-4)


WRONG: dict[str, tuple[Any, str, str]] = {
    "a column too many": (lambda b: np.stack([chance(b)] * 2, 1), "probability",
                          r"shape \[256, 2\].*\[256, 1\]: click"),
    "a row too few": (lambda b: chance(b)[1:], "probability", r"answered 256 rows with an array of shape \[255, 1\]"),
    "one number for all": (lambda b: 0.5, "probability", r"shape \[\]"),
    "text": (lambda b: ["yes"] * len(b), "probability", "no array of numbers"),
    "NaN": (lambda b: b["price"].cast(pl.Float64).fill_null(float("nan")).to_numpy() / 100, "probability",
            "NaN or infinite, first at row"),
    "infinite": (lambda b: np.log(np.zeros(len(b))), "logit", "256 of 256 answers for 'click' are NaN or infinite"),
    "logits said to be probabilities": (logit, "probability", r"probabilities of 'click' lie outside \[0, 1\].*logit"),
    "probabilities said to be logits": (chance, "logit", r"all 256 logits of 'click'.*lie in \[0, 1\].*probability"),
    "too large": (lambda b: np.where(price(b) > 10, 1e300, -1.0), "logit", "infinite"),
    "sorted by score": (lambda b: np.sort(chance(b)), "probability", "differently when they came in another order"),
    "turned around": (lambda b: chance(b)[::-1], "probability", "differently when they came in another order"),
    "sorted by a column": (lambda b: chance(b.sort("user", "price")), "probability", "another order"),
    "centered in the batch": (lambda b: logit(b) - logit(b).mean() ** 2 * 9, "logit", "depends on nothing but row i"),
    "at random": (lambda b: np.random.default_rng().random(len(b)), "probability", "when it is asked again"),
}


@pytest.mark.filterwarnings("ignore:divide by zero")
@pytest.mark.req("A2")
@pytest.mark.parametrize("fault", WRONG)
def test_a_wrong_scorer_is_refused_before_it_teaches(fault: str, clicks: RowSplit) -> None:
    score, space, text = WRONG[fault]
    with pytest.raises(DataError, match=re.compile(text, re.S)):
        to_teach = made(score, clicks, space=space)
        to_teach.predict(clicks, np.arange(len(clicks)))


def test_what_the_numbers_are_is_never_guessed(clicks: RowSplit, both: RowSplit) -> None:
    for space, text in ((None, "is not said"), ("logits", "did you mean 'logit'"), ("value", "'value' for the binary"),
                        ({"clicks": "logit"}, "stated for clicks")):
        with pytest.raises(DataError, match=text):
            made(chance, clicks, space=space)
    with pytest.raises(DataError, match="(?s)'logit' for the number head 'rating'.*space=\\{click"):
        spaces_of({"click": "logit", "rating": "logit"}, both.heads)
    assert spaces_of("probability", both.heads) == ("probability", "value")  # a number can be nothing else


def test_logits_that_are_narrow_indeed_can_be_said_to_be(clicks: RowSplit, everything: np.ndarray) -> None:
    teacher = made(chance, clicks, space="logit", narrow_logits=True)
    assert 0 <= teacher.predict(clicks, everything).min() < teacher.predict(clicks, everything).max() <= 1


def test_a_fault_beyond_the_first_rows_is_found_when_they_are_scored() -> None:
    split = rows_world.table(600, heads=(Head("click"),))

    def late(batch: pl.DataFrame) -> np.ndarray:
        return np.where(len(batch) > 300, 2.0, chance(batch))

    with pytest.raises(DataError, match="600 of 600 probabilities"):
        made(late, split).predict(split, np.arange(600))


def test_a_table_with_other_heads_is_refused(clicks: RowSplit, both: RowSplit) -> None:
    with pytest.raises(DataError, match="answers click, and the table asks for click, rating"):
        made(chance, clicks).predict(both, np.arange(3))


def test_unknown_columns_and_forms_are_refused_with_the_nearest_name(clicks: RowSplit) -> None:
    with pytest.raises(DataError, match="did you mean 'price'"):
        made(chance, clicks, columns=["prise"])
    with pytest.raises(DataError, match="did you mean 'polars'"):
        made(chance, clicks, rows="polar")


def test_the_digest_follows_the_answers_and_the_space(clicks: RowSplit) -> None:
    one, same = made(chance, clicks), made(chance, clicks)
    assert one.digest == same.digest
    assert one.digest != made(lambda b: chance(b) * 0.999, clicks).digest
    assert one.digest != made(chance, clicks, space="logit", narrow_logits=True).digest
    assert made(chance, clicks, digest="abc").digest == made(chance, clicks, digest="abc").digest


def test_a_missing_library_is_named_with_the_line_that_installs_it() -> None:
    with pytest.raises(MissingExtraError, match=re.escape("pip install 'distilrec[outside]'")):
        library("no_such_library_at_all", "nothing", "outside")
