"""What a model answers to somebody it knows nothing of."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from core_world import checkerboard, quick, split_of
from distilrec.models import MODELS
from distilrec.models.trained import Trained, create
from distilrec.training.finish import finish
from distilrec.training.train import train
from distilrec.types import Histories, Split


@pytest.fixture(scope="module")
def skewed() -> Split:
    """Item i occurs less the larger i is; the order within a user says nothing."""
    rng = np.random.default_rng(0)
    share = 1 / np.arange(1, 31) ** 1.2
    rows = [rng.choice(30, 8, replace=False, p=share / share.sum()).tolist() for _ in range(300)]
    return split_of([(row[:6], row[6:7], row[7:]) for row in rows], 30)


@pytest.mark.req("B3")
@pytest.mark.parametrize("name", list(MODELS))
@pytest.mark.parametrize("bias", [False, True])
def test_an_empty_history_is_answered_by_popularity(name: str, bias: bool, skewed: Split) -> None:
    model, settings = create(name, skewed, {"dim": 16, "bias": bias}, seed=1)
    with torch.no_grad():
        for weight in model.parameters():
            weight.add_(torch.randn(weight.shape, generator=torch.Generator().manual_seed(0)))
    finish(model, skewed)
    scores = Trained("x", model, name, settings, skewed.digest).scores(Histories.of([[]]))[0].astype(float)
    believed, true = np.exp(scores - scores.max()), skewed.train_counts + 0.1
    believed, true = believed / believed.sum(), true / true.sum()
    table, start = model.item_vectors().detach().numpy().astype(float), model.table.start.numpy()
    slope = (believed - true) @ table + 2e-4 * start  # 16 numbers cannot say 30 shares; none can say them better
    assert np.abs(slope).max() < 2e-3
    with_all, settings = create(name, skewed, {"dim": 32, "bias": bias}, seed=1)
    with torch.no_grad():
        with_all.table.weight.normal_(generator=torch.Generator().manual_seed(0))
    finish(with_all, skewed)
    scores = Trained("x", with_all, name, settings, skewed.digest).scores(Histories.of([[]]))[0]
    popular = np.argsort(-skewed.train_counts, kind="stable")
    assert np.array_equal(np.argsort(-scores)[:8], popular[:8]), "with as many numbers as items it is exact"


def test_an_unknown_user_is_answered_nearly_like_a_known_one() -> None:
    split = checkerboard(users=80)
    model = train("mf", split, {"dim": 16}, quick(epochs=40, learning_rate=2e-2))
    queries = split.queries("valid")
    own, strange = split.histories(queries), Histories.of([[]])
    strange = Histories(np.full(len(own), -1, dtype=np.int32), own.items, own.offsets)
    a, b = model.vectors(own), model.vectors(strange)
    cosine = (a * b).sum(1) / np.linalg.norm(a, axis=1) / np.linalg.norm(b, axis=1)
    assert np.median(cosine) > 0.8
    fitted = np.linalg.norm(a - b) / np.linalg.norm(a)
    shuffled = np.linalg.norm(a - b[np.random.default_rng(0).permutation(len(b))]) / np.linalg.norm(a)
    assert fitted < 0.6 * shuffled


def test_the_fold_in_is_the_ridge_regression_of_own_vectors_on_mean_item_vectors() -> None:
    split = split_of([([0, 1], [2], []), ([2], [3], []), ([], [1], []), ([3, 3, 1], [0], []), ([1, 2, 0], [3], [])], 4)
    model = create("mf", split, {"dim": 3}, seed=2)[0]
    table, users = model.item_vectors().detach().numpy().astype(float), model.users.detach().numpy().astype(float)
    finish(model, split)
    means = np.stack([table[[0, 1]].mean(0), table[2], table[[3, 3, 1]].mean(0), table[[1, 2, 0]].mean(0)])
    gram = means.T @ means
    ridge = 1e-3 * np.diag(gram).mean() * np.eye(3)
    expected = np.linalg.solve(gram + ridge, means.T @ users[[0, 1, 3, 4]])
    np.testing.assert_allclose(model.fold_in.numpy(), expected, rtol=1e-3, atol=1e-5)


def test_a_user_without_train_events_is_answered_like_an_empty_history() -> None:
    split = split_of([([0, 1], [2], []), ([], [], [1]), ([2, 3], [0], [])], 4)
    model = train("mf", split, {"dim": 3}, quick(epochs=1))
    known, empty = model.scores(Histories.of([[]], np.array([1]))), model.scores(Histories.of([[]]))
    np.testing.assert_allclose(known, empty, atol=1e-6)
