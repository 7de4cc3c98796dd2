"""From scores to lists: full-catalog ranking in bounded memory, with ties that always break the same way.

The order of a list is score descending, then smaller item id (see `numerics.top_k`).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

import numpy as np

from distilrec.errors import DataError, problem
from distilrec.numerics import block_rows, top_k
from distilrec.types import Examples, Histories, Lister, Part, Ranker, Recommendations, Split

__all__ = ["Candidates", "Seen", "recommend", "recommend_bundle", "sample_candidates"]

Candidates = Literal["full"] | Mapping[Literal["sampled"], int]
Seen = Literal["drop", "keep"]


def recommend(
    ranker: Ranker,
    split: Split,
    part: Part,
    k: int,
    *,
    seen: Seen = "drop",
    candidates: Candidates = "full",
    seed: int = 0,
    memory_mb: float = 64,
) -> Recommendations:
    """The k best items for each query of `split.queries(part)`, in batches of at most `memory_mb` MB of scores.

    seen: "drop" takes the items of the query's own history out of its list; a target that repeats an item of
        the history can then not be hit. "keep" leaves them in.
    candidates: "full", or {"sampled": n}: the targets and n sampled items that are neither targets nor in the
        history, the same for every ranker (they depend on `seed` and the user alone).
    memory_mb: bound on one batch of scores (float32 [B, I]); what the ranker itself uses comes on top. More is not
        faster: large arrays are given back to the system and cleared anew for every batch.

    Raises DataError for NaN scores, scores of a wrong shape, or options that do not exist.
    """
    n_sampled = _check_options(seen, candidates, memory_mb)
    queries = split.queries(part)
    step = max(1, int(memory_mb * 2**20 / (4 * max(1, split.n_items))))
    items = np.full((len(queries), k), -1, dtype=np.int32)
    best = np.full((len(queries), k), -np.inf, dtype=np.float32)
    for start in range(0, len(queries), step):
        batch = queries.take(np.arange(start, min(start + step, len(queries))))
        histories = split.histories(batch)
        scores = ranker.scores(histories)
        if scores.shape != (len(batch), split.n_items):
            raise DataError(problem(
                f"{ranker.name} gave scores of shape {scores.shape}",
                f"({len(batch)}, {split.n_items}): one row per history, one column per item",
                "check that the ranker was made for this data set",
            ))
        chosen = sample_candidates(split, batch, n_sampled, seed) if n_sampled else None
        masked = histories if seen == "drop" else None
        out = slice(start, start + len(batch))
        _rank_batch(scores, masked, chosen, items[out], best[out])
    return Recommendations(queries.users, items, best)


def _rank_batch(
    scores: np.ndarray, masked: Histories | None, chosen: np.ndarray | None, items: np.ndarray, best: np.ndarray
) -> None:
    """Mask and rank in blocks that are copies, so that an array which the ranker keeps is never written to."""
    step = block_rows(scores.shape[1])
    for start in range(0, len(scores), step):
        block = np.array(scores[start:start + step], dtype=np.float32)
        if masked is not None:
            first, last = masked.offsets[start], masked.offsets[min(start + step, len(scores))]
            lengths = masked.lengths[start:start + step]
            block[np.repeat(np.arange(len(block)), lengths), masked.items[first:last]] = -np.inf
        out = slice(start, start + len(block))
        if chosen is None:
            items[out], best[out] = top_k(block, items.shape[1])
            continue
        candidates = chosen[out]  # rising ids, so that ties among columns are ties among ids
        few = np.take_along_axis(block, np.maximum(candidates, 0), axis=1)
        few[candidates < 0] = -np.inf
        columns, best[out] = top_k(few, items.shape[1])
        items[out] = np.where(columns < 0, -1, np.take_along_axis(candidates, np.maximum(columns, 0), axis=1))


def sample_candidates(split: Split, queries: Examples, n: int, seed: int) -> np.ndarray:
    """int32 [Q, C], rising ids, padded with -1: each query's targets and n sampled items it never met.

    Uniform without replacement over the items that are neither in the history nor among the targets; a user with
    fewer than n such items gets all of them. Drawn per (seed, user), whatever the batch and the ranker.
    """
    targets, offsets = split.targets(queries)
    rows: list[np.ndarray] = []
    for q in range(len(queries)):
        own = np.unique(targets[offsets[q]:offsets[q + 1]])
        history = split.items[queries.history_start[q]:queries.history_stop[q]]
        known = np.unique(np.concatenate([own, history]))
        free = split.n_items - len(known)
        draw = np.random.default_rng((seed, int(queries.users[q]))).choice(free, min(n, free), replace=False)
        # the d-th free id: skip every known id at or below it
        drawn = draw + np.searchsorted(known - np.arange(len(known)), draw, side="right")
        rows.append(np.sort(np.concatenate([own, drawn])))
    table = np.full((len(rows), max(map(len, rows), default=0)), -1, dtype=np.int32)
    for q, row in enumerate(rows):
        table[q, :len(row)] = row
    return table


def recommend_bundle(
    bundle: Lister, split: Split, part: Part, k: int, *, seen: Seen = "drop", batch_size: int = 256
) -> Recommendations:
    """Like `recommend`, but asks the exported bundle, which is what is served, or what answers like one. Full catalog
    only."""
    _check_options(seen, "full", 1)
    queries = split.queries(part)
    nothing = np.empty(0, dtype=np.int32)
    parts: list[Recommendations] = []
    for start in range(0, len(queries), batch_size):
        histories = split.histories(queries.take(np.arange(start, min(start + batch_size, len(queries)))))
        none = Histories(histories.users, nothing, np.zeros(len(histories) + 1, dtype=np.int64))
        parts.append(bundle.recommend_ids(histories, histories if seen == "drop" else none, k))
    if not parts:
        return Recommendations(queries.users, np.empty((0, k), np.int32), np.empty((0, k), np.float32))
    return Recommendations(
        queries.users, np.concatenate([p.items for p in parts]), np.concatenate([p.scores for p in parts])
    )


def _check_options(seen: str, candidates: Candidates, memory_mb: float) -> int:
    """The number of sampled candidates, 0 for the full catalog."""
    if seen not in ("drop", "keep"):
        raise DataError(problem(f"seen: {seen!r}", "'drop' or 'keep'"))
    if memory_mb <= 0:
        raise DataError(problem(f"memory_mb: {memory_mb}", "a number above 0", "64 is the default"))
    if candidates == "full":
        return 0
    if isinstance(candidates, Mapping) and set(candidates) == {"sampled"}:
        n = candidates["sampled"]
        if isinstance(n, int) and not isinstance(n, bool) and n > 0:
            return n
    raise DataError(problem(f"candidates: {candidates!r}", "'full' or {'sampled': n} with n >= 1"))
