"""Several teachers of rows as one, each believed as far as it was right about this user and about this item."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from distilrec import numerics
from distilrec.errors import DataError, nearest, problem
from distilrec.files import digest_json
from distilrec.types_rows import Head, Predictor, RowSplit

__all__ = ["SHARPNESS", "Competence", "LocalEnsemble", "measure", "shrunken"]

SHARPNESS = (0.0, 0.5, 1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0)  # tried on validation rows; 0 is equal weights
_LEVELS = 4  # of users and of items, by their number of train rows; those without any are a level of their own
_BLOCK = 65_536  # rows whose weights are worked out together, for the report


@dataclass(frozen=True)
class Competence:
    """What each of M members is expected to lose on a row of one head, relative to the members' mean.

    overall: [M]. of: for each axis (users, items) a table [K, M] of what a key adds to that.
    sharpness: how much a difference counts; 0 makes all weights equal.
    """

    overall: np.ndarray
    of: tuple[np.ndarray, ...]
    sharpness: float

    def weights(self, keys: Sequence[np.ndarray]) -> np.ndarray:
        """float64 [n, M], at least 0, each row summing to 1, for one array of keys [n] an axis: the softmax over
        members of -sharpness * (overall + what each key adds)."""
        expected = self.overall[None, :] + sum(table[key] for table, key in zip(self.of, keys, strict=True))
        away = -self.sharpness * expected
        shares = np.exp(away - away.max(1, keepdims=True))
        return shares / shares.sum(1, keepdims=True)


def shrunken(values: np.ndarray, keys: np.ndarray, size: int) -> np.ndarray:
    """float64 [size, M]: the mean of `values` [n, M] over the rows of each key, shrunken towards 0.

    A key with c rows keeps c / (c + s² / t²) of its mean: s² is the variance within keys, t² that between them, both
    summed over the members and estimated from these very rows (empirical Bayes). Where keys differ no more than
    chance would have it, or where no key has a second row to tell, nothing is kept; without a row it is 0.

    Source: the credibility of Bühlmann, "Experience rating and credibility", ASTIN Bulletin, 1967, with the estimates
    for unequal counts of Bühlmann & Straub, 1970.
    """
    n, counts = len(keys), np.bincount(keys, minlength=size)
    sums = np.stack([np.bincount(keys, column, minlength=size) for column in values.T], axis=1)
    means = sums / np.maximum(counts, 1)[:, None]
    held = int(np.count_nonzero(counts))
    if held < 2 or held == n:
        return np.zeros_like(means)
    within = float(((values - means[keys]) ** 2).sum()) / (n - held)
    apart = float((counts[:, None] * (means - values.mean(0)) ** 2).sum()) - (held - 1) * within
    between = max(0.0, apart / (n - float((counts.astype(float) ** 2).sum()) / n))
    if between == 0:
        return np.zeros_like(means)
    kept = counts * between / np.maximum(counts * between + within, np.finfo(float).tiny)
    return kept[:, None] * means


def measure(
    losses: np.ndarray, keys: Sequence[np.ndarray], levels: Sequence[np.ndarray]
) -> tuple[np.ndarray, tuple[np.ndarray, ...]]:
    """(overall [M], a table [K, M] for each axis) from losses [n, M] on rows with these keys (one [n] an axis).

    A row's loss counts by how far it is from the members' mean on that row, in units of the mean loss: that a user is
    hard for all says nothing of any. What is left of it without the overall mean is told by the key's level
    (`levels`, one [K] an axis: keys with about as many train rows), and what that leaves by the key itself, both
    shrunken; items explain what users leave. A key without a row has what its level has, and nothing where the level
    has no row either: there the weights are the overall ones.
    """
    relative = (losses - losses.mean(1, keepdims=True)) / max(float(losses.mean()), 1e-12)
    overall = relative.mean(0)
    left, tables = relative - overall, []
    for key, level in zip(keys, levels, strict=True):
        by_level = shrunken(left, level[key], int(level.max(initial=0)) + 1)
        table = by_level[level] + shrunken(left - by_level[level[key]], key, len(level))
        tables.append(table)
        left = left - table[key]
    return overall, tuple(tables)


class LocalEnsemble:
    """The mean of its members' logits (values, for number heads) with weights of each row's own.

    The weights of a row follow the members' losses (log loss; squared error) on the rows of its user and of its item,
    shrunken (`measure`, `shrunken`); a head has weights of its own, the classes of tags share them. How much a
    difference in loss counts is chosen among SHARPNESS: weights measured on one half of the rows mix the answers to
    the other half, and the other way around; taken is the smallest whose loss is within a standard error of the best
    (Breiman et al., "Classification and Regression Trees", 1984), so members that cannot be told apart weigh the same.

    Measured on validation rows, as `learn_weights` does: no member was trained on them, and the store holds answers to
    train rows alone, so no soft label is weighed by its own label. (Out-of-fold answers to train rows would be more,
    but each row's weight would have seen its label. With `knowledge.folds` the copies of a fold are measured
    themselves.) Members stop early by the same rows, and what is chosen by validation afterwards has a teacher that saw
    them. Test rows are not read.

    Args:
        split: with a validation part; whatever is asked later has its users and items.
        item: a category feature whose values are the items; None: weights by user (the split's groups) alone. All
            values outside its vocabulary are one item.
    Raises:
        DataError: no members, neither groups nor an item, an item that is no category feature, or a head without a
            validation label.

    Source: the idea that the classifier that errs least near an example should decide it: Woods, Kegelmeyer & Bowyer,
    "Combination of Multiple Classifiers Using Local Accuracy Estimates", IEEE TPAMI, 1997; weighing instead of
    selecting: dynamic weighting in Cruz, Sabourin & Cavalcanti, "Dynamic classifier selection", Information Fusion,
    2018. "Near" is the same user or item here, weights exponential in the loss as for experts (Vovk, COLT 1990).
    The combination of these parts is this library's own.
    """

    def __init__(
        self, members: Sequence[Predictor], split: RowSplit, *, item: str | None = None, name: str = "ensemble"
    ) -> None:
        self.name, self.members, self.split, self.item = name, list(members), split, item
        if not self.members:
            raise DataError(problem("an ensemble without members", "at least one teacher"))
        if item is None and split.groups is None:
            raise DataError(problem("weights by user and item without either", "a `group`, or the feature of items",
                                    "set group, or knowledge.item"))
        if item is not None and (item not in split.features or split.features[item].kind != "category"):
            known = [name for name, one in split.features.items() if one.kind == "category"]
            raise DataError(problem(f"items: {item!r} is no category feature{nearest(item, known)}", ", ".join(known)))
        labels = split.rows("valid")
        for head in split.heads:
            if np.isnan(split.labels[head.name][labels]).all():
                raise DataError(problem(f"no validation row has a label of {head.name!r}",
                                        "labels to measure members by", "leave the weights out for equal ones"))

    def predict(self, split: RowSplit, rows: np.ndarray) -> np.ndarray:
        """float32 [n, O]. Raises DataError for users or items that the measured split does not number."""
        keys = self._keys(split, rows)
        total = np.zeros((len(rows), split.outputs.size))
        shares = {head.name: self.competence[head.name].weights(keys) for head in split.heads}
        for place, member in enumerate(self.members):
            answers = member.predict(split, rows)
            for head in split.heads:
                columns = split.outputs.slices[head.name]
                total[:, columns] += shares[head.name][:, place, None] * answers[:, columns]
        return total.astype(np.float32)

    @property
    def parameters(self) -> int:
        """Those of the members, and the tables of weights."""
        tables = len(self.members) * (1 + sum(self._sizes)) + 1
        return sum(member.parameters for member in self.members) + len(self.split.heads) * tables

    @property
    def digest(self) -> str:
        """Of what the weights are worked out from; empty, which is no digest, where a member has none."""
        digests = [getattr(member, "digest", "") for member in self.members]
        return digest_json(["local", digests, self.item, self.split.digest, SHARPNESS]) if all(digests) else ""

    @cached_property
    def competence(self) -> dict[str, Competence]:
        """By head, measured when it is first asked for."""
        rows = self.split.rows("valid")
        answers = np.stack([member.predict(self.split, rows) for member in self.members]).astype(np.float64)
        labels = self.split.label_matrix(rows).astype(np.float64)
        keys, levels = self._keys(self.split, rows), self._levels()
        out = {}
        for head in self.split.heads:
            columns = self.split.outputs.slices[head.name]
            known = ~np.isnan(labels[:, columns]).all(1)
            of_head = [key[known] for key in keys]
            out[head.name] = _competence(head, answers[:, known, columns], labels[known, columns], of_head, levels)
        return out

    def facts(self) -> dict[str, Any]:
        """For the report: the share of train rows whose user, and whose item, was measured; by head the sharpness, and
        each member's mean weight over train rows with the lowest and the highest mean of a user, and of an item."""
        names = ["users"] * (self.split.groups is not None) + ["items"] * (self.item is not None)
        rows = self.split.rows("train")
        keys, valid = self._keys(self.split, rows), self._keys(self.split, self.split.rows("valid"))
        measured = {name: round(float(np.isin(key, seen).mean()), 4)
                    for name, key, seen in zip(names, keys, valid, strict=True)}
        heads = {}
        for head, found in self.competence.items():
            means = _means(found, keys, self._sizes)
            heads[head] = {"sharpness": found.sharpness, "members": [
                {"member": member.name, "mean": round(float(means[0][0, m]), 4),
                 **{name: [round(float(of[:, m].min()), 4), round(float(of[:, m].max()), 4)]
                    for name, of in zip(names, means[1:], strict=True)}} for m, member in enumerate(self.members)]}
        return {"weights": "agreement", "item": self.item, "rows_measured": measured, "heads": heads}

    @cached_property
    def _sizes(self) -> list[int]:
        """How many keys each axis has: users, then items."""
        users = [] if self.split.groups is None else [int(self.split.groups.max(initial=0)) + 1]
        return users if self.item is None else [*users, self.split.features[self.item].size]

    def _keys(self, split: RowSplit, rows: np.ndarray) -> list[np.ndarray]:
        """int64 [n] for each axis."""
        if self.split.groups is not None and split.groups is None:
            raise DataError(problem("rows without groups for weights by user", "the table that they were measured on"))
        columns = [] if self.split.groups is None else [split.groups]
        columns += [] if self.item is None else [split.columns[self.item]]
        keys = [np.asarray(column)[rows].astype(np.int64) for column in columns]
        for key, size in zip(keys, self._sizes, strict=True):
            if len(key) and not 0 <= key.min() <= key.max() < size:
                raise DataError(problem(f"users or items numbered {key.min()} to {key.max()}",
                                        f"0 to {size - 1}, as in the table that weights were measured on",
                                        "measure them on this table"))
        return keys

    def _levels(self) -> list[np.ndarray]:
        """int64 [K] for each axis: 0 without a train row, else 1 (the most of them) to _LEVELS."""
        out = []
        for key, size in zip(self._keys(self.split, self.split.rows("train")), self._sizes, strict=True):
            counts = np.bincount(key, minlength=size)
            out.append(np.where(counts > 0, 1 + numerics.popularity_groups(counts, _LEVELS), 0))
        return out


def _competence(
    head: Head, answers: np.ndarray, labels: np.ndarray, keys: Sequence[np.ndarray], levels: Sequence[np.ndarray]
) -> Competence:
    """Of one head, from answers [M, n, C] and labels [n, C] with at least one in each row."""
    losses = _losses(head, answers, labels).T
    n = len(losses)
    chosen = 0.0
    if n > 1:
        half, after = np.zeros(n, dtype=bool), np.empty((len(SHARPNESS), n))
        half[np.random.default_rng(0).permutation(n)[: n // 2]] = True
        for fit in (half, ~half):
            rough = measure(losses[fit], [key[fit] for key in keys], levels)
            for place, sharpness in enumerate(SHARPNESS):
                shares = Competence(*rough, sharpness).weights([key[~fit] for key in keys])
                after[place, ~fit] = _losses(head, np.einsum("nm,mnc->nc", shares, answers[:, ~fit]), labels[~fit])
        more = after - after[after.mean(1).argmin()]
        error = more.std(1) / np.sqrt(n)
        chosen = SHARPNESS[int((more.mean(1) <= error + 1e-12).argmax())]
    return Competence(*measure(losses, keys, levels), chosen)


def _means(found: Competence, keys: Sequence[np.ndarray], sizes: Sequence[int]) -> list[np.ndarray]:
    """Mean weights [.., M]: of all rows with these keys, then for each axis of the rows of each key that has any."""
    axes = [np.zeros(len(keys[0]), dtype=np.int64), *keys]
    counts = [np.bincount(axis, minlength=size) for axis, size in zip(axes, [1, *sizes], strict=True)]
    sums = [np.zeros((len(count), len(found.overall))) for count in counts]
    for start in range(0, len(keys[0]), _BLOCK):
        block = slice(start, start + _BLOCK)
        shares = found.weights([key[block] for key in keys])
        for total, axis in zip(sums, axes, strict=True):
            np.add.at(total, axis[block], shares)
    return [total[count > 0] / count[count > 0, None] for total, count in zip(sums, counts, strict=True)]


def _losses(head: Head, answers: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """[..., n] of answers [..., n, C]: log loss, or squared error, averaged over the labels [n, C] that are known."""
    known = ~np.isnan(labels)
    target = np.where(known, labels, 0)
    each = (answers - target) ** 2 if head.kind == "number" else np.logaddexp(0, answers) - target * answers
    return np.where(known, each, 0).sum(-1) / known.sum(-1)
