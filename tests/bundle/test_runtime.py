from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import nn

from bundle_world import ITEMS
from distilrec.bundle.runtime import Bundle, latency, load
from distilrec.errors import DataError
from distilrec.types import Histories

KEYS = st.lists(st.sampled_from([*(f"item-{i}" for i in range(ITEMS)), "unknown", ""]), max_size=25)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(histories=st.lists(KEYS, min_size=1, max_size=6), k=st.integers(1, ITEMS + 5))
def test_one_by_one_batch_and_ids_agree(bundle: Bundle, histories: list[list[str]], k: int) -> None:
    batch = bundle.recommend_batch(histories, k)
    numbers = [[int(key[5:]) for key in history if key.startswith("item-")] for history in histories]
    ids = bundle.recommend_ids(Histories.of(numbers), Histories.of(numbers), k)
    for row, history in enumerate(histories):
        single = bundle.recommend(history, k)
        kept = ids.items[row][ids.items[row] >= 0]
        assert single.items == batch[row].items == [f"item-{i}" for i in kept]
        np.testing.assert_allclose(single.scores, batch[row].scores, atol=1e-5)
        assert single.unknown == batch[row].unknown == sum(not key.startswith("item-") for key in history)
        assert single.known == len(numbers[row])
        # what was left, no more and no less; nothing seen, nothing twice, best first
        assert len(single) == min(k, ITEMS - len(set(numbers[row])))
        assert not set(single.items) & set(history)
        assert len(set(single.items)) == len(single)
        assert single.scores == sorted(single.scores, reverse=True)


def test_strangers_get_the_list_for_newcomers(bundle: Bundle, student: nn.Module) -> None:
    scores = (student.item_vectors() @ student.table.start + student.item_bias()).detach().numpy()
    expected = [f"item-{i}" for i in np.argsort(-scores, kind="stable")[:7]]
    assert bundle.recommend([], 7).items == expected
    answer = bundle.recommend(["who", "knows"], 7)
    assert (answer.items, answer.unknown, answer.known) == (expected, 2, 0)


def test_seen_exclude_and_keys_that_are_numbers(bundle: Bundle) -> None:
    history = ["item-3", "item-9"]
    kept = bundle.recommend(history, ITEMS, seen="keep")
    assert len(kept) == ITEMS
    assert set(history) < set(kept.items)
    dropped = bundle.recommend(history, ITEMS)
    assert dropped.items == [item for item in kept.items if item not in history]
    first = dropped.items[0]
    assert bundle.recommend(history, 5, exclude=[first, "nobody"]).items == dropped.items[1:6]
    assert bundle.recommend(history, 3, seen="keep", exclude=[kept.items[0]]).items == kept.items[1:4]
    assert bundle.recommend([7], 3).unknown == 1  # pyright: ignore[reportArgumentType]


def test_only_the_latest_events_matter_but_all_are_dropped(bundle: Bundle) -> None:
    old = [f"item-{i}" for i in range(20)]
    late = [f"item-{i}" for i in range(40, 49)]  # nine, the length that the student looks at
    whole, cut = bundle.recommend(old + late, ITEMS), bundle.recommend(late, ITEMS)
    assert whole.items == [item for item in cut.items if item not in old]


def test_similar_is_cosine_of_the_item_table(bundle: Bundle, student: nn.Module) -> None:
    table = student.item_vectors().detach().numpy()
    np.testing.assert_array_equal(bundle.item_vectors, table)
    naive = sorted(
        (-float(table[5] @ row / np.linalg.norm(table[5]) / np.linalg.norm(row)), i)
        for i, row in enumerate(table) if i != 5
    )
    answer = bundle.similar("item-5", 6)
    assert answer.items == [f"item-{i}" for _, i in naive[:6]]
    np.testing.assert_allclose(answer.scores, [-c for c, _ in naive[:6]], atol=1e-5)
    assert len(bundle.similar("item-5", 500)) == ITEMS - 1
    with pytest.raises(DataError, match="unknown item 'x'"):
        bundle.similar("x")


def test_wrong_arguments_are_told(bundle: Bundle) -> None:
    for k in (0, -1, 2.5, True):
        with pytest.raises(DataError, match="at least 1"):
            bundle.recommend([], k)  # pyright: ignore[reportArgumentType]
    with pytest.raises(DataError, match="'drop' or 'keep'"):
        bundle.recommend([], 1, seen="no")
    with pytest.raises(DataError, match="as many of both"):
        bundle.recommend_ids(Histories.of([[1]]), Histories.of([]), 3)


def test_no_queries_no_answers(bundle: Bundle) -> None:
    assert bundle.recommend_batch([]) == []
    assert bundle.recommend_ids(Histories.of([]), Histories.of([]), 4).items.shape == (0, 4)


def test_batches_of_a_large_catalog_stay_small(bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    """One row at a time gives what all rows together give, in the order of the questions."""
    rng = np.random.default_rng(5)
    histories = Histories.of([rng.integers(0, ITEMS, n) for n in rng.integers(0, 15, 40)])
    whole = bundle.recommend_ids(histories, histories, 8)
    monkeypatch.setattr("distilrec.bundle.runtime._SCORES_BYTES", 4 * ITEMS * 3)
    parts = bundle.recommend_ids(histories, histories, 8)
    np.testing.assert_array_equal(whole.items, parts.items)


def test_sizes_titles_and_times(bundle: Bundle, bundle_path: Path) -> None:
    assert bundle.bytes == (bundle_path / "model.onnx").stat().st_size
    assert "item-3" in bundle
    assert "x" not in bundle
    assert (bundle.title("item-1"), bundle.title("item-0"), bundle.title("x")) == ("Title <1>", None, None)
    times = latency(bundle, [["item-1", "item-2"]] * 50)
    assert 0 < times["p50"] <= times["p99"]
    assert times["cpu"] > 0


WITHOUT_TORCH = """
import sys
for name in ("torch", "onnx", "transformers", "scipy", "sklearn"):
    sys.modules[name] = None  # to import it is now an error, as if it were not installed
from distilrec.bundle.runtime import load
bundle = load(sys.argv[1])
print(",".join(bundle.recommend(["item-1", "item-2"], 4).items), bundle.similar("item-1", 1).items[0])
assert not {"polars", "pyarrow", "pydantic", "litestar"} & set(sys.modules), sorted(sys.modules)
import distilrec.serving.app, distilrec.bundle.offline
"""


def test_it_answers_where_torch_is_not_installed(bundle: Bundle, bundle_path: Path) -> None:
    done = subprocess.run([sys.executable, "-c", WITHOUT_TORCH, str(bundle_path)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    expected = ",".join(bundle.recommend(["item-1", "item-2"], 4).items)
    assert done.stdout.split() == [expected, bundle.similar("item-1", 1).items[0]]


def test_threads_do_not_change_the_answer(bundle_path: Path, bundle: Bundle) -> None:
    assert load(bundle_path, threads=2).recommend(["item-8"], 20).items == bundle.recommend(["item-8"], 20).items
