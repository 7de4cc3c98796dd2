"""From a split to training batches: flat arrays, vectorized gathers, sequences of like length together."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from distilrec.training.settings import Augment
from distilrec.types import Examples, Split

__all__ = ["Batch", "epoch_batches", "training_examples"]


@dataclass(frozen=True, eq=False)
class Batch:
    """B sequences, padded on the right to the longest of them, and the T decisions taken along them."""

    items: np.ndarray  # int64 [B, L], pad = n_items, mask token = n_items + 1
    lengths: np.ndarray  # int64 [B]
    users: np.ndarray  # int64 [B]
    positions: np.ndarray  # int64 [T], into the flattened B * L
    targets: np.ndarray  # int64 [T]
    keys: np.ndarray  # int64 [T], of the knowledge: the target event's position in the flat array, or an open decision
    labeled: np.ndarray  # bool [T], False: only soft labels here (what follows the last train event)
    soft: np.ndarray  # bool [T], False: the history was altered, knowledge does not apply


    def soft_only(self) -> Batch:
        """Without the decisions that a teacher says nothing of."""
        kept = self.soft
        return Batch(self.items, self.lengths, self.users, self.positions[kept], self.targets[kept], self.keys[kept],
                     self.labeled[kept], kept[kept])


def training_examples(
    split: Split, max_length: int, *, needs_history: bool = True, windows: str = "last", open_end: bool = False
) -> Examples:
    """One example per training sequence.

    A sequence model predicts every event of a slice from the ones before it, a model without history (matrix
    factorization) every event of the user. `windows="all"` cuts histories that are longer than the model's into
    slices that share no target, from the end backwards, so that a user's latest events always stand in a full slice.
    `open_end` adds the decision after the last train event: it has no label in training, but a teacher has an
    opinion about it, and it is the state in which the student will be asked.
    """
    start, stop = split.bounds[:, 0], split.bounds[:, 1]
    users = np.flatnonzero(stop - start >= (2 if needs_history and not open_end else 1))
    first, last = start[users], stop[users]
    if not needs_history:
        return Examples(users.astype(np.int32), first, last, first, last)
    steps = last - first - (0 if open_end else 1)  # decisions of this user
    pieces = np.ones(len(users), dtype=np.int64) if windows == "last" else -(-steps // max_length)
    rows = np.repeat(np.arange(len(users)), pieces)
    back = np.arange(len(rows)) - np.repeat(np.cumsum(pieces) - pieces, pieces)  # 0 = the latest window
    target_stop = last[rows] + (1 if open_end else 0) - back * max_length
    history_start = np.maximum(first[rows], target_stop - 1 - max_length)
    return Examples(
        users[rows].astype(np.int32), history_start, target_stop - 1, history_start + 1, target_stop
    )


def epoch_batches(
    split: Split, examples: Examples, batch_size: int, rng: np.random.Generator, *,
    augment: Augment = Augment(), needs_history: bool = True, mask_share: float | None = None,
) -> Iterator[Batch]:
    """Shuffled batches of one epoch. `mask_share`: of a model that fills gaps (see `_with_gaps`).

    Rows are shuffled, then sorted by length within chunks of 64 batches, and the batches are shuffled again: the
    order stays random while hardly any padding is left (tests/training/test_batches.py holds a bound). A model without
    history has no padding to save, and sorting would harm it: a step takes the mean over the labels of its batch, so a
    label in a batch of short users would weigh many times one of a long user (CiteULike: Recall@50 .16 against .22).
    """
    order = rng.permutation(len(examples))
    if not needs_history:
        for begin in range(0, len(order), batch_size):
            yield assemble(split, examples.take(order[begin : begin + batch_size]), rng, needs_history=False)
        return
    lengths = (examples.target_stop - examples.target_start)[order]
    chunk = 64 * batch_size
    batches: list[np.ndarray] = []
    for begin in range(0, len(order), chunk):
        part = order[begin : begin + chunk]
        part = part[np.argsort(lengths[begin : begin + chunk], kind="stable")]
        batches += [part[i : i + batch_size] for i in range(0, len(part), batch_size)]
    for index in rng.permutation(len(batches)):
        yield assemble(split, examples.take(batches[index]), rng, augment=augment, needs_history=needs_history,
                       mask_share=mask_share)


def assemble(
    split: Split, examples: Examples, rng: np.random.Generator, *, augment: Augment = Augment(),
    needs_history: bool = True, mask_share: float | None = None,
) -> Batch:
    """Gather the rows of `examples` into one padded batch."""
    if not needs_history:
        return _without_history(split, examples)
    if mask_share is not None:
        return _with_gaps(split, examples, rng, mask_share)
    start = examples.history_start
    size = examples.target_stop - examples.target_start
    if augment.crop > 0:
        start, size = _crop(start, size, rng, augment.crop)
    width = int(size.max())
    column = np.arange(width)
    valid = column < size[:, None]
    source = np.where(valid, start[:, None] + column, 0)
    items = np.where(valid, split.items[source], split.n_items).astype(np.int64)
    positions = np.flatnonzero(valid.ravel())
    keys = (source + 1).ravel()[positions]
    users = np.repeat(examples.users.astype(np.int64), size)
    # A target beyond the user's last train event belongs to validation: its item must not be read. Such a decision
    # has a key of its own, after those of all events (see knowledge.extract.open_key).
    labeled = keys < split.bounds[users, 1]
    keys = np.where(labeled, keys, len(split.items) + users)
    targets = np.where(labeled, split.items[np.where(labeled, keys, 0)], 0).astype(np.int64)
    soft = np.ones(len(size), dtype=bool)
    if augment.mask > 0 or augment.reorder > 0:
        grid = np.zeros(items.shape, dtype=np.int64)
        grid[valid] = targets
        items, grid, soft = _distort(items, grid, size, rng, augment, split.n_items)
        targets = grid[valid]
    return Batch(items, size, examples.users.astype(np.int64), positions, targets, keys, labeled, np.repeat(soft, size))


def _with_gaps(split: Split, examples: Examples, rng: np.random.Generator, share: float) -> Batch:
    """Of each sequence the last event and a random `share` of the others are masked and are the targets.

    A sequence that ends with the open decision stands in the batch a second time, with nothing masked and a mask behind
    it: there, and only there, the history is the one that the teacher was asked about.
    """
    train_end = split.bounds[examples.users, 1]
    opened = np.flatnonzero(examples.target_stop > train_end)  # the event there is of validation and never read
    start, size = examples.history_start, np.minimum(examples.target_stop, train_end) - examples.history_start
    rows = np.concatenate([np.arange(len(size)), opened])
    lengths = size[rows] + (np.arange(len(rows)) >= len(size))
    column = np.arange(int(lengths.max()))
    valid = column < size[rows][:, None]
    source = np.where(valid, start[rows][:, None] + column, 0)
    items = np.where(valid, split.items[source], split.n_items).astype(np.int64)
    first = slice(0, len(size))  # the rows with gaps
    gaps = np.zeros(items.shape, dtype=bool)
    gaps[first] = valid[first] & (rng.random(items[first].shape) < share)
    gaps[np.arange(len(rows)), lengths - 1] = True
    users = examples.users[rows].astype(np.int64)
    positions = np.flatnonzero(gaps.ravel())
    owner = positions // len(column)
    labeled = owner < len(size)
    keys = np.where(labeled, source.ravel()[positions], len(split.items) + users[owner])
    targets = np.where(labeled, items.ravel()[positions], 0)
    items[gaps] = split.n_items + 1
    return Batch(items, lengths, users, positions, targets, keys, labeled, ~labeled)


def _without_history(split: Split, examples: Examples) -> Batch:
    """Every train event of a user is a target. Such a model answers a user from all that he did, so the knowledge
    that fits is the decision after the last train event, whichever event is the label."""
    size = examples.target_stop - examples.target_start
    width = int(size.max())
    valid = np.arange(width) < size[:, None]
    keys = (np.where(valid, examples.target_start[:, None] + np.arange(width), 0)).ravel()
    positions = np.flatnonzero(valid.ravel())
    targets = split.items[keys[positions]].astype(np.int64)
    keys = len(split.items) + np.repeat(examples.users.astype(np.int64), size)
    items = np.full(valid.shape, split.n_items, dtype=np.int64)
    items.ravel()[positions] = targets
    # one opinion per user is heard once, not once per label
    first = np.zeros(len(keys), dtype=bool)
    first[np.cumsum(size) - size] = True
    labeled = np.ones(len(keys), dtype=bool)
    return Batch(items, size, examples.users.astype(np.int64), positions, targets, keys, labeled, first)


def _crop(
    start: np.ndarray, size: np.ndarray, rng: np.random.Generator, share: float
) -> tuple[np.ndarray, np.ndarray]:
    """A random contiguous part, at least half as long, of some of the sequences."""
    chosen = (rng.random(len(size)) < share) & (size >= 4)
    kept = np.where(chosen, (size * rng.uniform(0.5, 1.0, len(size))).astype(np.int64), size)
    shift = (rng.random(len(size)) * (size - kept + 1)).astype(np.int64)
    return start + np.where(chosen, shift, 0), kept


def _distort(
    items: np.ndarray, targets: np.ndarray, size: np.ndarray, rng: np.random.Generator, augment: Augment, n_items: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Shuffle a third of some sequences, mask a fifth of the items of some: (items [B, L], targets [B, L], soft [B]).

    The targets of a shuffled sequence follow its new order, or an item would have to be predicted that stands before.
    The first item stays: it is no target, and may be one in another window.
    """
    column = np.arange(items.shape[1])
    valid = column < size[:, None]
    mixed = (rng.random(len(size)) < augment.reorder) & (size >= 3)
    span = np.maximum(2, size // 3)
    begin = 1 + (rng.random(len(size)) * (size - span)).astype(np.int64)
    inside = mixed[:, None] & (column >= begin[:, None]) & (column < (begin + span)[:, None])
    place = begin[:, None] + rng.random(items.shape) * span[:, None]
    order = np.argsort(np.where(inside, place, column), kind="stable")
    items = np.take_along_axis(items, order, axis=1)
    targets = targets.copy()
    follows = mixed[:, None] & (column[:-1] < (size - 1)[:, None])
    targets[:, :-1][follows] = items[:, 1:][follows]
    masked = rng.random(len(size)) < augment.mask
    hit = masked[:, None] & valid & (rng.random(items.shape) < 0.2)
    items[hit] = n_items + 1
    return items, targets, ~(hit.any(axis=1) | mixed)
