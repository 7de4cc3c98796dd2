"""Many teachers as one store: their answers mixed decision by decision, each weighed per user and per item."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import numpy as np

from distilrec import numerics
from distilrec.errors import KnowledgeError, RecipeError, nearest, problem
from distilrec.knowledge.store import KnowledgeStore, StoreWriter
from distilrec.knowledge.trust import RULED_OUT, agreement
from distilrec.progress import track
from distilrec.types import Signal, Split

__all__ = ["WEIGHTS", "blend"]

WEIGHTS = ("equal", "agreement")
_GROUPS = 4  # of items, by popularity
_FLOOR = 0.05  # of a weight: no teacher is silenced as a whole
_SAMPLE = 4096  # decisions whose median entropy tells how sharp a teacher is


def blend(
    stores: Sequence[KnowledgeStore], split: Split, folder: Path, *,
    weights: str = "agreement", top_k: int | None = None, part_rows: int = 16_384,
) -> KnowledgeStore:
    """Write the store of a mixture: p(i | decision) = sum over teachers m of w_m(user, i) p_m(i | decision).

    Every teacher's answers are first brought to a common sharpness (one temperature each, so that the median entropies
    of their lists agree): none wins by shouting. An item outside a teacher's list has no probability from it; what all
    of them leave outside their lists, on the average, is left outside this one.

    Args:
        stores: of one split; each with a response. If any is by event, so is the result; a teacher that knows users
            only says the same at all of a user's decisions.
        weights: "equal", or "agreement": by how well the teacher agrees with this user's train events (trust.agreement,
            averaged over his decisions) times how many of the train events of items as popular as this one stand in
            its lists. Validation and test are not read.
        top_k: kept of the mixture; by default, and at most, as many as the longest list.
    Raises:
        KnowledgeError: fewer than two stores, stores of different splits, or one without answers. RecipeError: other
            weights.

    Source: several teachers weighed for every example: Zhang et al., "Confidence-Aware Multi-Teacher Knowledge
    Distillation", ICASSP 2022; unlike recommenders into one: Kang et al., "Distillation from Heterogeneous Models for
    Top-K Recommendation" (HetComp), WWW 2023.
    """
    if weights not in WEIGHTS:
        raise RecipeError(problem(f"weights {weights!r}{nearest(str(weights), WEIGHTS)}", " | ".join(WEIGHTS)))
    if len(stores) < 2:
        raise KnowledgeError(problem(f"{len(stores)} stores to blend", "two or more"))
    for store in stores:
        if store.manifest["split_digest"] != split.digest or "response" not in store.signals:
            raise KnowledgeError(problem(f"the store {store.folder} is of another split, or holds no answers",
                                         f"responses on split {split.digest[:12]}", "extract it from this split"))
    main = next((store for store in stores if store.signals["response"].key == "event"), stores[0])
    keyed = main.signals["response"].key
    keys = np.asarray(main.arrays("response")["keys"])
    widest = max(store.signals["response"].width for store in stores)  # so many different items every union holds
    kept = min(top_k or widest, widest)
    identity = {"dataset_digest": split.dataset.digest, "split_digest": split.digest, "blend": weights, "top_k": kept,
                "stores": [store.digest for store in stores], "part_rows": part_rows}
    if (folder / "manifest.json").exists():
        found = KnowledgeStore(folder, split)
        if found.manifest["identity"] == identity:
            return found
        (folder / "manifest.json").unlink()
    scales = _scales(stores)
    # the answers of one that only scores a list say nothing of the rest of the catalog, nor does a mixture with them
    space: Literal["logit", "score"] = \
        "logit" if all(s.signals["response"].space == "logit" for s in stores) else "score"
    of_user, of_item = _weights(stores, split, weights)
    writer = StoreWriter(folder, identity)
    parts = -(-len(keys) // part_rows)
    with track(parts, "blending teachers") as progress:
        for part in range(parts):
            if not writer.has("response", part):
                some = keys[part * part_rows : (part + 1) * part_rows]
                ids, logits = _mixed(stores, split, some, keyed == "user", scales, of_user, of_item, kept)
                small = np.uint16 if split.n_items <= 65_536 else np.int32
                writer.write("response", part, {"keys": some, "ids": ids.astype(small),
                                                "logits": logits.astype(np.float16),
                                                **_trust(stores, split, some, keyed == "user")})
            progress.advance(1)
    name = "+".join(str(store.manifest["teacher"]["name"]) for store in stores)
    signals = {"response": Signal("response", "response", keyed, space=space, teacher=name, width=kept)}
    for signal, table in (("item_vectors", _side_by_side(stores)), ("content", _first(stores, "content"))):
        if table is not None:
            signals[signal] = Signal(signal, "vector", "item", teacher=name, width=table.shape[1])
            writer.write(signal, 0, {"keys": np.arange(len(table), dtype=np.int64), "values": table})
    writer.finish(signals, {"name": name, "parameters": sum(s.manifest["teacher"]["parameters"] for s in stores),
                            "blend": weights, "members": [store.manifest["teacher"] for store in stores],
                            "weights": [{"member": str(store.manifest["teacher"]["name"]),
                                         "of_user": round(float(of_user[m].mean()), 4),
                                         "of_item": round(float(of_item[m].mean()), 4)}
                                        for m, store in enumerate(stores)]})
    return KnowledgeStore(folder, split)


def _mixed(
    stores: Sequence[KnowledgeStore], split: Split, keys: np.ndarray, by_user: bool, scales: list[float],
    of_user: np.ndarray, of_item: np.ndarray, kept: int,
) -> tuple[np.ndarray, np.ndarray]:
    """(ids int32 [n, K], log-probabilities float32 [n, K]) of the mixture, best first."""
    users = keys if by_user else stores[0].users_of(keys)
    wide_ids, wide_p = [], []
    held = np.zeros(len(users), dtype=np.float32)  # of all probability, by these lists
    for m, store in enumerate(stores):
        arrays = store.arrays("response")
        rows = store.rows("response", keys if not by_user else len(split.items) + keys)
        ids = arrays["ids"][rows].astype(np.int64)
        logits = arrays["logits"][rows].astype(np.float32)
        p = np.exp(numerics.log_softmax(logits / scales[m]))
        held += of_user[m, users] * (np.exp(logits).sum(1).clip(max=1) if store.signals["response"].space == "logit"
                                     else 1)
        wide_ids.append(ids)
        wide_p.append(p * of_user[m, users][:, None] * of_item[m, ids])
    ids, p = np.concatenate(wide_ids, 1), np.concatenate(wide_p, 1)
    order = np.argsort(ids, axis=1, kind="stable")
    ids, p = np.take_along_axis(ids, order, 1), np.take_along_axis(p, order, 1)
    # entries of one item lie together now: each first one takes the sum of its run
    new = np.concatenate([np.ones((len(ids), 1), dtype=bool), np.diff(ids, axis=1) != 0], 1)
    runs = np.flatnonzero(new.ravel())
    summed = np.zeros(p.size, dtype=np.float32)
    summed[runs] = np.add.reduceat(p.ravel(), runs)
    total = summed.reshape(p.shape)
    share = total * (held / total.sum(1))[:, None]
    # never the same item twice, not even where the list has to be filled up with items without any probability
    place, best = numerics.top_k(np.where(new, share, -np.inf), kept)
    return np.take_along_axis(ids, place, 1).astype(np.int32), _logs(best)


def _trust(stores: Sequence[KnowledgeStore], split: Split, keys: np.ndarray, by_user: bool) -> dict[str, np.ndarray]:
    """{"trust": [n]} where a store leaves some decision out (see `extend`): then the mixture leaves it out as well."""
    told = [store.told()[store.rows("response", keys if not by_user else len(split.items) + keys)] for store in stores
            if not store.told().all()]
    return {"trust": np.logical_and.reduce(told).astype(np.float16)} if told else {}


def _weights(stores: Sequence[KnowledgeStore], split: Split, how: str) -> tuple[np.ndarray, np.ndarray]:
    """(w [M, U], w [M, I]), each summing to 1 over the teachers."""
    users, items = np.ones((len(stores), split.n_users)), np.ones((len(stores), split.n_items))
    if how == "agreement":
        groups = numerics.popularity_groups(split.train_counts, _GROUPS)
        for m, store in enumerate(stores):
            keys = np.asarray(store.arrays("response")["keys"])
            owner = keys if store.signals["response"].key == "user" else store.users_of(keys)
            said = agreement(store, split)
            count = np.bincount(owner, minlength=split.n_users)
            users[m] = np.bincount(owner, said, minlength=split.n_users) / np.maximum(count, 1)
            items[m] = _found(store, split, owner, groups)[groups]
    return _shares(users), _shares(items)


def _shares(table: np.ndarray) -> np.ndarray:
    """float32 [M, N], each column summing to 1."""
    table = np.maximum(table, _FLOOR * np.maximum(table.max(0), 1e-9))
    return (table / table.sum(0)).astype(np.float32)


def _found(store: KnowledgeStore, split: Split, owner: np.ndarray, groups: np.ndarray) -> np.ndarray:
    """float64 [G]: of the train events of each popularity group, the share that some list of the user holds."""
    users, items, _ = split.events("train")
    pairs, place = np.unique(users.astype(np.int64) * split.n_items + items, return_inverse=True)
    listed, arrays = np.zeros(len(pairs), dtype=bool), store.arrays("response")
    for a in range(0, len(owner), 4096):
        rows = slice(a, a + 4096)
        named = owner[rows, None].astype(np.int64) * split.n_items + arrays["ids"][rows].astype(np.int64)
        named = named[arrays["logits"][rows] > RULED_OUT]
        at = np.minimum(np.searchsorted(pairs, named), len(pairs) - 1)
        listed[at[pairs[at] == named]] = True
    hit, of = listed[place], groups[items]
    return np.bincount(of, hit, minlength=_GROUPS) / np.maximum(np.bincount(of, minlength=_GROUPS), 1)


def _scales(stores: Sequence[KnowledgeStore]) -> list[float]:
    """A temperature for each store at which the median entropies of all agree with their mean; 1 for lists that are
    too short, or too sure of a single item, to get there."""
    samples = []
    for store in stores:
        logits = store.arrays("response")["logits"]
        rows = np.sort(np.random.default_rng(0).permutation(len(logits))[:_SAMPLE])
        samples.append(logits[rows].astype(np.float32))
    goal = float(np.mean([_entropy(sample, 1.0) for sample in samples]))
    out = []
    for sample in samples:
        low, high = 1 / 64, 64.0
        if not _entropy(sample, low) < goal < _entropy(sample, high):
            out.append(1.0)
            continue
        for _ in range(40):
            middle = float(np.sqrt(low * high))
            low, high = (low, middle) if _entropy(sample, middle) > goal else (middle, high)
        out.append(float(np.sqrt(low * high)))
    return out


def _entropy(logits: np.ndarray, temperature: float) -> float:
    log_p = numerics.log_softmax(logits / temperature)
    return float(np.median(-(np.exp(log_p) * np.maximum(log_p, -60)).sum(1)))


def _logs(p: np.ndarray) -> np.ndarray:
    return np.where(p > 0, np.log(np.maximum(p, 1e-30)), -60_000.0).astype(np.float32)  # 0: ruled out by all


def _side_by_side(stores: Sequence[KnowledgeStore]) -> np.ndarray | None:
    """As Ensemble.item_vectors: tables of unit mean square beside one another."""
    tables = [table for store in stores if (table := store.vectors("item_vectors")) is not None]
    if not tables:
        return None
    return np.concatenate([t / max(float(np.sqrt((t**2).mean())), 1e-12) for t in tables], axis=1).astype(np.float32)


def _first(stores: Sequence[KnowledgeStore], name: str) -> np.ndarray | None:
    return next((table for store in stores if (table := store.vectors(name)) is not None), None)
