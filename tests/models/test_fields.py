"""The field table against values worked out by hand, and its ways of grouping, cutting and sharing."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional as F

import rows_world
from distilrec.errors import DataError, RecipeError
from distilrec.features import Feature
from distilrec.models.fields import FieldTable, Inputs, field_order, inputs_of

A = Feature("a", "category", size=3)
B = Feature("b", "category", size=2)
TAGS = Feature("tags", "list", size=3, max_length=4)
PAST = Feature("past", "sequence", size=3, of="a", max_length=4)
X = Feature("x", "number")
V = Feature("v", "vector", dim=2)


def filled(table: FieldTable) -> FieldTable:
    """Row r of the table is (r, 10 r)."""
    with torch.no_grad():
        rows = torch.arange(len(table.weight), dtype=torch.float32)
        table.weight.copy_(torch.stack([rows, 10 * rows], 1))
    return table


def inputs(**columns: list) -> Inputs:
    features = [one for one in (X, A, TAGS, PAST, B, V) if one.name in columns]
    return inputs_of(features, {name: np.array(values) for name, values in columns.items()})


@pytest.mark.parametrize("training", [False, True])
def test_every_kind_by_hand(training: bool) -> None:
    table = filled(FieldTable([X, A, TAGS, PAST, B, V], 2)).train(training)
    with torch.no_grad():
        table.number_weight.copy_(torch.tensor([[3.0, -1.0]]))
        table.vector_weight[0].copy_(torch.tensor([[1.0, 0.0], [0.5, 2.0]]))
    assert table.names == ("a", "b", "tags", "past", "x", "v")
    assert len(table.weight) == 3 + 2 + 3  # the history of a lies in the rows of a
    out = table(inputs(x=[2.0, 0.0], a=[2, 0], b=[1, 0], tags=[[1, 2, -1], [-1, -1, -1]], past=[[1, 2], [-1, -1]],
                       v=[[1.0, 2.0], [0.0, 0.0]]))
    # a at 0, b at 3, tags at 5: mean of rows 6 and 7; past: mean of rows 1 and 2
    assert out[0].tolist() == [[2, 20], [4, 40], [6.5, 65], [1.5, 15], [6, -2], [2, 4]]
    assert out[1].tolist() == [[0, 0], [3, 30], [0, 0], [0, 0], [0, 0], [0, 0]]


def test_unknown_ids_start_at_zero_and_learn() -> None:
    table = FieldTable([A, TAGS], 4)
    assert (table.weight[[0, 3]] == 0).all() and (table.weight[[1, 2, 4, 5]] != 0).all()
    table(inputs(a=[0], tags=[[0]])).sum().backward()
    assert (table.weight.grad[[0, 3]] == 1).all()


def test_a_history_without_its_items_has_rows_of_its_own() -> None:
    assert len(FieldTable([PAST, B], 2).weight) == 3 + 2
    with pytest.raises(DataError, match="4 ids, 'a' 3"):
        FieldTable([A, Feature("past", "sequence", size=4, of="a")], 2)


def test_left_out_fields_are_given_one_by_one() -> None:
    table = filled(FieldTable([A, PAST], 2, leave_out=["past"]))
    given = inputs(a=[1], past=[[2, -1, -1]])
    assert table.names == ("a",) and table(given).shape == (1, 1, 2)
    vectors, there = table.history(given, "past")
    assert vectors[0, 0].tolist() == [2, 20] and there.tolist() == [[True]]  # the pads were cut


@settings(max_examples=20, deadline=None)
@given(st.integers(1, 5), st.integers(1, 6), st.integers(0, 10**6))
def test_gradients_are_those_of_torch(rows: int, length: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    lengths = rng.integers(0, length + 1, rows)
    tags = np.where(np.arange(length) < lengths[:, None], rng.integers(0, 3, (rows, length)), -1)
    table = FieldTable([A, TAGS], 2)
    read = inputs(a=rng.integers(0, 3, rows), tags=tags)
    weighed = torch.as_tensor(rng.normal(size=(rows, 2, 2)), dtype=torch.float32)
    (table.train()(read) * weighed).sum().backward()
    quick, table.weight.grad = table.weight.grad, None
    (table.eval()(read) * weighed).sum().backward()
    np.testing.assert_allclose(quick, table.weight.grad, atol=1e-5)
    plain = F.embedding(read.ids, table.weight)
    assert torch.equal(table(read)[:, :1], plain)


def test_taken_rows_and_flat_tensors_are_the_same_inputs() -> None:
    features, columns = list(rows_world.FEATURES.values()), rows_world.table(60).columns
    whole = inputs_of(features, columns)
    rows = np.array([5, 3, 17, 3])
    direct, taken = inputs_of(features, columns, rows), whole.take(torch.as_tensor(rows))
    assert len(direct) == 4 and len(whole) == 60
    assert all(torch.equal(a, b) for a, b in zip(direct.flat(), taken.flat(), strict=True))
    back = Inputs.of_flat(features, direct.flat())
    assert all(torch.equal(a, b) for a, b in zip(back.flat(), direct.flat(), strict=True))
    numbers = [rows_world.FEATURES["price"]]
    alone = Inputs.of_flat(numbers, inputs_of(numbers, columns, rows).flat())
    assert alone.ids.shape == (4, 0) and alone.numbers.shape == (4, 1)
    with pytest.raises(DataError, match="3 tensors"):
        Inputs.of_flat(numbers, direct.flat()[:3])


def test_features_are_grouped_in_their_order() -> None:
    groups = field_order([X, B, TAGS, A, V, PAST])
    assert {key: [one.name for one in group] for key, group in groups.items()} == {
        "category": ["b", "a"], "ragged": ["tags", "past"], "number": ["x"], "vector": ["v"]}


def test_what_cannot_be_read_is_refused() -> None:
    with pytest.raises(DataError, match="no column for b"):
        inputs_of([A, B], {"a": np.zeros(2, np.int32)})
    with pytest.raises(DataError, match="reads no feature"):
        inputs_of([], {"a": np.zeros(2, np.int32)})
    with pytest.raises(RecipeError, match="0 features"):
        FieldTable([], 2)


def test_fields_are_scaled_by_their_share() -> None:
    table = filled(FieldTable([A, X, PAST, TAGS], 2))
    before, number = table.weight.detach().clone(), table.number_weight.detach().clone()
    table.scale_fields({"a": 4.0, "x": 0.0, "tags": 0.0})
    # the root of 4 fields times the whole share; the history in the same rows is not scaled again
    assert torch.allclose(table.weight[:3], before[:3] * 2.0)
    assert torch.allclose(table.number_weight, number * 0.2)
