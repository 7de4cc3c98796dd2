"""A trained pointwise model: its answers in blocks, what it refuses, what its digest covers, what it writes."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

import rows_world
from distilrec.errors import DataError, KnowledgeError, RecipeError
from distilrec.models import predictor
from distilrec.models.predictor import TrainedRows, create_rows, features_read
from distilrec.types_rows import Head, RowSplit


@pytest.fixture
def split() -> RowSplit:
    return rows_world.table(100)


@pytest.fixture
def trained(split: RowSplit) -> TrainedRows:
    names = ["price", "item", "past"]
    net, settings = create_rows("mlp", split, {"hidden": [6], "dim": 3}, names)
    return TrainedRows("small", net, "mlp", settings, features_read(split, names), split.heads, split.digest)


def test_settings_are_complete_and_features_in_the_order_of_the_split(trained: TrainedRows) -> None:
    assert trained.settings == {"dim": 3, "hidden": [6], "dropout": 0.0, "embedding_dropout": 0.0, "batch_norm": False}
    assert [one.name for one in trained.features] == ["item", "price", "past"]
    assert trained.parameters == 9 * 3 + 3 + (9 * 6 + 6) + 6 * 5 + 5


def test_blocks_do_not_change_an_answer(
    split: RowSplit, trained: TrainedRows, monkeypatch: pytest.MonkeyPatch,
) -> None:
    rows = np.array([5, 99, 3, 3, 41, 0, 7])
    whole, hidden = trained.predict(split, rows), trained.hidden(split, rows)
    monkeypatch.setattr(predictor, "BLOCK", 3)
    np.testing.assert_allclose(trained.predict(split, rows), whole, atol=1e-6)
    np.testing.assert_allclose(trained.hidden(split, rows), hidden, atol=1e-6)
    assert hidden.shape == (7, 6) and trained.hidden(split, rows[:0]).shape == (0, 6)


def test_answers_are_coupled_before_the_shift(split: RowSplit, trained: TrainedRows) -> None:
    rows = np.arange(20)
    hidden = torch.as_tensor(trained.hidden(split, rows))
    with torch.no_grad():
        raw = (trained.model.output(hidden) + trained.model.output_bias).double().numpy()
    click, buy = 1 / (1 + np.exp(-raw[:, 0])), 1 / (1 + np.exp(-raw[:, 1]))
    expected = raw.copy()
    expected[:, 1] = np.log(click * buy / (1 - click * buy))
    shift = np.array([0.5, -1, 0, 2, 0.25], np.float32)
    np.testing.assert_allclose(replace(trained, shift=shift).predict(split, rows), expected + shift, atol=1e-5)


def test_a_table_of_other_features_or_heads_is_refused(split: RowSplit, trained: TrainedRows) -> None:
    odd = {**split.features, "price": replace(split.features["price"], mean=11.0)}
    with pytest.raises(DataError, match="price: missing in this table, or fitted on other rows"):
        trained.predict(replace(split, features=odd), np.arange(2))
    with pytest.raises(DataError, match="the table has the heads click"):
        trained.hidden(rows_world.table(100, heads=(Head("click"),)), np.arange(2))


def test_a_digest_covers_weights_shift_and_features(split: RowSplit, trained: TrainedRows) -> None:
    first = trained.digest
    assert replace(trained, shift=np.full(5, 0.1, np.float32)).digest != first
    assert replace(trained, features=trained.features[:2]).digest != first
    with torch.no_grad():
        trained.model.output_bias[2] += 1e-3
    assert trained.digest != first


def test_a_changed_file_is_refused_and_nothing_is_pickled(
    split: RowSplit, trained: TrainedRows, tmp_path: Path,
) -> None:
    trained.save(tmp_path / "one")
    assert sorted(one.name for one in (tmp_path / "one").iterdir()) == ["model.json", "model.safetensors"]
    assert json.loads((tmp_path / "one" / "model.json").read_text())["parameters"] == trained.parameters
    assert TrainedRows.load(tmp_path / "one").digest == trained.digest
    weights = tmp_path / "one" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"\x01")
    with pytest.raises(KnowledgeError, match="has changed"):
        TrainedRows.load(tmp_path / "one", split)


def test_a_shift_of_the_wrong_size_is_refused(trained: TrainedRows) -> None:
    for shift in (np.zeros(4), np.array([0, 0, 0, 0, np.nan])):
        with pytest.raises(DataError):
            replace(trained, shift=shift)


def test_a_model_must_read_something(split: RowSplit) -> None:
    assert features_read(split) == tuple(split.features.values())
    with pytest.raises(RecipeError, match="reads no feature"):
        features_read(split, [])
