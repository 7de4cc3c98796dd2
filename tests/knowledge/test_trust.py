"""Which knowledge to believe: made teachers whose worth is known, and rules that have to see it."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from core_world import quick, split_of
from distilrec.errors import KnowledgeError, RecipeError
from distilrec.knowledge.blend import blend
from distilrec.knowledge.extract import decisions, open_key
from distilrec.knowledge.store import KnowledgeStore, StoreWriter
from distilrec.knowledge.trust import RULES, Trusted, agreement, confidence, label_gate, own_temperature
from distilrec.training.fit import read_by
from distilrec.training.train import train
from distilrec.types import Knowledge, Signal, Split

pytestmark = [pytest.mark.req(number) for number in ("C8", "C12")]

USERS, EACH, KINDS = 40, 6, 8  # every user takes items of one of eight kinds
ITEMS = 80
RULED_OUT = -60_000.0


@pytest.fixture(scope="module")
def split() -> Split:
    """User u takes items of kind u % 8, which are the items 10 k ... 10 k + 9; with one who did nothing in train."""
    rng = np.random.default_rng(0)
    rows = []
    for user in range(USERS):
        taken = (10 * (user % KINDS) + rng.permutation(10)[: EACH + 2]).tolist()
        rows.append((taken[:-2], taken[-2:-1], taken[-1:]) if user != 13 else ([], taken[:1], taken[1:2]))
    return split_of(rows, ITEMS)


Answer = Callable[[int, int | None], tuple[list[int], list[float]]]


def made(folder: Path, split: Split, answer: Answer, *, by_user: bool = False) -> KnowledgeStore:
    """A store of what `answer` gives for a user and the true item of a decision (None after the last event)."""
    keys, users, _, _ = decisions(split)
    if by_user:
        users = np.flatnonzero(split.bounds[:, 1] > split.bounds[:, 0])
        keys = users.astype(np.int64)
    rows = [answer(int(user), None if by_user or key >= len(split.items) else int(split.items[key]))
            for key, user in zip(keys, users, strict=True)]
    writer = StoreWriter(folder, {"dataset_digest": split.dataset.digest, "split_digest": split.digest})
    ids, logits = (np.array([row[part] for row in rows]) for part in (0, 1))
    writer.write("response", 0, {"keys": keys, "ids": ids.astype(np.uint16), "logits": logits.astype(np.float16)})
    writer.finish({"response": Signal("response", "response", "user" if by_user else "event", space="logit",
                                      width=ids.shape[1])}, {"name": "made"})
    return KnowledgeStore(folder, split)


def of_kind(user: int) -> list[int]:
    return [10 * (user % KINDS) + i for i in range(10)]


FALLING = list(np.log(np.arange(10, 0, -1) / 55))


def knows(user: int, target: int | None) -> tuple[list[int], list[float]]:
    """The user's kind, the true item first."""
    items = of_kind(user)
    return sorted(items, key=lambda item: item != target), FALLING


def confuses(user: int, target: int | None) -> tuple[list[int], list[float]]:
    """What it should say of somebody else, except to user 0."""
    return knows(user if user == 0 else user + 1 + user // KINDS % (KINDS - 1), target)


def half(user: int, target: int | None) -> tuple[list[int], list[float]]:
    return (knows if user < USERS // 2 else confuses)(user, target)


def owners(split: Split) -> tuple[np.ndarray, np.ndarray]:
    """(user, labeled) of each decision in the order of the store."""
    keys, users, _, _ = decisions(split)
    return users, keys < len(split.items)


# --- agreement


@pytest.mark.parametrize("by_user", [False, True])
def test_a_teacher_that_knows_its_users_agrees_and_one_that_confuses_them_does_not(
    by_user: bool, split: Split, tmp_path: Path
) -> None:
    good = agreement(made(tmp_path / "good", split, knows, by_user=by_user), split)
    bad = agreement(made(tmp_path / "bad", split, confuses, by_user=by_user), split)
    assert good.dtype == np.float32
    assert good.min() > 0.9
    users = np.flatnonzero(split.bounds[:, 1] > split.bounds[:, 0]) if by_user else owners(split)[0]
    assert bad[users > 0].max() < 0.1
    mixed = agreement(made(tmp_path / "half", split, half, by_user=by_user), split)
    assert mixed[users < USERS // 2].min() > 0.8
    assert mixed[users >= USERS // 2].max() < 0.1


def test_agreement_falls_with_the_rank_of_the_true_item(split: Split, tmp_path: Path) -> None:
    def third(user: int, target: int | None) -> tuple[list[int], list[float]]:
        items = [item for item in of_kind(user) if item != target][:9]
        return ([*items[:2], target, *items[2:]] if target is not None else [*items, of_kind(user)[9]]), FALLING

    found = agreement(made(tmp_path, split, third), split)
    _, labeled = owners(split)
    # half the decisions on stands a list of another kind, or by chance one of the same: the same for all
    chance = (1 / math.log2(4) - found[labeled]) / (1 - found[labeled])
    assert np.ptp(found[labeled]) < 1e-6
    assert 0 <= chance[0] < 0.15


def test_popular_items_in_every_list_are_no_agreement(tmp_path: Path) -> None:
    """Everybody takes the same three items, and the teacher names them to everybody: so would any stranger's list."""
    split = split_of([([0, 1, 2], [3], [4])] * 12, ITEMS)
    found = agreement(made(tmp_path, split, lambda user, target: ([0, 1, 2, 5, 6], [-1.0] * 5)), split)
    assert found[~owners(split)[1]].max() == 0


def test_agreement_of_a_single_user_and_of_one_decision(tmp_path: Path) -> None:
    for name, items in (("one", [3]), ("two", [3, 4])):
        split = split_of([(items, [5], [6])], ITEMS)
        found = agreement(made(tmp_path / name, split, lambda user, target: ([3, 4], [-1.0, -1.0])), split)
        assert np.isfinite(found).all()
        assert ((found >= 0) & (found <= 1)).all()
        assert found[-1] == 1, "there is no stranger to be compared with"


def test_what_only_fills_up_a_list_is_no_hit(split: Split, tmp_path: Path) -> None:
    def only_one(user: int, target: int | None) -> tuple[list[int], list[float]]:
        if user == 0:
            return knows(user, target)
        away = 10 * ((user + 4) % KINDS)  # the first is of another kind, the others are ruled out
        return [away, *of_kind(user)[:9]], [0.0, *[RULED_OUT] * 9]

    store = made(tmp_path, split, only_one)
    users, labeled = owners(split)
    rest = users > 0
    assert agreement(store, split)[rest].max() < 0.1
    assert (label_gate(store, split)[labeled & rest] == 0).all()
    assert confidence(store, split)[rest].min() == 1


@pytest.mark.parametrize("by_user", [False, True])
def test_lists_without_what_was_taken_say_nothing_of_agreement(by_user: bool, split: Split, tmp_path: Path) -> None:
    """As a running shop exports them: good for everybody, and without what he has."""
    def export(user: int, target: int | None) -> tuple[list[int], list[float]]:
        had = set(split.items[split.bounds[user, 0] : split.bounds[user, 1]].tolist())
        return [item for item in of_kind(user) if item not in had][:4], FALLING[:4]

    store = made(tmp_path / "export", split, export, by_user=by_user)
    what = "a train item" if by_user else "the true item"
    with pytest.raises(KnowledgeError, match=f"not one of .* holds {what} of its user(.|\n)*trust confidence"):
        Trusted(store, split, ["agreement"])
    assert Trusted(store, split, ["confidence"]).facts()["decisions_left_out"] == 0
    with pytest.raises(KnowledgeError, match="blend with equal weights"):
        blend([store, made(tmp_path / "knows", split, knows, by_user=by_user)], split, tmp_path / "both")
    assert not (tmp_path / "both").exists()


# --- the other rules


def test_confidence_runs_from_indifference_to_certainty(split: Split, tmp_path: Path) -> None:
    def mood(user: int, target: int | None) -> tuple[list[int], list[float]]:
        return of_kind(user)[:4], [[-3.0] * 4, [0.0, RULED_OUT, RULED_OUT, RULED_OUT], [-1.0, -1.0, -30.0, -30.0],
                                   [math.log(0.5), math.log(0.25), math.log(0.125), math.log(0.125)]][user % 4]

    found = confidence(made(tmp_path, split, mood), split)
    users, _ = owners(split)
    expected = np.array([0.0, 1.0, 0.5, 1 - 1.75 / 2])
    np.testing.assert_allclose(found, expected[users % 4], atol=1e-3)


def test_a_list_of_one_item_is_certain_and_keeps_its_temperature(split: Split, tmp_path: Path) -> None:
    store = made(tmp_path, split, lambda user, target: ([user], [-0.5]))
    assert (confidence(store, split) == 1).all()
    np.testing.assert_allclose(own_temperature(store, 2.0), 2.0)


def test_the_gate_opens_down_to_the_twentieth_item(split: Split, tmp_path: Path) -> None:
    def place(user: int, target: int | None) -> tuple[list[int], list[float]]:
        others = [item for item in range(ITEMS) if item != target][:25]
        at = {0: 0, 1: 19, 2: 20}.get(user % 4)  # and not at all
        if target is not None and at is not None:
            others = [*others[:at], target, *others[at:24]]
        elif target is not None:
            others = [(target + 1 + i) % ITEMS for i in range(25)]
        return others, [-float(i) for i in range(25)]

    found = label_gate(made(tmp_path, split, place), split)
    users, labeled = owners(split)
    assert found[labeled].tolist() == [float(user % 4 in (0, 1)) for user in users[labeled]]
    assert (found[~labeled] == 1).all()


def test_knowledge_by_user_has_no_label_to_be_gated_by(split: Split, tmp_path: Path) -> None:
    with pytest.raises(KnowledgeError, match="kept by user, holds no decision with a label(.|\n)*agreement or conf"):
        Trusted(made(tmp_path, split, knows, by_user=True), split, ["label_gate"])


# --- temperatures


def entropy(logits: np.ndarray, temperature: float) -> float:
    scaled = logits.astype(float) / temperature
    p = np.exp(scaled - scaled.max())
    p /= p.sum()
    return float(-(p * np.log(np.where(p > 0, p, 1))).sum())


@pytest.mark.parametrize("base", [1.0, 2.0])
def test_own_temperatures_make_all_soft_labels_as_wide(base: float, split: Split, tmp_path: Path) -> None:
    def sharp(user: int, target: int | None) -> tuple[list[int], list[float]]:
        return of_kind(user), [-place * (0.5 + 0.1 * (user % 10)) for place in range(10)]

    store = made(tmp_path, split, sharp)
    found = own_temperature(store, base)
    logits = store.arrays("response")["logits"]
    widths = [entropy(row, t) for row, t in zip(logits, found, strict=True)]
    before = [entropy(row, base) for row in logits]
    assert np.ptp(before) > 0.5
    np.testing.assert_allclose(widths, np.median(before), atol=2e-3)
    order = np.argsort(owners(split)[0] % 10, kind="stable")
    assert (np.diff(found[order]) > -1e-4).all(), "the sharper, the warmer"


def test_temperatures_stay_within_bounds_where_no_temperature_helps(split: Split, tmp_path: Path) -> None:
    def odd(user: int, target: int | None) -> tuple[list[int], list[float]]:
        kinds = [[-2.0] * 4, [0.0, *[RULED_OUT] * 3], [-1.0, -2.0, -3.0, -4.0], [0.0, -60.0, -60.0, -60.0]]
        return of_kind(user)[:4], kinds[user % 4]

    found = own_temperature(made(tmp_path, split, odd), 1.0)
    users, _ = owners(split)
    np.testing.assert_allclose(found[users % 4 < 2], 1.0)  # flat or a single item at every temperature
    assert ((found >= 1 / 8) & (found <= 8)).all()
    assert found[users % 4 == 3].min() > 7.9


# --- the store that is handed on


def test_trusted_hands_on_the_store_with_weights_of_mean_one(split: Split, tmp_path: Path) -> None:
    store = made(tmp_path, split, half)
    keys = decisions(split)[0]
    weight = agreement(store, split)
    trusted = Trusted(store, split, ["agreement"])
    assert isinstance(trusted, Knowledge)
    assert trusted.signals == store.signals
    assert trusted.vectors("content") is None
    mixed = np.random.default_rng(0).permutation(keys)
    batch, plain = trusted.batch(mixed), store.batch(mixed)
    assert set(batch) == {*plain, "response.trust"}
    for name, values in plain.items():
        assert np.array_equal(batch[name], values)
    place = np.searchsorted(keys, mixed)
    np.testing.assert_allclose(batch["response.trust"], weight[place] / weight.mean(), rtol=1e-5)
    assert batch["response.trust"].dtype == np.float32
    assert batch["response.trust"].mean() == pytest.approx(1.0, rel=1e-4)
    assert trusted.facts() == {
        "rules": ["agreement"], "mean": round(float(weight.mean()), 4),
        "decisions_left_out": round(float((weight == 0).mean()), 4), "users_left_out": 0, "own_temperature": False}


def test_rules_are_multiplied_and_a_worthless_teacher_is_not_raised_to_a_good_one(
    split: Split, tmp_path: Path
) -> None:
    store, keys = made(tmp_path / "half", split, half), decisions(split)[0]
    product = agreement(store, split) * label_gate(store, split) * confidence(store, split)
    found = Trusted(store, split, list(RULES)).batch(keys)["response.trust"]
    np.testing.assert_allclose(found, product / max(product.mean(), 0.05), rtol=1e-5)
    bad = Trusted(made(tmp_path / "bad", split, confuses), split, ["agreement"])
    assert bad.facts()["mean"] < 0.05
    assert bad.batch(keys)["response.trust"].mean() < 0.6


@pytest.mark.parametrize("by_user", [False, True])
def test_weights_are_one_on_the_average_of_what_is_read(by_user: bool, split: Split, tmp_path: Path) -> None:
    def forgets(user: int, target: int | None) -> tuple[list[int], list[float]]:
        """Right at every label, and after the last one of half the users; by user, right about some."""
        return (knows if target is not None or user < USERS // 2 else confuses)(user, target)

    if by_user:  # who did much counts more for a student that reads all decisions
        split = split_of([([10 * (u % KINDS) + i for i in range(2 + 6 * (u < USERS // 2))], [0], [1])
                          for u in range(USERS)], ITEMS)
    store, keys = made(tmp_path, split, forgets, by_user=by_user), decisions(split)[0]
    trusted = Trusted(store, split, ["agreement"])
    rule = agreement(store, split)
    for read in (keys[keys >= len(split.items)], keys):
        trusted.read_at(read)
        assert trusted.batch(read)["response.trust"].mean() == pytest.approx(1, rel=1e-4)
        assert trusted.facts()["mean"] == pytest.approx(rule[store.rows("response", read)].mean(), abs=1e-4)
        assert not trusted.silent


class Reader:
    """What training asks of a model or its class."""

    def __init__(self, needs_history: bool, cloze: bool = False) -> None:
        self.needs_history, self.cloze = needs_history, cloze


@pytest.mark.parametrize("reader", [Reader(False), Reader(True, cloze=True), Reader(True)])
def test_a_student_that_never_reads_a_label_is_not_gated_in_silence(
    reader: Reader, split: Split, tmp_path: Path
) -> None:
    trusted = Trusted(made(tmp_path, split, half), split, ["label_gate"])
    if reader.needs_history and not reader.cloze:
        before = trusted.digest
        read_by(reader, trusted, split)
        assert trusted.digest == before, "all decisions, as at first"
        return
    with pytest.raises(KnowledgeError, match="only after the last train event(.|\n)*no decision with a label"):
        read_by(reader, trusted, split)


def test_a_factorization_is_refused_the_gate_before_it_is_trained(split: Split, tmp_path: Path) -> None:
    store = made(tmp_path / "a", split, half)
    for name in ("mf", "bert4rec"):
        with pytest.raises(KnowledgeError, match="label_gate could close"):
            train(name, split, {"dim": 4}, quick(epochs=1), losses={"cross_entropy": 0.5, "kl": 0.5},
                  knowledge=Trusted(store, split, ["label_gate"]))


def test_soft_losses_alone_are_refused_where_nothing_is_believed(split: Split, tmp_path: Path) -> None:
    flat = made(tmp_path, split, lambda user, target: (of_kind(user), [-3.0] * 10))
    doubtful = Trusted(flat, split, ["confidence"])
    for losses in ({"kl": 1.0}, {"kl": 1.0, "cross_entropy": 0.0}):
        with pytest.raises(KnowledgeError, match="weight of every decision is 0 .trust: confidence"):
            train("mf", split, {"dim": 4}, quick(epochs=1), losses=losses, knowledge=doubtful)
    nobody = Trusted(flat, split, left_out=np.ones(USERS, dtype=bool))
    with pytest.raises(KnowledgeError, match="users left out: 40"):
        train("mf", split, {"dim": 4}, quick(epochs=1), losses={"kl": 1.0}, knowledge=nobody)
    train("mf", split, {"dim": 4}, quick(epochs=1), losses={"kl": 1.0, "cross_entropy": 0.1}, knowledge=doubtful)


@pytest.mark.parametrize("by_user", [False, True])
def test_users_who_are_left_out_are_taught_nothing(by_user: bool, split: Split, tmp_path: Path) -> None:
    store = made(tmp_path, split, knows, by_user=by_user)
    out = np.zeros(USERS, dtype=bool)
    out[[0, 7, 13, 39]] = True
    trusted = Trusted(store, split, left_out=out)
    keys, users, _, _ = decisions(split)
    assert np.array_equal(trusted.batch(keys)["response.trust"], (~out[users]).astype(np.float32))
    active = open_key(split, np.array([0, 1, 7, 38, 39]))
    assert trusted.batch(active)["response.trust"].tolist() == [0, 1, 0, 1, 0]
    assert trusted.facts()["users_left_out"] == 4


def test_temperatures_go_with_their_decisions(split: Split, tmp_path: Path) -> None:
    def sharp(user: int, target: int | None) -> tuple[list[int], list[float]]:
        return of_kind(user), [-place * (0.5 + 0.1 * (user % 10)) for place in range(10)]

    store = made(tmp_path, split, sharp)
    keys = decisions(split)[0]
    trusted, found = Trusted(store, split, temperature=2.0), own_temperature(store, 2.0)
    assert np.array_equal(trusted.batch(keys[::-1])["response.temperature"], found[::-1])
    assert (trusted.batch(keys)["response.trust"] == 1).all()
    assert trusted.facts()["own_temperature"] is True


def test_the_digest_changes_with_whatever_changes_what_is_taught(split: Split, tmp_path: Path) -> None:
    store, out = made(tmp_path / "a", split, half), np.arange(USERS) < 3
    digests = [
        Trusted(store, split).digest, Trusted(store, split, ["agreement"]).digest,
        Trusted(store, split, ["label_gate"]).digest, Trusted(store, split, left_out=out).digest,
        Trusted(store, split, left_out=~out).digest, Trusted(store, split, temperature=1.0).digest,
        Trusted(made(tmp_path / "b", split, knows), split).digest, store.digest]
    assert len(set(digests)) == len(digests)
    assert Trusted(store, split, ["agreement"]).digest == digests[1]


def test_an_unknown_rule_and_a_store_without_answers_are_refused(split: Split, tmp_path: Path) -> None:
    store = made(tmp_path / "a", split, knows)
    with pytest.raises(RecipeError, match="did you mean 'agreement'"):
        Trusted(store, split, ["agrement"])
    writer = StoreWriter(tmp_path / "b", {"dataset_digest": split.dataset.digest, "split_digest": split.digest})
    writer.write("query", 0, {"keys": np.arange(3), "values": np.zeros((3, 2), dtype=np.float16)})
    writer.finish({"query": Signal("query", "vector", "event")}, {})
    with pytest.raises(KnowledgeError, match="no answers"):
        Trusted(KnowledgeStore(tmp_path / "b", split), split, ["agreement"])
    with pytest.raises(KnowledgeError, match="nothing about 1 of 1"):
        Trusted(store, split).batch(open_key(split, np.array([13])))
