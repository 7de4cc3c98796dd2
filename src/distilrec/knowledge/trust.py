"""Which knowledge to believe: a weight in [0, 1] for each decision, from the teacher and the train labels alone.

A rule is a function (store, split) -> float32 [N] in the order of the store's response keys; several are multiplied.
`Trusted` hands a store on with these weights, and with a temperature of each decision's own where that is asked for.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from distilrec.errors import KnowledgeError, RecipeError, nearest, problem
from distilrec.files import digest_arrays
from distilrec.knowledge.store import KnowledgeStore
from distilrec.types import Signal, Split

__all__ = ["RULES", "Trusted", "agreement", "confidence", "label_gate", "own_temperature"]

_GATE = 20  # of a list: how far down the true item may stand
_BLOCK = 16_384  # decisions looked at together


def confidence(store: KnowledgeStore, split: Split) -> np.ndarray:
    """1 - H(p) / log K, p the teacher's distribution over what it kept: 0 where it is indifferent, 1 where it is sure.

    Source: weights by the teacher's entropy as in Kwon et al., "Adaptive Knowledge Distillation Based on Entropy",
    ICASSP 2020.
    """
    del split
    _, logits, _ = _response(store)
    out = np.empty(len(logits), dtype=np.float32)
    for rows in _blocks(len(out)):
        log_p = _log_softmax(logits[rows].astype(np.float32))
        entropy = -(np.exp(log_p) * np.where(log_p > -60, log_p, 0)).sum(1)
        out[rows] = 1 - entropy / np.log(max(2, logits.shape[1]))
    return out.clip(0, 1)


def agreement(store: KnowledgeStore, split: Split) -> np.ndarray:
    """How well the teacher's list agrees with what the user did, against what the list of a stranger would.

    Of a decision with a label: 1 / log2(1 + rank of the true item), 0 outside the list. Of a decision without one, and
    of knowledge by user: the mean of 1 where a train item of the user stands in the list, among as many as could
    stand there. From this the same of the next user's list is taken off, and the rest is scaled to its 95th percentile.

    Source: the consistency of teacher and data as a weight: Cui et al., "Distillation Matters", RecSys 2024, whose
    weight for consistency compares teacher and student instead.
    """
    keys, _, ids = _response(store)
    users = _users_of(keys, store, split)
    labeled = _labeled(keys, store, split)
    own, foreign = np.zeros(len(keys), dtype=np.float32), np.zeros(len(keys), dtype=np.float32)
    ranks = _ranks(keys, ids, labeled, split)
    own[labeled] = np.where(ranks[labeled] > 0, 1 / np.log2(1 + np.maximum(ranks[labeled], 1)), 0)
    rest = np.flatnonzero(~labeled)
    own[rest] = _held(ids, rest, users[rest], split)
    other = np.roll(rest, 1)
    foreign[rest] = _held(ids, other, users[rest], split)
    gain = own - (foreign[rest].mean() if len(rest) else 0) * ~labeled
    for part in (labeled, ~labeled):
        if part.any():
            gain[part] = gain[part] / max(float(np.quantile(gain[part], 0.95)), 1e-6)
    return gain.clip(0, 1).astype(np.float32)


def label_gate(store: KnowledgeStore, split: Split) -> np.ndarray:
    """1 where the true item is among the teacher's first 20 (or the decision has no label), else 0.

    Source: soft labels only where the teacher is right: Meng et al., "Conditional Teacher-Student Learning", ICASSP
    2019, who put the true label in the place of the others; there the hard loss does so.
    """
    keys, _, ids = _response(store)
    labeled = _labeled(keys, store, split)
    ranks = _ranks(keys, ids, labeled, split)
    return (~labeled | ((ranks > 0) & (ranks <= _GATE))).astype(np.float32)


RULES: dict[str, Callable[[KnowledgeStore, Split], np.ndarray]] = {
    "confidence": confidence, "agreement": agreement, "label_gate": label_gate,
}


def own_temperature(store: KnowledgeStore, base: float, *, steps: int = 30) -> np.ndarray:
    """float32 [N]: a temperature for each decision, so that every soft label is as wide as the median one at `base`.

    Width is the entropy over the kept items. A teacher is sharp about some users and flat about others; at one common
    temperature the first give hardly more than a label and the second say nothing. Found by bisection in [base / 8,
    8 base].
    """
    _, logits, _ = _response(store)
    out = np.empty(len(logits), dtype=np.float32)
    some = np.random.default_rng(0).permutation(len(logits))[:_BLOCK]
    goal = float(np.median(_entropy(logits[np.sort(some)].astype(np.float32), np.full(len(some), base, np.float32))))
    for rows in _blocks(len(out)):
        block = logits[rows].astype(np.float32)
        low, high = np.full(len(block), base / 8, np.float32), np.full(len(block), base * 8, np.float32)
        for _ in range(steps):
            middle = np.sqrt(low * high)
            wide = _entropy(block, middle) > goal
            low, high = np.where(wide, low, middle), np.where(wide, middle, high)
        out[rows] = np.sqrt(low * high)
    return out


class Trusted:
    """A store with a weight for every decision; implements `types.Knowledge`.

    Args:
        rules: names of RULES, multiplied. The weights are divided by their mean, so that trust moves a loss between
            decisions and not its whole share, as long as the mean is above a twentieth.
        left_out: bool [U], users whom the teacher is not to teach (see training.audit).
        temperature: of the soft labels; given, every decision gets its own around it (`own_temperature`).
    Raises:
        RecipeError: an unknown rule.
    """

    def __init__(
        self, store: KnowledgeStore, split: Split, rules: Sequence[str] = (), *, left_out: np.ndarray | None = None,
        temperature: float | None = None,
    ) -> None:
        for rule in rules:
            if rule not in RULES:
                raise RecipeError(problem(f"trust {rule!r} is unknown{nearest(rule, RULES)}", ", ".join(RULES)))
        self.store, self.rules = store, tuple(rules)
        self._keys, _, _ = _response(store)
        weights = np.ones(len(self._keys), dtype=np.float32)
        for rule in rules:
            weights = weights * RULES[rule](store, split)
        self.mean = float(weights.mean()) if len(weights) else 0.0
        self.none = float((weights == 0).mean()) if len(weights) else 0.0
        if rules:
            weights = weights / max(self.mean, 0.05)
        self.left_out = left_out
        if left_out is not None:
            weights = weights * ~left_out[_users_of(self._keys, store, split)]
        self._weights = weights
        self._temperatures = None if temperature is None else own_temperature(store, temperature)

    @property
    def signals(self) -> Mapping[str, Signal]:
        return self.store.signals

    def facts(self) -> dict[str, Any]:
        """For the report: what was believed how far."""
        users = 0 if self.left_out is None else int(self.left_out.sum())
        return {"rules": list(self.rules), "mean": round(self.mean, 4), "decisions_left_out": round(self.none, 4),
                "users_left_out": users, "own_temperature": self._temperatures is not None}

    @property
    def digest(self) -> str:
        own = [] if self._temperatures is None else [self._temperatures]
        return digest_arrays(self.store.digest, self._weights, *own)

    def batch(self, keys: np.ndarray) -> dict[str, np.ndarray]:
        """As the store's own, with "response.trust" and, where asked for, "response.temperature", float32 [B]."""
        out = self.store.batch(keys)
        rows = self.store.rows("response", keys)
        out["response.trust"] = self._weights[rows]
        if self._temperatures is not None:
            out["response.temperature"] = self._temperatures[rows]
        return out

    def vectors(self, name: str) -> np.ndarray | None:
        return self.store.vectors(name)


def _response(store: KnowledgeStore) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(keys [N], logits [N, K], ids [N, K]), memory-mapped."""
    if "response" not in store.signals:
        raise KnowledgeError(problem("the store holds no answers to be trusted or not", "a response"))
    arrays = store.arrays("response")
    return arrays["keys"], arrays["logits"], arrays["ids"]


def _users_of(keys: np.ndarray, store: KnowledgeStore, split: Split) -> np.ndarray:
    if store.signals["response"].key == "user":
        return np.asarray(keys)
    users = np.searchsorted(split.bounds[:, 0], keys, side="right") - 1
    return np.where(keys >= len(split.items), keys - len(split.items), users)


def _labeled(keys: np.ndarray, store: KnowledgeStore, split: Split) -> np.ndarray:
    """bool [N]: the decision has a true item."""
    if store.signals["response"].key == "user":
        return np.zeros(len(keys), dtype=bool)
    return np.asarray(keys) < len(split.items)


def _ranks(keys: np.ndarray, ids: np.ndarray, labeled: np.ndarray, split: Split) -> np.ndarray:
    """int [N]: the place of the true item in the list, from 1; 0 outside it and where there is none."""
    out = np.zeros(len(keys), dtype=np.int64)
    rows = np.flatnonzero(labeled)
    for part in _blocks(len(rows)):
        some = rows[part]
        hit = ids[some] == split.items[keys[some]][:, None]
        out[some] = np.where(hit.any(1), hit.argmax(1) + 1, 0)
    return out


def _held(ids: np.ndarray, lists: np.ndarray, users: np.ndarray, split: Split) -> np.ndarray:
    """float32 [n]: the share of each user's train items (of K at most) that stands in the list of row `lists`."""
    out = np.zeros(len(users), dtype=np.float32)
    for part in _blocks(len(users)):
        start, stop = split.bounds[users[part], 0], split.bounds[users[part], 1]
        sizes = stop - start
        owner = np.repeat(np.arange(len(sizes)), sizes)
        place = np.repeat(start - (np.cumsum(sizes) - sizes), sizes) + np.arange(sizes.sum())
        pairs = np.unique(owner.astype(np.int64) * split.n_items + split.items[place])
        listed = np.arange(len(sizes), dtype=np.int64)[:, None] * split.n_items + ids[lists[part]].astype(np.int64)
        hits = np.isin(listed, pairs).sum(1)
        could = np.minimum(np.bincount(pairs // split.n_items, minlength=len(sizes)), ids.shape[1])
        out[part] = hits / np.maximum(could, 1)
    return out


def _entropy(logits: np.ndarray, temperature: np.ndarray) -> np.ndarray:
    log_p = _log_softmax(logits / temperature[:, None])
    return -(np.exp(log_p) * np.where(log_p > -60, log_p, 0)).sum(1)


def _log_softmax(logits: np.ndarray) -> np.ndarray:
    top = logits.max(1, keepdims=True)
    return logits - top - np.log(np.exp(logits - top).sum(1, keepdims=True))


def _blocks(count: int) -> list[slice]:
    return [slice(begin, begin + _BLOCK) for begin in range(0, count, _BLOCK)]
