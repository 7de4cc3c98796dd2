"""Which knowledge to believe: a weight in [0, 1] for each decision, from the teacher and the train labels alone.

A rule is a function (store, split) -> float32 [N] in the order of the store's response keys; several are multiplied.
`Trusted` hands a store on with these weights, and with a temperature of each decision's own where that is asked for.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

import numpy as np

from distilrec.errors import KnowledgeError, RecipeError, nearest, problem
from distilrec.files import digest_arrays
from distilrec.knowledge.store import KnowledgeStore
from distilrec.numerics import log_softmax
from distilrec.types import Signal, Split

__all__ = ["RULED_OUT", "RULES", "Trusted", "agreement", "confidence", "label_gate", "own_temperature"]

RULED_OUT = -50_000.0  # below it stands what only fills up a list (see extract.top_log_probabilities)
_GATE = 20  # of a list: how far down the true item may stand
_LEAST = 1e-4  # below it a weight is the rounding of 0
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
        log_p = log_softmax(logits[rows].astype(np.float32))
        entropy = -(np.exp(log_p) * np.where(log_p > -60, log_p, 0)).sum(1)
        out[rows] = 1 - entropy / np.log(max(2, logits.shape[1]))
    return out.clip(0, 1)


def agreement(store: KnowledgeStore, split: Split) -> np.ndarray:
    """How well the teacher's list agrees with what the user did, against what the list of a stranger would.

    Of a decision with a label: 1 / log2(1 + rank of the true item), 0 outside the list. Of a decision without one, and
    of knowledge by user: the mean of 1 where a train item of the user stands in the list, among as many as could
    stand there. What the list of another user would get for the same, on the average, is chance: (own - chance) /
    (1 - chance), not below 0, as in Cohen's kappa. So a teacher that confuses its users is believed hardly anything.

    Lists from which somebody took what the user had, as most exports of a running shop, agree with nobody: that is no
    opinion of the teacher, and no measure of it.

    Raises:
        KnowledgeError: no list holds what its user did, at decisions with a label or at those without.

    Source: the consistency of teacher and data as a weight: Cui et al., "Distillation Matters", RecSys 2024, whose
    weight for consistency compares teacher and student instead.
    """
    keys, _, _ = _response(store)
    users = _users_of(keys, store, split)
    labeled = _labeled(keys, store, split)
    out = np.zeros(len(keys), dtype=np.float32)
    told = store.told()
    parts = (np.flatnonzero(labeled & told), _gain, "the true item"), \
        (np.flatnonzero(~labeled & told), _held, "a train item")
    for part, measure, what in parts:
        if len(part):
            own = measure(store, part, part, users[part], split)
            if not own.any():
                raise KnowledgeError(problem(
                    f"not one of {len(part)} lists of {store.folder} holds {what} of its user, so agreement cannot be "
                    "measured: such lists leave out what was taken, or are of other users",
                    "lists that may name train items", "let the teacher list them, too; or trust confidence, or blend "
                    "with equal weights"))
            # sorted by user: half the decisions on, it is somebody else's
            strange = np.roll(part, len(part) // 2)
            chance = float(measure(store, strange, part, users[part], split)[users[strange] != users[part]].mean()) \
                if (users[strange] != users[part]).any() else 0.0
            out[part] = (own - chance) / max(1 - chance, 1e-6)
    return out.clip(0, 1)


def label_gate(store: KnowledgeStore, split: Split) -> np.ndarray:
    """1 where the true item is among the teacher's first 20 (or the decision has no label), else 0.

    Raises:
        KnowledgeError: no decision has a label, as in all knowledge by user.

    Source: soft labels only where the teacher is right: Meng et al., "Conditional Teacher-Student Learning", ICASSP
    2019, who put the true label in the place of the others; there the hard loss does so.
    """
    keys, _, _ = _response(store)
    labeled = _labeled(keys, store, split)
    rows = np.flatnonzero(labeled)
    if not len(rows):
        raise _ungated(f"the store {store.folder}, which is kept by {store.signals['response'].key}, holds")
    out = np.ones(len(keys), dtype=np.float32)
    ranks = _ranks(store, rows, rows, split)
    out[rows] = (ranks > 0) & (ranks <= _GATE)
    return out


def _ungated(who: str) -> KnowledgeError:
    return KnowledgeError(problem(f"{who} no decision with a label, which a label_gate could close",
                                  "a teacher that answers by event, and a student that reads events in turn",
                                  "take another rule: agreement or confidence"))


RULES: dict[str, Callable[[KnowledgeStore, Split], np.ndarray]] = {
    "confidence": confidence, "agreement": agreement, "label_gate": label_gate,
}


def own_temperature(store: KnowledgeStore, base: float, *, steps: int = 30) -> np.ndarray:
    """float32 [N]: a temperature for each decision, so that every soft label is as wide as the median one at `base`.

    Width is the entropy over the kept items. A teacher is sharp about some users and flat about others; at one common
    temperature the first give hardly more than a label and the second say nothing. Found by bisection in [base / 8,
    8 base]; what is as wide already, and what has one width at every temperature, keeps the base.
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
        plain, warm, cold = (_entropy(block, np.full(len(block), t, np.float32)) for t in (base, base * 8, base / 8))
        kept = (np.abs(plain - goal) < 1e-4) | (warm - cold < 1e-4)
        out[rows] = np.where(kept, base, np.sqrt(low * high))
    return out


class Trusted:
    """A store with a weight for every decision; implements `types.Knowledge`.

    Args:
        rules: names of RULES, multiplied. The weights are divided by their mean over the decisions that are read (all,
            until `read_at` says which), so that trust moves a loss between decisions and not its whole share, as long
            as the mean is above a twentieth.
        left_out: bool [U], users whom the teacher is not to teach (see training.audit).
        temperature: of the soft labels; given, every decision gets its own around it (`own_temperature`).
    Raises:
        RecipeError: an unknown rule.
        KnowledgeError: a rule that cannot judge this store.
    """

    def __init__(
        self, store: KnowledgeStore, split: Split, rules: Sequence[str] = (), *, left_out: np.ndarray | None = None,
        temperature: float | None = None,
    ) -> None:
        for rule in rules:
            if rule not in RULES:
                raise RecipeError(problem(f"trust {rule!r} is unknown{nearest(rule, RULES)}", ", ".join(RULES)))
        self.store, self.rules, self.left_out, self._split = store, tuple(rules), left_out, split
        self._keys, _, _ = _response(store)
        self._told = store.told()
        self._judged = np.ones(len(self._keys), dtype=np.float32)
        for rule in rules:
            self._judged = self._judged * RULES[rule](store, split)
        self._weigh(np.arange(len(self._keys)))
        self._temperatures = None if temperature is None else own_temperature(store, temperature)

    def read_at(self, keys: np.ndarray) -> None:
        """Weigh anew for a student that reads the decisions `keys` (int64 [n]) and no others; training says so.

        Raises:
            KnowledgeError: a label_gate where none of them has a label; what the store says nothing about.
        """
        if "label_gate" in self.rules and not (keys < len(self._split.items)).any():
            raise _ungated("a student that reads the teacher only after the last train event of each user meets")
        self._weigh(self.store.rows("response", keys))

    def _weigh(self, rows: np.ndarray) -> None:
        """From what the rules say of each decision, in units of what they say of those at `rows`."""
        read = self._judged[rows[self._told[rows]]]
        self.mean, self.none = (float(read.mean()), float((read == 0).mean())) if len(read) else (0.0, 0.0)
        self._weights = self._judged / max(self.mean, 0.05) if self.rules else self._judged
        self._weights = self._weights * self._told
        if self.left_out is not None:
            self._weights = self._weights * ~self.left_out[_users_of(self._keys, self.store, self._split)]
        # but for rounding all are 0: whoever learns from nothing else learns nothing
        self.silent = bool(self._weights[rows].max(initial=0) < _LEAST)

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

    def batch(self, keys: np.ndarray, signals: Collection[str] | None = None) -> dict[str, np.ndarray]:
        """As the store's own, with "response.trust" and, where asked for, "response.temperature", float32 [B]."""
        out = self.store.batch(keys, signals)
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
    return split.deciders(keys)


def _labeled(keys: np.ndarray, store: KnowledgeStore, split: Split) -> np.ndarray:
    """bool [N]: the decision has a true item."""
    if store.signals["response"].key == "user":
        return np.zeros(len(keys), dtype=bool)
    return np.asarray(keys) < len(split.items)


def _listed(store: KnowledgeStore, rows: np.ndarray) -> np.ndarray:
    """int64 [n, K]: the items that the lists of some rows name, -1 for what the teacher rules out."""
    _, logits, ids = _response(store)
    return np.where(logits[rows] > RULED_OUT, ids[rows].astype(np.int64), -1)


def _ranks(store: KnowledgeStore, lists: np.ndarray, rows: np.ndarray, split: Split) -> np.ndarray:
    """int [n]: the place of the true item of the decisions `rows` in the lists of `lists`, from 1; 0 outside them."""
    keys, _, _ = _response(store)
    out = np.zeros(len(rows), dtype=np.int64)
    for part in _blocks(len(rows)):
        hit = _listed(store, lists[part]) == split.items[keys[rows[part]]][:, None]
        out[part] = np.where(hit.any(1), hit.argmax(1) + 1, 0)
    return out


def _gain(
    store: KnowledgeStore, lists: np.ndarray, rows: np.ndarray, users: np.ndarray, split: Split
) -> np.ndarray:
    """float32 [n]: 1 / log2(1 + rank) of the true item of each decision in the list of row `lists`."""
    del users
    ranks = _ranks(store, lists, rows, split)
    return np.where(ranks > 0, 1 / np.log2(1 + np.maximum(ranks, 1)), 0).astype(np.float32)


def _held(
    store: KnowledgeStore, lists: np.ndarray, rows: np.ndarray, users: np.ndarray, split: Split
) -> np.ndarray:
    """float32 [n]: the share of each user's train items (of K at most) that stands in the list of row `lists`."""
    del rows
    out = np.zeros(len(users), dtype=np.float32)
    for part in _blocks(len(users)):
        start, stop = split.bounds[users[part], 0], split.bounds[users[part], 1]
        sizes = stop - start
        owner = np.repeat(np.arange(len(sizes)), sizes)
        place = np.repeat(start - (np.cumsum(sizes) - sizes), sizes) + np.arange(sizes.sum())
        pairs = np.unique(owner.astype(np.int64) * split.n_items + split.items[place])
        items = _listed(store, lists[part])
        named = np.arange(len(sizes), dtype=np.int64)[:, None] * split.n_items + items
        hits = (np.isin(named, pairs) & (items >= 0)).sum(1)
        could = np.minimum(np.bincount(pairs // split.n_items, minlength=len(sizes)), items.shape[1])
        out[part] = hits / np.maximum(could, 1)
    return out


def _entropy(logits: np.ndarray, temperature: np.ndarray) -> np.ndarray:
    log_p = log_softmax(logits / temperature[:, None])
    return -(np.exp(log_p) * np.where(log_p > -60, log_p, 0)).sum(1)


def _blocks(count: int) -> list[slice]:
    return [slice(begin, begin + _BLOCK) for begin in range(0, count, _BLOCK)]
