"""The validation metric during training: ranks by counting, without sorting the catalog.

The rank of an item is one plus the number of unseen items that score higher (ties: smaller id first), so NDCG and
recall need no top-k. tests/training/test_validate.py holds it against evaluation.rank and evaluation.metrics.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from distilrec.errors import RecipeError, TrainingError, nearest, problem
from distilrec.models.histories import pad
from distilrec.training.settings import SELECTION_METRICS
from distilrec.types import Examples, Part, Ranker, Split

__all__ = ["METRICS", "per_user", "parse_metric", "target_ranks", "validate", "validate_ranker"]

METRICS = SELECTION_METRICS
_NEVER = np.iinfo(np.int64).max  # the rank of an item that no list holds


def parse_metric(metric: str) -> tuple[str, int]:
    """("ndcg", 10) of "ndcg@10".

    Raises:
        RecipeError: not a metric that training can validate on.
    """
    name, _, k = metric.partition("@")
    if name not in METRICS or not k.isdecimal() or int(k) < 1:
        raise RecipeError(problem(f"cannot validate on {metric!r}{nearest(name, METRICS)}",
                                  f"name@k, the name one of {', '.join(METRICS)}", "for instance ndcg@10"))
    return name, int(k)


@torch.inference_mode()
def validate(
    model: nn.Module, split: Split, metric: str, *, part: Part = "valid", max_users: int | None = None,
    seen: str = "drop", device: str = "cpu", seed: int = 0,
) -> float:
    """Mean of `ndcg@k`, `recall@k`, `hit_rate@k` or `mrr@k` over the users of a part (or a fixed sample of them).

    Raises:
        RecipeError: another metric; TrainingError: nobody to validate on, or a model that answers with NaN.
    """
    name, k = parse_metric(metric)
    examples = split.queries(part)
    if max_users is not None and len(examples) > max_users:
        rows = np.sort(np.random.default_rng(seed).choice(len(examples), max_users, replace=False))
        examples = examples.take(rows)
    if not len(examples):
        raise TrainingError(problem(f"the {part} part has no events, so no best weights can be chosen",
                                    "at least one user with validation events", "choose a split that keeps some"))
    ranks, offsets = target_ranks(model, split, examples, seen=seen, device=device)
    return float(_metric(name, k, ranks, offsets).mean())


def per_user(
    model: nn.Module, split: Split, metric: str, *, part: Part = "valid", seen: str = "drop", device: str = "cpu"
) -> tuple[np.ndarray, np.ndarray]:
    """(users int32 [Q], the metric of each float64 [Q]) of a part."""
    name, k = parse_metric(metric)
    examples = split.queries(part)
    return examples.users, _metric(name, k, *target_ranks(model, split, examples, seen=seen, device=device))


@torch.inference_mode()
def validate_ranker(
    ranker: Ranker, split: Split, metric: str, *, part: Part = "valid", seen: str = "drop", block: int = 256
) -> float | None:
    """As `validate`, for whatever scores the catalog; None where nobody has events in the part.

    Raises:
        RecipeError: another metric.
    """
    name, k = parse_metric(metric)
    examples = split.queries(part)
    if not len(examples):
        return None
    targets, offsets = _distinct(*split.targets(examples), split.n_items)
    ranks = np.empty(len(targets), dtype=np.int64)
    for begin in range(0, len(examples), block):
        rows = np.arange(begin, min(begin + block, len(examples)))
        histories = split.histories(examples.take(rows))
        scores = torch.as_tensor(ranker.scores(histories))
        if seen == "drop":
            scores[np.repeat(np.arange(len(rows)), histories.lengths), histories.items] = -torch.inf
        slots = slice(offsets[begin], offsets[rows[-1] + 1])
        counts = np.diff(offsets)[rows]
        ranks[slots] = _count(scores, torch.as_tensor(np.repeat(np.arange(len(rows)), counts)),
                              torch.as_tensor(targets[slots]).long()).numpy()
    return float(_metric(name, k, ranks, offsets).mean())


@torch.inference_mode()
def target_ranks(
    model: nn.Module, split: Split, examples: Examples, *, seen: str = "drop", device: str = "cpu", block: int = 256
) -> tuple[np.ndarray, np.ndarray]:
    """(rank of each distinct target among the items not in the user's history, int64 [sum]; offsets int64 [Q + 1]).

    Other targets of the same user count like any item. A target that the history holds gets a rank beyond all lists
    unless `seen` is "keep".
    """
    net: Any = model.eval()
    table = net.item_vectors()
    bias = net.item_bias()
    targets, offsets = _distinct(*split.targets(examples), split.n_items)
    order = np.argsort(examples.history_stop - examples.history_start, kind="stable")
    ranks = np.empty(len(targets), dtype=np.int64)
    for begin in range(0, len(order), block):
        rows = order[begin : begin + block]
        histories = split.histories(examples.take(rows))
        items, lengths = pad(histories, net.max_length, split.n_items)
        vectors = net.last(*(torch.as_tensor(a, device=device) for a in (items, lengths, histories.users)))
        scores = vectors.float() @ table.T.float()
        if not bool(torch.isfinite(scores.sum())):  # every comparison with NaN is false: all ranks would be 1
            raise TrainingError(problem("the model answers histories with NaN or infinite scores",
                                        "finite numbers", "lower learning_rate, or set gradient_clip: 1.0"))
        if bias is not None:
            scores += bias
        if seen == "drop":
            row = torch.as_tensor(np.repeat(np.arange(len(rows)), histories.lengths), device=device)
            scores[row, torch.as_tensor(histories.items, device=device).long()] = -torch.inf
        counts = (offsets[1:] - offsets[:-1])[rows]
        slots = np.concatenate([np.arange(offsets[r], offsets[r + 1]) for r in rows]) if len(rows) else rows
        ranks[slots] = _count(scores, torch.as_tensor(np.repeat(np.arange(len(rows)), counts), device=device),
                              torch.as_tensor(targets[slots], device=device).long()).cpu().numpy()
    return ranks, offsets


def _count(scores: Tensor, rows: Tensor, targets: Tensor) -> Tensor:
    """1 + number of items above each target; equal scores go by smaller id."""
    lines = scores.cpu().numpy()  # numpy counts booleans six times as fast as torch adds them
    return torch.tensor([_rank(lines[row], item) for row, item in zip(rows.tolist(), targets.tolist(), strict=True)],
                        dtype=torch.long)


def _rank(line: np.ndarray, item: int) -> int:
    own = line[item]
    if own == -np.inf:
        return _NEVER
    return int(1 + np.count_nonzero(line > own) + np.count_nonzero(line[:item] == own))


def _distinct(targets: np.ndarray, offsets: np.ndarray, n_items: int) -> tuple[np.ndarray, np.ndarray]:
    """Each target of a query once, as the metrics take them."""
    query = np.repeat(np.arange(len(offsets) - 1, dtype=np.int64), np.diff(offsets))
    once = np.unique(query * n_items + targets)
    counts = np.bincount(once // n_items, minlength=len(offsets) - 1)
    return once % n_items, np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)


def _metric(name: str, k: int, ranks: np.ndarray, offsets: np.ndarray) -> np.ndarray:
    """One value per query from the ranks of its targets."""
    counts = np.diff(offsets)
    query = np.repeat(np.arange(len(counts)), counts)
    hit = ranks <= k
    if name == "ndcg":
        gain = np.bincount(query, weights=np.where(hit, 1 / np.log2(ranks + 1.0), 0), minlength=len(counts))
        ideal = np.concatenate([[0], np.cumsum(1 / np.log2(np.arange(2, k + 2)))])
        return gain / ideal[np.minimum(counts, k)]
    hits = np.bincount(query, weights=hit, minlength=len(counts))
    if name == "recall":
        return hits / counts
    if name == "hit_rate":
        return np.minimum(hits, 1)
    best = np.full(len(counts), _NEVER)
    np.minimum.at(best, query, ranks)
    return np.where(best <= k, 1 / best, 0)
