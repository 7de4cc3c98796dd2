"""The loop: it learns, stops in time, keeps the best, survives a kill, and never goes on in silence."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Collection
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest
import torch
from safetensors import safe_open
from torch import nn

import distilrec
from core_world import checkerboard, quick, split_of, walk_split
from distilrec.errors import RecipeError, TrainingError
from distilrec.knowledge.extract import extract
from distilrec.knowledge.store import KnowledgeStore
from distilrec.models import MODELS
from distilrec.models.popularity import Popularity
from distilrec.models.trained import Trained, create
from distilrec.training import checkpoint, loop
from distilrec.training import fit as fit_module
from distilrec.training.checkpoint import NAME
from distilrec.training.fit import fit
from distilrec.training.settings import Augment, TrainSettings
from distilrec.training.validate import validate
from distilrec.types import Split

pytestmark = pytest.mark.req("C6")

MODEL = {"dim": 8, "layers": 1, "dropout": 0.2, "max_length": 6}


@pytest.fixture(scope="module")
def split() -> Split:
    return walk_split()


def net(split: Split, name: str = "sasrec", **more: Any) -> nn.Module:
    return create(name, split, {"dim": 8, "max_length": 6, "dropout": 0.2, **more})[0]


def weights(model: nn.Module) -> dict[str, torch.Tensor]:
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}


def same(one: dict[str, torch.Tensor], two: dict[str, torch.Tensor]) -> bool:
    return one.keys() == two.keys() and all(torch.equal(one[name], two[name]) for name in one)


@pytest.mark.parametrize("name", list(MODELS))
@pytest.mark.parametrize("loss", ["cross_entropy", "bpr"])
def test_the_loss_falls_and_the_metric_rises(name: str, loss: str) -> None:
    split = checkerboard()
    model = net(split, name)
    before = validate(model, split, "ndcg@10")
    done = fit(model, split, quick(epochs=20, learning_rate=3e-2), losses={loss: 1.0})
    losses = [point["loss"] for point in done.curve]
    assert losses[-1] < 0.9 * losses[0]
    assert done.best > before + 0.05
    assert [point["epoch"] for point in done.curve] == list(range(1, 1 + done.epochs))
    assert done.steps == done.epochs * -(-60 // 16)
    assert done.seconds > 0


@pytest.mark.parametrize("sampled", [{}, {"negative_power": 0.5}])
def test_sampled_negatives_learn_like_the_full_catalog(split: Split, sampled: dict[str, float]) -> None:
    full, few = net(split), net(split)
    fit(full, split, quick(epochs=15))
    fit(few, split, quick(epochs=15, negatives=8, **sampled))
    assert validate(few, split, "ndcg@10") > 0.8 * validate(full, split, "ndcg@10")


def test_the_best_weights_come_back_and_it_stops_early(split: Split) -> None:
    model = net(split)
    # far too large a rate: the best epoch is an early one
    done = fit(model, split, quick(epochs=60, learning_rate=0.1, patience=3, schedule="constant"))
    assert done.epochs == done.best_epoch + 3 < 60
    assert done.best == max(point["valid"] for point in done.curve)
    assert validate(model, split, "ndcg@10") == done.best
    assert not model.training


def test_patience_counts_evaluations(split: Split) -> None:
    done = fit(net(split), split, quick(epochs=60, learning_rate=0.1, patience=2, evaluate_every=3))
    assert {point["epoch"] % 3 for point in done.curve} == {0}
    assert done.epochs == done.best_epoch + 6


def test_a_control_gets_its_minimum_of_steps(split: Split) -> None:
    settings = quick(epochs=40, learning_rate=0.2, patience=1)
    early = fit(net(split), split, settings)
    late = fit(net(split), split, settings, min_steps=early.steps + 20)
    assert early.steps < early.steps + 20 <= late.steps


@pytest.mark.parametrize("optimizer", [  # lazy_adam is for tables of features, and refused here
    name for name in get_args(TrainSettings.model_fields["optimizer"].annotation) if name != "lazy_adam"])
@pytest.mark.parametrize("schedule", get_args(TrainSettings.model_fields["schedule"].annotation))
def test_every_optimizer_and_schedule_learns_and_resumes(
    optimizer: str, schedule: str, split: Split, tmp_path: Path
) -> None:
    # adam with decay and SGD's rate are chosen by kind: what is equal for all is that the loss falls
    rate = {"sgd": 0.5, "adagrad": 0.05}.get(optimizer, 0.01)
    settings = quick(
        epochs=6,
        optimizer=optimizer,
        schedule=schedule,
        warmup_steps=3,
        weight_decay=0.01,
        learning_rate=rate,
        gradient_clip=1.0,
    )
    whole, parted = net(split), net(split)
    done = fit(whole, split, settings)
    assert done.curve[-1]["loss"] < done.curve[0]["loss"]
    stop_after(parted, split, settings, 3, tmp_path)
    fit(parted, split, settings, folder=tmp_path)
    assert same(weights(whole), weights(parted))


def stop_after(model: nn.Module, split: Split, settings: TrainSettings, epochs: int, folder: Path) -> None:
    """Train and stop in the middle of the epoch after `epochs`, as a kill would."""

    class Stopped(Exception):
        pass

    original, calls = loop._step, []

    def step(*args: Any, **kwargs: Any) -> torch.Tensor:
        calls.append(1)
        if len(calls) > epochs * -(-split.n_users // settings.batch_size) + 1:
            raise Stopped
        return original(*args, **kwargs)

    loop._step = step
    try:
        with pytest.raises(Stopped):
            fit(model, split, settings, folder=folder)
    finally:
        loop._step = original


def test_the_schedules_have_their_shapes() -> None:
    def factors(**changes: Any) -> list[float]:
        factor = loop.schedule(quick(epochs=10, **changes), 10)
        return [factor(step) for step in range(101)]

    assert factors(schedule="constant") == [1.0] * 101
    warm = factors(schedule="constant", warmup_steps=4)
    assert warm[:5] == [0.25, 0.5, 0.75, 1.0, 1.0]
    linear, cosine = factors(schedule="linear"), factors(schedule="cosine")
    assert linear[50] == pytest.approx(0.505)
    assert cosine[50] == pytest.approx(0.505)
    assert linear[100] == pytest.approx(0.01)
    assert cosine[100] == pytest.approx(0.01)
    assert (np.diff(linear) < 0).all()
    assert (np.diff(cosine) <= 1e-12).all()


def test_weight_decay_spares_norms_and_biases(split: Split) -> None:
    model = net(split, bias=True)
    decayed, spared = loop.make_optimizer(model, quick(weight_decay=0.1)).param_groups
    assert decayed["weight_decay"] == 0.1
    assert spared["weight_decay"] == 0.0
    assert all(p.dim() > 1 for p in decayed["params"])
    assert sum(len(group["params"]) for group in (decayed, spared)) == len(list(model.parameters()))


@pytest.mark.parametrize("name", list(MODELS))
def test_bf16_trains(name: str, split: Split) -> None:
    model, exact = net(split, name), net(split, name)
    done = fit(model, split, quick(epochs=6, learning_rate=3e-2, precision="bf16", negatives=12))
    twin = fit(exact, split, quick(epochs=6, learning_rate=3e-2, negatives=12))
    # which gaps a model that fills them is asked for changes by epoch, and its loss with them
    assert done.curve[-1]["loss"] < done.curve[0]["loss"] or getattr(model, "cloze", False)
    assert done.curve[-1]["loss"] == pytest.approx(twin.curve[-1]["loss"], rel=0.03)
    assert not same(weights(model), weights(exact)), "bf16 was not used"
    assert all(p.dtype == torch.float32 and torch.isfinite(p).all() for p in model.parameters())


def test_augmentation_and_windows_train(split: Split) -> None:
    done = fit(
        net(split),
        split,
        quick(epochs=6, windows="all", label_smoothing=0.1, augment=Augment(crop=0.3, mask=0.3, reorder=0.3)),
    )
    assert done.curve[-1]["loss"] < done.curve[0]["loss"]


@pytest.mark.req("A4")
@pytest.mark.parametrize("name", list(MODELS))
@pytest.mark.parametrize("negatives", ["full", 10])
def test_every_model_learns_from_a_teacher_alone(name: str, negatives: Any, tmp_path: Path) -> None:
    split = checkerboard()
    teacher = Popularity.of(np.where(np.arange(split.n_items) < 4, 3.0, 0.0) - 0.01 * np.arange(split.n_items))
    knowledge = extract(teacher, split, tmp_path, top_k=8)
    model = net(split, name)
    settings = quick(epochs=20, learning_rate=3e-2, evaluate_every=20, negatives=negatives)  # the last weights count
    done = fit(model, split, settings, losses={"kl": 1.0}, knowledge=knowledge, seen="keep")
    assert done.curve[0]["loss"] < 0.3, "the mean loss of the last epoch"
    queries = split.histories(split.queries("test"))
    best = Trained("s", model, name, {}, split.digest).scores(queries).argsort(1)[:, -4:]
    assert (np.sort(best, 1) == np.arange(4)).mean() > 0.9


# --- what stops it


def test_a_nan_stops_with_a_message_and_keeps_the_checkpoint(split: Split, tmp_path: Path) -> None:
    settings = quick(epochs=8)
    whole = net(split)
    fit(whole, split, settings)
    model = net(split)
    original, seen = fit_module.objective, []

    def sick(*args: Any, **kwargs: Any) -> Any:
        seen.append(1)
        loss, values = original(*args, **kwargs)
        return (loss * float("nan") if len(seen) == 13 else loss), values

    fit_module.objective = sick
    try:
        with pytest.raises(TrainingError, match=r"the loss became nan at step 1\d \(epoch 4\)"):
            fit(model, split, settings, folder=tmp_path)
    finally:
        fit_module.objective = original
    healed = net(split)
    fit(healed, split, settings, folder=tmp_path)
    assert same(weights(whole), weights(healed)), "the last whole epoch was kept, and training went on from it"


def test_a_last_step_that_ruins_the_weights_is_not_the_best_epoch(split: Split) -> None:
    """The loss is still finite there; only the validation can notice, and NaN compares false with everything."""
    model, calls = net(split), []

    def ruin(*_: Any) -> None:
        calls.append(1)
        if len(calls) == 4:
            with torch.no_grad():
                next(iter(model.parameters())).fill_(float("nan"))

    original = torch.optim.AdamW.step
    try:
        torch.optim.AdamW.step = lambda self, *a, **k: (original(self, *a, **k), ruin())[0]  # type: ignore[method-assign]
        with pytest.raises(TrainingError, match="NaN"):
            fit(model, split, quick(epochs=3))
    finally:
        torch.optim.AdamW.step = original  # type: ignore[method-assign]


def test_a_diverging_rate_stops(split: Split) -> None:
    with pytest.raises(TrainingError, match="NaN|nan|inf"):
        fit(net(split), split, quick(epochs=30, optimizer="sgd", learning_rate=1e20, patience=30))


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ({"losses": {"cross_entropi": 1.0}}, "did you mean 'cross_entropy'"),
        ({"losses": {"cross_entropy": 0.2, "kl": 0.8}}, "there is no knowledge"),
        ({"metric": "ndgc@10"}, "cannot validate"),
    ],
)
def test_a_wrong_request_is_refused_before_any_step(how: dict[str, Any], message: str, split: Split) -> None:
    model = net(split)
    before = weights(model)
    with pytest.raises(RecipeError, match=message):
        fit(model, split, quick(), **how)
    assert same(before, weights(model))


def test_nothing_to_train_or_to_validate_on_is_an_error() -> None:
    lonely = split_of([([1], [2], [3])] * 3, 4)
    with pytest.raises(TrainingError, match="enough train events"):
        fit(net(lonely), lonely, quick())
    blind = split_of([([1, 2, 3], [], [0])] * 3, 4)
    with pytest.raises(TrainingError, match="no events"):
        fit(net(blind), blind, quick())


# --- kill and resume

RUN = """
import sys, torch
from pathlib import Path
torch.set_num_threads(1)
from core_world import quick, walk_split
from distilrec.models.trained import create
from distilrec.training.fit import fit
split = walk_split()
model = create("sasrec", split, {"dim": 8, "max_length": 6, "dropout": 0.2})[0]
fit(model, split, quick(epochs=400, patience=400, negatives=9, negative_power=0.5), folder=Path(sys.argv[1]))
print("finished")
"""


@pytest.mark.req("A4")
def test_a_killed_process_goes_on_to_the_same_bits(split: Split, tmp_path: Path) -> None:
    settings = quick(epochs=400, patience=400, negatives=9, negative_power=0.5)
    paths = [str(Path(__file__).parents[1]), str(Path(distilrec.__file__).parents[1])]
    process = subprocess.Popen(
        [sys.executable, "-c", RUN, str(tmp_path)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(paths), "OMP_NUM_THREADS": "1"},
    )
    deadline = time.monotonic() + 300
    while not (tmp_path / NAME).exists() and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.01)
    time.sleep(0.1)  # somewhere in an epoch, perhaps in the midst of a checkpoint
    process.kill()
    out, err = process.communicate()
    assert process.returncode == -9, (out, err)
    assert "finished" not in out
    begun = epochs_of(tmp_path)
    assert 0 < begun < 400
    stop = begun + 6  # going on to the very end would only cost time: the next epochs show all

    whole, resumed = net(split), net(split)
    first, second = run_until(whole, split, settings, None, stop), run_until(resumed, split, settings, tmp_path, stop)
    assert same(first, second)


def epochs_of(folder: Path) -> int:
    with safe_open(folder / NAME, framework="pt") as file:
        return int(json.loads(file.metadata()["distilrec"])["state"]["epochs"])


def run_until(
    model: nn.Module, split: Split, settings: TrainSettings, folder: Path | None, stop: int
) -> dict[str, torch.Tensor]:
    """The weights after `stop` epochs of a longer run."""

    class Stopped(Exception):
        pass

    original = loop.epoch

    def epoch(*args: Any) -> float:
        if args[-1].epochs == stop:
            raise Stopped
        return original(*args)

    loop.epoch = epoch
    try:
        with pytest.raises(Stopped):
            fit(model, split, settings, folder=folder)
    finally:
        loop.epoch = original
    return weights(model)


@pytest.mark.parametrize("name", list(MODELS))
def test_resuming_with_knowledge_and_augmentation_gives_the_same_weights(
    name: str, split: Split, tmp_path: Path
) -> None:
    knowledge = extract(Popularity.fit(split), split, tmp_path / "k", top_k=5)
    altered = Augment() if name == "bert4rec" else Augment(crop=0.3, mask=0.3, reorder=0.3)  # gaps are its own way
    settings = quick(epochs=5, negatives=9, augment=altered, schedule="cosine")
    how: dict[str, Any] = {"losses": {"cross_entropy": 0.5, "kl": 0.5}, "knowledge": knowledge}
    whole, parted = net(split, name), net(split, name)
    done = fit(whole, split, settings, **how)

    class Stopped(Exception):
        pass

    class Failing:
        """The same store on a disk that goes away after a while."""

        def __init__(self, store: KnowledgeStore) -> None:
            self.store, self.left, self.digest, self.signals = store, 14, store.digest, store.signals

        def batch(self, keys: np.ndarray, signals: Collection[str] | None = None) -> dict[str, np.ndarray]:
            self.left -= 1
            if self.left < 0:
                raise Stopped
            return self.store.batch(keys)

    with pytest.raises(Stopped):
        fit(parted, split, settings, losses=how["losses"], knowledge=Failing(knowledge), folder=tmp_path / "run")
    again = fit(parted, split, settings, **how, folder=tmp_path / "run")
    assert same(weights(whole), weights(parted))
    assert (again.best, again.best_epoch, again.steps) == (done.best, done.best_epoch, done.steps)
    assert [point["loss"] for point in again.curve] == [point["loss"] for point in done.curve]


def test_a_finished_run_asked_again_only_loads(split: Split, tmp_path: Path) -> None:
    first, second = net(split), net(split)
    fit(first, split, quick(epochs=3), folder=tmp_path)
    stamp = (tmp_path / NAME).stat().st_mtime_ns
    fit(second, split, quick(epochs=3), folder=tmp_path)
    assert same(weights(first), weights(second))
    assert (tmp_path / NAME).stat().st_mtime_ns == stamp


@pytest.mark.parametrize(
    ("changed", "named"),
    [
        ({"settings": quick(epochs=3, learning_rate=5e-3)}, "settings"),
        ({"losses": {"bpr": 1.0}}, "losses"),
        ({"metric": "recall@5"}, "metric"),
        ({"seen": "keep"}, "seen"),
        ({"min_steps": 7}, "min_steps"),
        ({"origin": "other"}, "origin"),
        ({"knowledge": True}, "knowledge"),
        ({"split": walk_split(seed=1)}, "split"),
        ({"model": {"dim": 10}}, "shapes"),
    ],
)
def test_a_checkpoint_of_another_run_is_refused_and_kept(
    changed: dict[str, Any], named: str, split: Split, tmp_path: Path
) -> None:
    fit(net(split), split, quick(epochs=3), folder=tmp_path / "run")
    before = (tmp_path / "run" / NAME).read_bytes()
    how = dict(changed)
    data, settings = how.pop("split", split), how.pop("settings", quick(epochs=3))
    if how.get("knowledge"):
        how["knowledge"] = extract(Popularity.fit(split), split, tmp_path / "k", top_k=3)
    with pytest.raises(TrainingError, match=f"another run .*{named}"):
        fit(net(data, **how.pop("model", {})), data, settings, folder=tmp_path / "run", **how)
    assert (tmp_path / "run" / NAME).read_bytes() == before


def test_a_damaged_checkpoint_is_named(split: Split, tmp_path: Path) -> None:
    fit(net(split), split, quick(epochs=2), folder=tmp_path)
    path = tmp_path / NAME
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(TrainingError, match="cannot be read"):
        fit(net(split), split, quick(epochs=2), folder=tmp_path)


def test_a_folder_that_cannot_be_written_keeps_the_last_checkpoint(split: Split, tmp_path: Path) -> None:
    """A full disk in the midst of a checkpoint: the error comes through, the file of the epoch before stands."""
    original, calls = checkpoint.save_file, []

    def full(tensors: Any, path: Path, **more: Any) -> None:
        calls.append(1)
        if len(calls) == 3:
            Path(path).write_bytes(b"half")
            raise OSError(28, "No space left on device")
        original(tensors, path, **more)

    checkpoint.save_file = full
    try:
        with pytest.raises(OSError, match="No space"):
            fit(net(split), split, quick(epochs=5), folder=tmp_path)
    finally:
        checkpoint.save_file = original
    assert [path.name for path in tmp_path.iterdir()] == [NAME]
    assert epochs_of(tmp_path) == 2
    whole, resumed = net(split), net(split)
    fit(whole, split, quick(epochs=5))
    fit(resumed, split, quick(epochs=5), folder=tmp_path)
    assert same(weights(whole), weights(resumed))
