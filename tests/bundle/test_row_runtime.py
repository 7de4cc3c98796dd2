from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import rows_world
from distilrec.bundle.row_runtime import RowBundle, row_latency
from distilrec.errors import BundleError, DataError
from distilrec.models.predictor import TrainedRows
from distilrec.types_rows import RowSplit

CONTEXT = ("user", "past")


def rows_of(n: int, seed: int = 0) -> list[dict[str, Any]]:
    raw = rows_world.raw_columns(n, seed)
    rows = [dict(zip(raw, row, strict=True)) for row in zip(*raw.values(), strict=True)]
    return [{**row, "item": row["item"] or "nothing"} for row in rows]


def test_raw_rows_give_what_torch_gives(row_bundle: RowBundle, row_split: RowSplit, row_student: TrainedRows) -> None:
    raw = row_split.raw.to_pydict()
    kept = [row for row, item in enumerate(raw["item"]) if item is not None]
    rows = [{name: column[row] for name, column in raw.items()} for row in kept]
    logits = row_student.predict(row_split, np.array(kept))
    found = row_bundle.predict(rows)
    assert list(found) == ["click", "buy", "rating", "tags"]
    np.testing.assert_allclose(found["click"], 1 / (1 + np.exp(-logits[:, 0])), atol=1e-5)
    np.testing.assert_allclose(found["buy"], 1 / (1 + np.exp(-logits[:, 1])), atol=1e-5)
    np.testing.assert_allclose(found["rating"], logits[:, 2], atol=1e-4)
    np.testing.assert_allclose(found["tags"], 1 / (1 + np.exp(-logits[:, 3:])), atol=1e-5)
    columns = row_bundle.predict({name: [column[row] for row in kept] for name, column in raw.items()})
    for head, values in found.items():
        np.testing.assert_array_equal(values, columns[head])
        assert values.dtype == np.float32


def test_missing_and_unknown_are_the_same_thing(row_bundle: RowBundle) -> None:
    missing = row_bundle.predict([{"item": "i1"}])
    for row in ({"item": "i1", "user": None, "price": None}, {"item": "i1", "user": "stranger", "colors": ["pink"]},
                {"item": "i1", "past": [], "title": "unheard-of"}, {"item": "i1", "price": float("nan")}):
        answer = row_bundle.predict([row])
        if "colors" not in row and "title" not in row:  # an unknown value of a list is one value, not none
            np.testing.assert_allclose(answer["rating"], missing["rating"], atol=1e-6)
        assert np.isfinite(answer["click"]).all()


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(seed=st.integers(0, 10_000), n=st.integers(1, 12), k=st.integers(1, 15))
def test_ranking_is_sorting_the_rows_by_themselves(row_bundle: RowBundle, seed: int, n: int, k: int) -> None:
    """A context that is encoded once gives what the same rows give in full; equal ones keep their order."""
    rows = rows_of(n, seed) * 2
    rows = [{**row, **{name: rows[0][name] for name in CONTEXT}} for row in rows]
    candidates = [{name: value for name, value in row.items() if name not in CONTEXT} for row in rows]
    context = {name: rows[0][name] for name in CONTEXT}
    for head in ("click", "rating"):
        scores = row_bundle.scores(row_bundle.encode(rows))[:, row_bundle.outputs.slices[head].start]
        ranked = row_bundle.rank(context, candidates, k, head)
        # within the error of other batch sizes
        np.testing.assert_allclose(scores[ranked.places], -np.sort(-scores)[:k], atol=1e-5)
        values = row_bundle.predict(rows)[head]
        np.testing.assert_allclose(ranked.scores, values[ranked.places], atol=1e-5)
        assert len(ranked) == min(k, len(rows))
        assert len(set(ranked.places)) == len(ranked)


def test_equal_candidates_keep_their_order(row_bundle: RowBundle) -> None:
    same = [{"item": "i1"}] * 9
    assert row_bundle.rank({"user": "u1"}, same, 5).places == [0, 1, 2, 3, 4]
    assert row_bundle.rank({"user": "u1"}, same).head == "click"
    assert list(row_bundle.rank({}, same, 1)) == [(0, row_bundle.predict(same[:1])["click"][0])]


def test_tags_by_threshold_and_by_count(row_bundle: RowBundle) -> None:
    for row in rows_of(20, 5):
        new, cheap = row_bundle.predict([row])["tags"][0].tolist()
        order = [("new", new), ("cheap", cheap)] if new >= cheap else [("cheap", cheap), ("new", new)]
        assert row_bundle.tags(row) == [(tag, p) for tag, p in order if p >= (0.3 if tag == "new" else 0.7)]
        assert row_bundle.tags(row, 1) == order[:1]
        assert row_bundle.tags(row, threshold=0.0, head="tags") == order
        assert row_bundle.tags(row, threshold=1.1) == []


BAD_ROWS: list[tuple[Any, str]] = [
    ([], "no rows"),
    ([{"item": "i1"}, 5], r"row 1 is 5"),
    ([{"item": "i1"}, {"item": "i2", "prize": 3}], r"row 1: unknown field 'prize', did you mean 'price'"),
    ([{"user": "u1"}], "every row: the required field 'item' is missing"),
    ([{"item": "i1"}, {"item": None}, {}], "rows 1, 2: the required field 'item' is missing"),
    ([{"item": "i1"}, {"item": "i1", "price": "4"}], r"row 1: field 'price': '4'(.|\n)*a finite number"),
    ([{"item": "i1", "price": float("inf")}], "row 0: field 'price'"),
    ([{"item": "i1", "price": 10**400}], "row 0: field 'price'"),
    ([{"item": "i1", "price": 1e300}], "row 0: field 'price'"),
    ([{"item": "i1", "price": 1e38}], r"row 0: its numbers are so large"),
    ([{"item": ["i1"]}], r"row 0: field 'item'(.|\n)*text or a number"),
    ([{"item": "i1", "colors": "red"}], r"row 0: field 'colors': 'red'(.|\n)*a list"),
    ([{"item": "i1", "colors": {"red": 1}}], "row 0: field 'colors'"),
    ([{"item": "i1", "past": [["i1"]]}], "row 0: field 'past'"),
    ([{"item": "i1", "title": 7}], r"row 0: field 'title': 7(.|\n)*text"),
    ([{"item": "i1", "picture": [1, 2]}], r"row 0: field 'picture'(.|\n)*3 finite numbers"),
    ([{"item": "i1", "picture": [1, 2, float("nan")]}], "row 0: field 'picture'"),
    ({"item": ["i1"], "price": [1, 2]}, "unequal lengths"),
    ({"item": "i1"}, "unequal lengths"),
    ({"itm": ["i1"]}, "did you mean 'item'"),
]


@pytest.mark.parametrize(("rows", "words"), BAD_ROWS, ids=[words[:40] for _, words in BAD_ROWS])
def test_bad_rows_are_told_by_row_and_field(row_bundle: RowBundle, rows: Any, words: str) -> None:
    with pytest.raises(DataError, match=words):
        row_bundle.predict(rows)


def test_bad_requests_to_rank_and_tag(row_bundle: RowBundle) -> None:
    one = [{"item": "i1"}]
    cases: list[tuple[Any, str]] = [
        (lambda: row_bundle.rank({}, []), "no candidates"),
        (lambda: row_bundle.rank({}, one, 0), "at least 1"),
        (lambda: row_bundle.rank({}, one, head="clik"), "did you mean 'click'"),
        (lambda: row_bundle.rank({}, one, head="tags"), "a binary or number head: click, buy, rating"),
        (lambda: row_bundle.rank({"item": "i2"}, one), "'item' is in the context and in the candidates"),
        (lambda: row_bundle.rank({"usr": 1}, one), "context: unknown field 'usr', did you mean 'user'"),
        (lambda: row_bundle.rank({"user": []}, one), "the context: field 'user'"),
        (lambda: row_bundle.rank({"user": 1}, [{"price": 1}]), "the context: the required field 'item' is missing"),
        (lambda: row_bundle.rank([], one), "the context is"),
        (lambda: row_bundle.rank({}, [{"item": "i1"}, {"item": "i1", "price": "x"}]), "candidate 1: field 'price'"),
        (lambda: row_bundle.tags({"item": "i1"}, 0), "at least 1"),
        (lambda: row_bundle.tags({"item": "i1"}, head="click"), "a tags head: tags"),
    ]
    for call, words in cases:
        with pytest.raises(DataError, match=words):
            call()
    with pytest.raises(BundleError, match="encoded columns without item"):
        row_bundle.scores({"user": np.zeros(3, dtype=np.int32)})


def test_blocks_do_not_change_the_answer(
    row_bundle: RowBundle, row_split: RowSplit, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = row_bundle.scores(row_split.columns)
    monkeypatch.setattr("distilrec.bundle.row_runtime._BLOCK", 7)
    np.testing.assert_allclose(row_bundle.scores(row_split.columns), whole, atol=1e-5)
    none = {name: column[:0] for name, column in row_split.columns.items()}
    assert row_bundle.scores(none).shape == (0, 5)


def test_sizes_and_times(row_bundle: RowBundle, row_bundle_path: Path) -> None:
    assert row_bundle.bytes == (row_bundle_path / "model.onnx").stat().st_size
    assert (row_bundle.name, row_bundle.task) == ("small", "predict")
    times = row_latency(row_bundle, rows_of(30))
    assert 0 < times["p50"] <= times["p99"]


WITHOUT_TORCH = """
import sys
for name in ("torch", "onnx", "transformers", "scipy", "sklearn"):
    sys.modules[name] = None  # to import it is now an error, as if it were not installed
from distilrec.bundle.runtime import load
bundle = load(sys.argv[1])
candidates = [{"item": "i2"}, {"item": "i3"}]
print(bundle.predict([{"item": "i1"}])["rating"][0], bundle.rank({"user": "u1"}, candidates).places)
assert not {"polars", "pyarrow", "pydantic", "litestar"} & set(sys.modules), sorted(sys.modules)
import distilrec.serving.app, distilrec.bundle.row_offline
"""


def test_it_answers_where_torch_is_not_installed(row_bundle: RowBundle, row_bundle_path: Path) -> None:
    done = subprocess.run([sys.executable, "-c", WITHOUT_TORCH, str(row_bundle_path)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    value, places = done.stdout.split(" ", 1)
    assert float(value) == pytest.approx(row_bundle.predict([{"item": "i1"}])["rating"][0])
    assert places.strip() == str(row_bundle.rank({"user": "u1"}, [{"item": "i2"}, {"item": "i3"}]).places)
