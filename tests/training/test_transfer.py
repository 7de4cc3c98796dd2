"""Copied layers are the teacher's, to the last bit, or the copy is refused; tables go back as far as validates best."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from core_world import quick, walk_split
from distilrec.errors import TrainingError
from distilrec.models.bert4rec import BERT4Rec
from distilrec.models.gru4rec import GRU4Rec
from distilrec.models.mf import MatrixFactorization
from distilrec.models.sasrec import SASRec
from distilrec.training.train import train
from distilrec.training.transfer import copy_layers, interpolate

pytestmark = pytest.mark.req("A4")


def model(layers: int, seed: int, *, dim: int = 8, hidden: int = 16, heads: int = 2, max_length: int = 6) -> SASRec:
    torch.manual_seed(seed)
    net = SASRec(20, dim=dim, hidden=hidden, layers=layers, heads=heads, max_length=max_length)
    with torch.no_grad():
        for weight in net.parameters():
            weight.add_(torch.randn_like(weight))
    return net


@pytest.mark.parametrize(
    ("teacher", "student", "expected"), [(4, 2, [1, 3]), (3, 1, [2]), (2, 2, [0, 1]), (6, 4, [1, 2, 3, 5])]
)
def test_blocks_are_spread_evenly_and_the_last_is_among_them(teacher: int, student: int, expected: list[int]) -> None:
    source, target = model(teacher, 0), model(student, 1, dim=4)
    copy_layers(source, target)
    for block, index in zip(target.blocks, expected, strict=True):
        for name, tensor in block.state_dict().items():
            assert torch.equal(tensor, source.blocks[index].state_dict()[name])
    assert torch.equal(target.norm.weight, source.norm.weight)
    assert torch.equal(target.norm.bias, source.norm.bias)
    assert torch.equal(target.positions, source.positions)


def test_the_copy_is_a_copy_and_the_teacher_stays() -> None:
    source, target = model(2, 0), model(1, 1)
    before = {name: tensor.clone() for name, tensor in source.state_dict().items()}
    table = target.table.weight.clone()
    copy_layers(source, target)
    with torch.no_grad():
        target.blocks[0].out.weight.zero_()
        target.positions.zero_()
    assert all(torch.equal(tensor, before[name]) for name, tensor in source.state_dict().items())
    assert torch.equal(target.table.weight, table)


def test_layers_may_be_chosen_and_positions_of_another_length_stay() -> None:
    source, target = model(3, 0), model(1, 1, max_length=4)
    own = target.positions.clone()
    copy_layers(source, target, [0])
    assert torch.equal(target.blocks[0].out.weight, source.blocks[0].out.weight)
    assert torch.equal(target.positions, own)


def test_positions_from_the_end_go_from_one_bert4rec_to_another_and_to_no_sasrec() -> None:
    def cloze(layers: int, max_length: int) -> BERT4Rec:
        net = BERT4Rec(20, dim=8, hidden=16, layers=layers, max_length=max_length)
        with torch.no_grad():
            net.from_end.add_(torch.randn_like(net.from_end))
        return net

    source, twin, shorter = cloze(2, 6), cloze(1, 6), cloze(1, 4)
    other = SASRec(20, dim=8, hidden=16, layers=1, feedforward=4.0, max_length=6)
    before = shorter.from_end.clone(), other.positions.clone()
    for target in (twin, shorter, other):
        copy_layers(source, target)
        assert torch.equal(target.blocks[0].out.weight, source.blocks[1].out.weight)
    assert torch.equal(twin.from_end, source.from_end)
    assert torch.equal(shorter.from_end, before[0])
    assert torch.equal(other.positions, before[1])


def test_a_deeper_student_may_be_told_which_layers_to_repeat() -> None:
    source, target = model(1, 0), model(2, 1)
    copy_layers(source, target, [0, 0])
    assert all(torch.equal(block.out.weight, source.blocks[0].out.weight) for block in target.blocks)


@pytest.mark.parametrize("chosen", [[0, 1], [3], [-1]])
def test_a_wrong_choice_is_refused(chosen: list[int]) -> None:
    with pytest.raises(TrainingError, match="1 numbers below 3"):
        copy_layers(model(3, 0), model(1, 1), chosen)


def test_what_does_not_fit_is_refused_before_anything_changes() -> None:
    target = model(1, 1)
    before = {name: tensor.clone() for name, tensor in target.state_dict().items()}
    with pytest.raises(TrainingError, match=r"does not fit .*\(32,\) against \(16,\)"):
        copy_layers(model(2, 0, hidden=32), target)
    with pytest.raises(TrainingError, match="4 heads, the student's has 2"):
        copy_layers(model(2, 0, heads=4), target)
    with pytest.raises(TrainingError, match="GRU4Rec has no layers"):
        copy_layers(GRU4Rec(20), target)
    with pytest.raises(TrainingError, match="3 layers, more than the 1 of its teacher"):
        copy_layers(model(1, 0), model(3, 1))
    with pytest.raises(TrainingError, match="2 layers, more than the 1 of its teacher"):
        copy_layers(model(1, 0), model(2, 1))
    assert all(torch.equal(tensor, before[name]) for name, tensor in target.state_dict().items())


def test_training_starts_from_the_teachers_layers() -> None:
    split = walk_split(users=30)
    settings = {"dim": 8, "hidden": 16, "max_length": 6, "dropout": 0.0}
    teacher = train("sasrec", split, {**settings, "layers": 2}, quick(epochs=3))
    still = quick(epochs=1, learning_rate=1e-12)
    student = train("sasrec", split, {**settings, "dim": 4, "layers": 1}, still, layers_from=teacher)
    torch.testing.assert_close(
        student.model.blocks[0].out.weight, teacher.model.blocks[1].out.weight, atol=1e-6, rtol=0
    )


def mf_with(vectors: np.ndarray) -> MatrixFactorization:
    net = MatrixFactorization(len(vectors), n_users=3, dim=2)
    with torch.no_grad():
        net.table.weight[: len(vectors)] = torch.as_tensor(vectors)
    return net


def table_of(net: MatrixFactorization) -> torch.Tensor:
    """Of the items alone, without padding and mask."""
    return net.table.weight.detach()[:4].clone()


OWN = np.array([[1, 0], [0, 1], [3, 3], [-1, 2]], dtype=np.float32)
THEIRS = np.array([[0, 4], [2, 0], [0, 0], [1, 1]], dtype=np.float32)  # the third has no vector there


@pytest.mark.req("C6")
@pytest.mark.parametrize("wanted", [0.0, 0.25, 0.6, 1.0])
def test_interpolation_takes_the_share_that_validates_best(wanted: float) -> None:
    end = mf_with(OWN)
    end.table.set_vectors(THEIRS)
    theirs = table_of(end)
    net, asked = mf_with(OWN), []

    def nearness(model: MatrixFactorization) -> float:
        asked.append(table_of(model))
        goal = torch.lerp(torch.as_tensor(OWN), theirs, wanted)
        return -float((table_of(model) - goal).abs().sum())

    share, found = interpolate(net, THEIRS, [0.25, 0.6, 1.0], nearness)  # type: ignore[arg-type]
    assert share == wanted
    assert list(found) == [0.0, 0.25, 0.6, 1.0]
    assert max(found.values()) == found[wanted]
    torch.testing.assert_close(table_of(net), torch.as_tensor(OWN) * (1 - wanted) + theirs * wanted)
    assert torch.equal(table_of(net)[2], torch.as_tensor(OWN[2])), "who has no vector stays where it is"
    assert torch.equal(asked[0], torch.as_tensor(OWN)), "its own table is among what is tried"


@pytest.mark.req("C6")
def test_where_nothing_is_better_the_table_stays_to_the_last_bit() -> None:
    net = mf_with(OWN)
    share, _ = interpolate(net, THEIRS, [0.3, 0.7], lambda model: 0.5)
    assert share == 0.0
    assert torch.equal(table_of(net), torch.as_tensor(OWN))
