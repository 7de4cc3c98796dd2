"""Every soft loss in a step: it teaches, it counts what it says, and what it lacks is named before training."""

from __future__ import annotations

import dataclasses
import functools
import itertools
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file
from torch import Tensor, nn

from core_world import quick, walk_split
from distilrec.errors import KnowledgeError, RecipeError, TrainingError
from distilrec.knowledge.extract import decisions, extract
from distilrec.knowledge.inner import INNER, lacks
from distilrec.knowledge.store import KnowledgeStore
from distilrec.losses import SOFT
from distilrec.losses.attention_transfer import attention_transfer
from distilrec.losses.candidates import ranks
from distilrec.losses.layer_hint import layer_hint
from distilrec.losses.sobolev import sobolev
from distilrec.models.sasrec import SASRec
from distilrec.models.sensitivity import sensitivity
from distilrec.models.trained import Trained, create
from distilrec.training.batches import Batch
from distilrec.training.fit import RankWork, fit
from distilrec.training.learner import RankLearner, learner_of
from distilrec.training.objective import objective
from distilrec.training.settings import TrainSettings
from distilrec.training.train import train
from distilrec.training.weighting import consistency, pace, self_paced
from distilrec.types import Split

pytestmark = [pytest.mark.req(number) for number in ("C2", "C3", "C4", "C5", "C7", "C8")]

SPLIT = walk_split(users=12, items=18, length=7)
BY_RESPONSE = [name for name, signal in SOFT.items() if signal == "response"]
TERMS = list(SOFT)


@functools.cache
def wild(name: str, *, dim: int = 8, length: int = 6, seed: int = 1) -> nn.Module:
    """A model that has an opinion, without the time that training takes."""
    net = create(name, SPLIT, {"dim": dim, "max_length": length, "dropout": 0.0}, seed=seed)[0]
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for weight in net.parameters():
            weight.add_(0.4 * torch.randn(weight.shape, generator=generator))
    return net.eval()


@pytest.fixture(scope="module")
def stores(tmp_path_factory: pytest.TempPathFactory) -> dict[str, KnowledgeStore]:
    """All that a transformer, a factorization and a recurrent network can say."""
    found = {}
    for name in ("sasrec", "mf", "gru4rec"):
        teacher = Trained(name, wild(name), name, {}, SPLIT.digest)
        signals = [signal for signal in INNER if lacks(teacher, signal) is None]
        found[name] = extract(teacher, SPLIT, tmp_path_factory.mktemp(name), top_k=5, signals=signals)
    return found


def student_of(name: str, **more: Any) -> nn.Module:
    net = create(name, SPLIT, {"dim": 4, "max_length": 6, "dropout": 0.0, **more}, seed=3)[0]
    with torch.no_grad():
        for weight in net.parameters():
            weight.add_(0.3 * torch.randn(weight.shape, generator=torch.Generator().manual_seed(5)))
    return net


class World:
    """One batch of all users, a student and what a teacher says of it."""

    def __init__(self, loss: str | dict[str, float], store: KnowledgeStore, student: str = "sasrec", **settings: Any):
        self.losses = {loss: 1.0} if isinstance(loss, str) else loss
        shape = {"max_length": settings.pop("max_length", 6)}
        self.settings = TrainSettings(batch_size=SPLIT.n_users, **{"negatives": "full", **settings})
        self.model = student_of(student, **shape)
        self.work = RankWork(self.model, SPLIT, self.settings, losses=self.losses, knowledge=store)
        torch.manual_seed(0)
        self.learner = learner_of(self.model, self.losses, self.work.taught, self.work.teacher_width,
                                  self.settings.experts)
        self.batch, self.negatives, self.known, _ = next(self.work.batches(np.random.default_rng(0)))

    def loss(self, known: dict[str, Any] | None = None, batch: Batch | None = None, done: float = 0.0,
             negatives: Any = "own") -> Tensor:
        torch.manual_seed(0)  # the choice among experts
        return objective(self.learner, batch or self.batch, self.negatives if negatives == "own" else negatives,
                         self.losses, self.settings, self.known if known is None else known, self.work.taught,
                         done=done, n_events=len(SPLIT.items))[0]

    def by_decision(self) -> np.ndarray:
        """float64 [n]: what each decision costs, by trusting one after the other."""
        count, out = int(self.batch.soft.sum()), []
        for one in np.eye(count, dtype=np.float32):
            out.append(self.loss({**self.known, "response.trust": one}).item() * count)
        return np.array(out)

    def gradients(self, loss: Tensor) -> dict[str, Tensor]:
        self.learner.zero_grad()
        loss.backward()
        return {name: p.grad.clone() for name, p in self.learner.named_parameters() if p.grad is not None}


def able(loss: str, student: str, teacher: str) -> bool:
    needs_history = SOFT[loss] in ("attention", "gradient", "layers")
    return not (needs_history and "mf" in (student, teacher))


@pytest.mark.parametrize("negatives", ["full", 6])
@pytest.mark.parametrize(("name", "student", "teacher"), [
    case for case in itertools.product(TERMS, ("sasrec", "mf"), ("sasrec", "mf")) if able(*case)])
def test_every_soft_loss_gives_every_student_a_finite_gradient(
    name: str, student: str, teacher: str, negatives: Any, stores: dict[str, KnowledgeStore]
) -> None:
    world = World(name, stores[teacher], student, negatives=negatives)
    loss = world.loss()
    found = world.gradients(loss)
    assert math.isfinite(loss.item())
    assert loss.item() > 0
    assert all(torch.isfinite(g).all() for g in found.values())
    of_model = {key: g for key, g in found.items() if key.startswith("model.")}
    assert any(g.abs().max() > 1e-7 for g in of_model.values())
    step = 1e-4 / max(float(g.abs().max()) for g in found.values())
    with torch.no_grad():
        for key, p in world.learner.named_parameters():
            if key in found:
                p -= step * found[key]
    assert world.loss().item() < loss.item(), "a small step against the gradient lowers it"


def test_a_recurrent_student_learns_sensitivity(stores: dict[str, KnowledgeStore]) -> None:
    world = World("sobolev", stores["gru4rec"], "gru4rec")
    found = world.gradients(world.loss())
    assert any(g.abs().max() > 1e-6 for g in found.values())
    assert all(torch.isfinite(g).all() for g in found.values())


@pytest.mark.parametrize("weighting", [[], ["consistency", "curriculum"]])
@pytest.mark.parametrize("name", TERMS)
def test_a_batch_of_altered_histories_has_no_soft_decision_and_costs_nothing(
    name: str, weighting: list[str], stores: dict[str, KnowledgeStore]
) -> None:
    world = World({name: 1.0, "cross_entropy": 1.0}, stores["sasrec"], negatives=6, weighting=weighting, experts=2)
    none = dataclasses.replace(world.batch, soft=np.zeros_like(world.batch.soft))
    known = stores["sasrec"].batch(none.keys[none.soft])
    loss = world.loss(known, none)
    plain = objective(world.model, none, world.negatives, {"cross_entropy": 1.0}, world.settings)[0]
    assert loss.item() == pytest.approx(plain.item())
    assert all(torch.isfinite(g).all() for g in world.gradients(loss).values())


@pytest.mark.parametrize("name", BY_RESPONSE)
@pytest.mark.parametrize("student", ["sasrec", "mf"])
def test_all_items_drawn_is_the_whole_catalog(name: str, student: str, stores: dict[str, KnowledgeStore]) -> None:
    world = World(name, stores["sasrec"], student, temperature=2.0)
    drawn = (np.random.default_rng(1).permutation(SPLIT.n_items), 0.0)
    full, sampled = world.loss(negatives=None), world.loss(negatives=drawn)
    torch.testing.assert_close(full, sampled)
    of_full, of_sampled = world.gradients(full), world.gradients(sampled)
    for key, gradient in of_full.items():
        torch.testing.assert_close(gradient, of_sampled[key], atol=1e-6, rtol=1e-3)


@pytest.mark.parametrize("power", [0.0, 0.9])
def test_a_sample_of_what_stands_outside_the_list_stands_for_all_of_it(
    power: float, stores: dict[str, KnowledgeStore]
) -> None:
    """The true item of a decision, and whatever stands in its place where there is none, is no more than the others."""
    world = World("collaborative_distillation", stores["sasrec"], "mf", negatives=8, negative_power=power)
    with torch.no_grad():
        world.model.get_parameter("table.weight")[0] *= 9  # an item that everybody notices
        rng = np.random.default_rng(0)
        values = [world.loss(negatives=world.work.draws.draw(rng)).item() for _ in range(150)]
        whole = world.loss(negatives=None).item()
    assert np.mean(values) == pytest.approx(whole, abs=0.02 * whole + 3 * np.std(values) / np.sqrt(150))


# --- weights of decisions


@pytest.mark.parametrize("name", TERMS)
def test_trust_multiplies_what_a_decision_costs(name: str, stores: dict[str, KnowledgeStore]) -> None:
    world = World(name, stores["sasrec"])
    count = int(world.batch.soft.sum())
    ones, some = np.ones(count, dtype=np.float32), np.random.default_rng(0).random(count).astype(np.float32)

    def trusted(weights: np.ndarray) -> Tensor:
        return world.loss({**world.known, "response.trust": weights})

    torch.testing.assert_close(trusted(ones), world.loss())
    torch.testing.assert_close(trusted(some) + trusted(1 - some), world.loss())
    torch.testing.assert_close(trusted(3 * some), 3 * trusted(some))
    nothing = trusted(0 * ones)
    assert nothing.item() == 0
    assert all((g == 0).all() for g in world.gradients(nothing).values())


def test_the_pace_of_a_curriculum_and_its_weights() -> None:
    assert [pace(0.0), pace(0.25), pace(0.5), pace(1.0)] == pytest.approx([0.3, 0.65, 1.0, 1.0])
    values = torch.tensor([5.0, 1.0, 3.0, 2.0, 4.0])
    assert self_paced(values, 0.4).tolist() == [0, 2.5, 0, 2.5, 0]
    assert self_paced(values, 0.01).tolist() == [0, 5, 0, 0, 0]
    assert self_paced(values, 1.0).tolist() == [1] * 5
    assert self_paced(values[:1], 0.3).tolist() == [1]
    assert self_paced(values[:0], 0.3).tolist() == []


@pytest.mark.parametrize("name", ["kl", "relaxed_ranking", "hint"])
def test_a_curriculum_counts_the_easiest_decisions(name: str, stores: dict[str, KnowledgeStore]) -> None:
    plain, paced = World(name, stores["sasrec"]), World(name, stores["sasrec"], weighting=["curriculum"])
    each = np.sort(plain.by_decision())
    for done, share in ((0.0, 0.3), (0.25, 0.65)):
        assert paced.loss(done=done).item() == pytest.approx(each[: round(share * len(each))].mean(), rel=1e-4)
    assert paced.loss(done=0.5).item() == pytest.approx(each.mean(), rel=1e-4)


def test_consistency_is_the_share_of_belief_that_both_hold() -> None:
    student = torch.tensor([[3.0, 2.0], [3.0, -9.0], [-9.0, -8.0]])
    teacher = torch.log(torch.tensor([[0.5, 0.5], [0.25, 0.75], [0.9, 0.1]]))
    others = torch.zeros(3, 4)
    weight = torch.tensor([1.0, 0.25, 0.0]) + 1e-3
    torch.testing.assert_close(consistency(student, teacher, others, 1.0), weight / weight.mean())
    assert consistency(student[:0], teacher[:0], others[:0], 1.0).shape == (0,)


def test_consistency_weighs_each_decision_and_takes_trust_along(stores: dict[str, KnowledgeStore]) -> None:
    plain, weighed = World("kl", stores["sasrec"]), World("kl", stores["sasrec"], weighting=["consistency"])
    each, known = plain.by_decision(), plain.known
    net: Any = plain.model
    batch = plain.batch
    with torch.no_grad():
        q = net.query(torch.as_tensor(batch.items), torch.as_tensor(batch.lengths)).flatten(0, 1)
        scores = q[torch.as_tensor(batch.positions)] @ net.item_vectors().T
    ids = torch.as_tensor(known["response.ids"]).long()
    agreed = ranks(scores.gather(1, ids), scores.scatter(1, ids, -torch.inf)) <= ids.shape[1]
    weight = (torch.softmax(torch.as_tensor(known["response"]), 1) * agreed).sum(1).numpy() + 1e-3
    weight /= weight.mean()
    assert weight.std() > 0.1
    assert weighed.loss().item() == pytest.approx((each * weight).mean(), rel=1e-4)
    trust = np.random.default_rng(0).random(len(each)).astype(np.float32)
    both = weighed.loss({**known, "response.trust": trust})
    assert both.item() == pytest.approx((each * weight * trust).mean(), rel=1e-4)


def test_the_balance_moves_from_one_kind_of_loss_to_the_other(stores: dict[str, KnowledgeStore]) -> None:
    losses = {"cross_entropy": 0.5, "kl": 2.0}
    hard = World({"cross_entropy": 0.5, "kl": 0.0}, stores["sasrec"]).loss().item()
    soft = World({"cross_entropy": 0.0, "kl": 2.0}, stores["sasrec"]).loss().item()
    falling = World(losses, stores["sasrec"], balance="soft-then-hard")
    rising = World(losses, stores["sasrec"], balance="hard-then-soft")
    for done in (0.0, 0.3, 1.0):
        assert falling.loss(done=done).item() == pytest.approx(2 * (1 - done) * soft + 2 * done * hard, rel=1e-4)
        assert rising.loss(done=done).item() == pytest.approx(2 * done * soft + 2 * (1 - done) * hard, rel=1e-4)
    for balance in ("constant", "soft-then-hard", "hard-then-soft"):
        settings = TrainSettings(balance=balance)
        for soft_one in (False, True):
            assert np.mean([settings.share(soft_one, (e + 0.5) / 10) for e in range(10)]) == pytest.approx(1.0)


def test_an_own_temperature_replaces_the_common_one(stores: dict[str, KnowledgeStore]) -> None:
    for name in ("kl", "listnet", "grouped_kl", "rejuvenated_cross_entropy", "collaborative_distillation"):
        common, own = World(name, stores["sasrec"], temperature=3.0), World(name, stores["sasrec"], temperature=1.5)
        each = np.full(int(own.batch.soft.sum()), 3.0, dtype=np.float32)
        torch.testing.assert_close(own.loss({**own.known, "response.temperature": each}), common.loss())


# --- bridges


@pytest.mark.parametrize("experts", [1, 3])
def test_bridges_learn_and_stay_behind(experts: int, stores: dict[str, KnowledgeStore], tmp_path: Path) -> None:
    world = World("hint", stores["sasrec"], experts=experts)
    found = world.gradients(world.loss())
    for bridge in ("query", "item"):
        of_bridge = {key: g for key, g in found.items() if key.startswith(f"bridges.{bridge}.")}
        assert len({key.split(".")[3] for key in of_bridge if ".experts." in key}) == experts
        assert any(g.abs().max() > 0 for g in of_bridge.values())
        if experts > 1:
            assert any(g.abs().max() > 0 for key, g in of_bridge.items() if ".choose." in key)
    shape = {"dim": 4, "max_length": 6}
    trained = train("sasrec", SPLIT, shape, quick(epochs=1, experts=experts), losses={"hint": 1.0},
                    knowledge=stores["sasrec"], folder=tmp_path / "m")
    assert set(load_file(tmp_path / "m" / "model.safetensors")) == set(create("sasrec", SPLIT, shape)[0].state_dict())
    assert Trained.load(tmp_path / "m", SPLIT).digest == trained.digest
    assert not isinstance(trained.model, RankLearner)


def test_a_hint_alone_is_learned(stores: dict[str, KnowledgeStore]) -> None:
    """A student of the teacher's own width and a bridge can become what the teacher is."""
    done = fit(create("sasrec", SPLIT, {"dim": 8, "max_length": 6, "dropout": 0.0})[0], SPLIT,
               quick(epochs=40, learning_rate=2e-2, evaluate_every=40, patience=40), losses={"hint": 1.0},
               knowledge=stores["sasrec"])
    assert done.curve[-1]["loss"] < 0.5, "standardized vectors cost 1 where nothing is known"


# --- hints of all layers


@functools.cache
def layered(name: str, layers: int, width: int = 12) -> nn.Module:
    net = create(name, SPLIT, {"dim": 8, "hidden": width, "layers": layers, "max_length": 6, "dropout": 0.0}, seed=1)[0]
    with torch.no_grad():
        for weight in net.parameters():
            weight.add_(0.4 * torch.randn(weight.shape, generator=torch.Generator().manual_seed(1)))
    return net.eval()


def layers_of(name: str, layers: int, folder: Path) -> KnowledgeStore:
    return extract(Trained(name, layered(name, layers), name, {}, SPLIT.digest), SPLIT, folder, top_k=3,
                   signals=["layers"])


@pytest.mark.parametrize(("teacher", "depth", "student", "own"), [
    ("sasrec", 3, "sasrec", 1), ("sasrec", 1, "hstu", 3), ("hstu", 2, "sasrec", 2), ("bert4rec", 2, "sasrec", 1),
    ("sasrec", 2, "bert4rec", 1)])
def test_students_of_any_depth_and_width_learn_the_layers(
    teacher: str, depth: int, student: str, own: int, tmp_path: Path
) -> None:
    """The term falls, and what it moves is the student and not its bridges alone."""
    store = layers_of(teacher, depth, tmp_path)
    shape = {"dim": 8, "layers": own, "max_length": 6, "dropout": 0.0}
    cost = {}
    for learns in (True, False):
        net = create(student, SPLIT, {**shape, **({"mask_share": 0.0} if student == "bert4rec" else {})}, seed=3)[0]
        before = {key: tensor.clone() for key, tensor in net.state_dict().items()}
        if not learns:
            for weight in net.parameters():
                weight.requires_grad_(False)
        done = fit(net, SPLIT, quick(epochs=30, learning_rate=2e-2, evaluate_every=30, patience=30),
                   losses={"layer_hint": 1.0}, knowledge=store)
        cost[learns] = done.curve[-1]["loss"]
        moved = [key for key, tensor in net.state_dict().items() if not torch.equal(before[key], tensor)]
        assert {key.split(".")[1] for key in moved if key.startswith("blocks.")} == \
            ({str(i) for i in range(own)} if learns else set())
    assert cost[True] < 0.85 * cost[False], "bridges alone cannot do it"
    assert cost[True] < 0.7, "standardized states cost about 1 where nothing is known"


def test_a_layer_hint_is_of_the_pass_that_answers(tmp_path: Path) -> None:
    """At every soft decision, by hand, and without a second look at the history."""
    store = layers_of("sasrec", 3, tmp_path)
    world = World("layer_hint", store)
    net: Any = world.model
    items = torch.as_tensor(world.batch.items)
    at = torch.as_tensor(world.batch.positions[world.batch.soft])
    x, ours = net._embed(items), []
    for block, bridge in zip(net.blocks, world.learner.bridges["layers"].maps, strict=True):
        x = block(x)
        ours.append(bridge(torch.nn.functional.layer_norm(x, x.shape[-1:])).flatten(0, 1)[at])
    keys = decisions(SPLIT)[0]
    theirs = torch.as_tensor(store.batch(keys)["layers"])
    mean, deviation = theirs.mean(2, keepdim=True), theirs.std(2, keepdim=True, correction=0)
    theirs = (theirs - mean) / (deviation**2 + 1e-5).sqrt()
    theirs = (theirs - theirs.mean(0)) / theirs.std(0, correction=0)
    rows = np.searchsorted(keys, world.batch.keys[world.batch.soft])
    expected = layer_hint(torch.stack(ours, 1), theirs[rows])
    assert world.loss().item() == pytest.approx(expected.mean().item(), rel=1e-3)
    calls = []
    handle = net.blocks[0].register_forward_hook(lambda *_: calls.append(1))
    world.loss()
    handle.remove()
    assert len(calls) == 1, "the states cost no second pass"
    assert not any(block._forward_hooks for block in net.blocks)


def test_the_bridges_of_the_layers_stay_behind_and_the_weight_of_a_hint_is_not_the_batchs(tmp_path: Path) -> None:
    store = layers_of("sasrec", 3, tmp_path)
    shape = {"dim": 4, "max_length": 6, "layers": 1}
    trained = train("sasrec", SPLIT, shape, quick(epochs=1), losses={"layer_hint": 1.0}, knowledge=store,
                    folder=tmp_path / "m")
    assert set(load_file(tmp_path / "m" / "model.safetensors")) == set(create("sasrec", SPLIT, shape)[0].state_dict())
    assert not isinstance(trained.model, RankLearner)
    world = World("layer_hint", store)
    each = world.by_decision()
    some = np.flatnonzero(world.batch.soft)[::3]
    few = dataclasses.replace(world.batch, soft=np.isin(np.arange(len(world.batch.soft)), some))
    loss = world.loss(store.batch(few.keys[few.soft]), few)
    assert loss.item() == pytest.approx(each[::3].mean(), rel=1e-4)


# --- what is missing is named before the first step


@pytest.mark.parametrize("name", [name for name, signal in SOFT.items() if signal != "response"])
def test_a_missing_signal_is_named_with_the_command_that_makes_it(name: str, tmp_path: Path) -> None:
    plain = extract(Trained("t", wild("sasrec"), "sasrec", {}, SPLIT.digest), SPLIT, tmp_path, top_k=3)
    model = student_of("sasrec")
    before = {key: tensor.clone() for key, tensor in model.state_dict().items()}
    with pytest.raises(KnowledgeError) as caught:
        fit(model, SPLIT, quick(epochs=1), losses={"cross_entropy": 0.5, name: 0.5}, knowledge=plain)
    said = str(caught.value)
    assert name in said
    assert f"the teacher's {SOFT[name]!r}" in said
    assert "distilrec extract" in said
    assert f'signals=["{SOFT[name]}"]' in said
    assert all(torch.equal(before[key], tensor) for key, tensor in model.state_dict().items())


@pytest.mark.parametrize(("name", "student"), [
    ("attention_transfer", "gru4rec"), ("attention_transfer", "mf"), ("sobolev", "mf"), ("layer_hint", "gru4rec"),
    ("layer_hint", "mf")])
def test_a_student_that_has_no_such_thing_is_refused(
    name: str, student: str, stores: dict[str, KnowledgeStore]
) -> None:
    with pytest.raises(RecipeError, match=name):
        fit(student_of(student), SPLIT, quick(epochs=1), losses={name: 1.0}, knowledge=stores["sasrec"])


# --- attention and sensitivity themselves


def padded(length: int = 6) -> tuple[Tensor, Tensor]:
    rng = np.random.default_rng(0)
    lengths = np.array([1, 2, 5, length])
    items = np.full((4, length), SPLIT.n_items)
    for row, size in enumerate(lengths):
        items[row, :size] = rng.integers(0, SPLIT.n_items, size)
    return torch.as_tensor(items), torch.as_tensor(lengths)


def test_attention_is_the_mean_of_the_heads_over_visible_events() -> None:
    net: Any = wild("sasrec")
    items, lengths = padded()
    for last in (lengths - 1, (lengths - 2).clamp(min=0)):
        with torch.no_grad():
            found = net.attention(items, lengths, last)
            x = net.enter(net.table(items)) + net.positions[: items.shape[1]]
            for block in net.blocks[:-1]:
                x = block(x)
            block = net.blocks[-1]
            width = x.shape[2]
            size = width // block.heads
            normed = block.norm1(x)
            q = normed @ block.qkv.weight[:width].T + block.qkv.bias[:width]
            k = normed @ block.qkv.weight[width : 2 * width].T + block.qkv.bias[width : 2 * width]
            for row in range(len(items)):
                at = int(last[row])
                expected = torch.zeros(items.shape[1])
                for head in range(block.heads):
                    part = slice(head * size, (head + 1) * size)
                    weights = [math.exp(float(q[row, at, part] @ k[row, j, part]) / math.sqrt(size))
                               for j in range(at + 1)]
                    expected[: at + 1] += torch.tensor(weights) / sum(weights) / block.heads
                torch.testing.assert_close(found[row], expected, atol=1e-5, rtol=1e-4)
                assert (found[row, at + 1 :] == 0).all()
        torch.testing.assert_close(found.sum(1), torch.ones(len(items)))


def test_a_transformer_without_layers_says_that_it_has_no_attention() -> None:
    net = SASRec(5, dim=4, layers=0, max_length=3)
    with pytest.raises(TrainingError, match="without layers"):
        net.attention(torch.zeros(1, 3, dtype=torch.long), torch.tensor([3]), torch.tensor([2]))


@pytest.mark.parametrize("name", ["sasrec", "gru4rec"])
def test_sensitivity_against_finite_differences(name: str) -> None:
    net: Any = create(name, SPLIT, {"dim": 8, "max_length": 6, "dropout": 0.0})[0]
    net.load_state_dict(wild(name).state_dict())
    net = net.double().eval()
    items, lengths = padded()
    target, last, small = torch.tensor([3, 0, 7, 17]), lengths - 1, 1e-5
    found = sensitivity(net, items, lengths, last, target)

    def scores(factors: Tensor) -> Tensor:
        handle = net.table.register_forward_hook(lambda _m, _i, output: output * factors[:, :, None])
        try:
            with torch.no_grad():
                q = net.query(items, lengths)[torch.arange(4), last]
                return (q * net.item_vectors()[target]).sum(1)
        finally:
            handle.remove()

    for place in range(items.shape[1]):
        step = torch.zeros(items.shape, dtype=torch.float64)
        step[:, place] = small
        slope = (scores(1 + step) - scores(1 - step)) / (2 * small)
        torch.testing.assert_close(found[:, place].double(), torch.where(place <= last, slope, 0.0),
                                   atol=1e-5, rtol=1e-3)
    assert not net.table._forward_hooks, "no hook is left behind"


def test_a_failed_look_leaves_no_hook_behind() -> None:
    net: Any = student_of("sasrec")
    items, lengths = padded()
    with pytest.raises(IndexError):
        sensitivity(net, items, lengths, lengths - 1, torch.full((4,), 10**6))
    assert not net.table._forward_hooks


@pytest.mark.parametrize(("name", "signal"), [("attention_transfer", "attention"), ("sobolev", "gradient")])
def test_a_student_of_a_shorter_history_is_compared_on_what_both_see(
    name: str, signal: str, stores: dict[str, KnowledgeStore]
) -> None:
    world = World(name, stores["sasrec"], max_length=3)
    net: Any = world.model
    batch, known = world.batch, world.known
    is_open = batch.keys >= len(SPLIT.items)
    assert is_open.sum() == SPLIT.n_users
    values = []
    for at, row in zip(batch.positions[is_open], np.flatnonzero(is_open), strict=True):
        sequence, last = divmod(int(at), batch.items.shape[1])
        items = torch.as_tensor(batch.items[sequence : sequence + 1])
        lengths, end = torch.as_tensor(batch.lengths[sequence : sequence + 1]), torch.tensor([last])
        seen = last + 1
        theirs = torch.as_tensor(known[signal][row : row + 1, :seen])
        if signal == "attention":
            ours = net.attention(items, lengths, end)[:, :seen].flip(1)
            values.append(attention_transfer(ours, theirs / theirs.sum(1)).item())
        else:
            best = torch.as_tensor(known["response.ids"][row : row + 1, 0]).long()
            ours = sensitivity(net, items, lengths, end, best)[:, :seen].flip(1)
            values.append(sobolev(ours, theirs).item())
    assert world.loss().item() == pytest.approx(np.mean(values), rel=1e-4)
    assert world.loss().item() < 5, "what a student cannot see costs nothing"


def test_the_split_is_read_by_no_fixture_in_place() -> None:
    """The worlds of this file share a split; nothing here may have moved it."""
    other: Split = walk_split(users=12, items=18, length=7)
    assert other.digest == SPLIT.digest


@pytest.mark.parametrize("student", ["mf", "sasrec"])
@pytest.mark.parametrize("name", ["hint", "full_topology", "hierarchical_topology", "relation_distance"])
def test_all_true_items_of_a_batch_are_compared_with_the_teachers(
    name: str, student: str, stores: dict[str, KnowledgeStore]
) -> None:
    """Not only those of decisions with soft labels, of which a model without history has one a user."""
    world = World(name, stores["sasrec"], student)
    net: Any = world.model
    truth = np.unique(world.batch.targets[world.batch.labeled])
    assert len(truth) > len(np.unique(world.batch.targets[world.batch.soft & world.batch.labeled])) or student != "mf"
    table = net.item_vectors().detach().clone().requires_grad_()
    net.item_vectors = lambda: table
    world.loss().backward()
    assert table.grad is not None
    moved = np.flatnonzero(table.grad.abs().sum(1).numpy() > 0)
    np.testing.assert_array_equal(moved, truth)
