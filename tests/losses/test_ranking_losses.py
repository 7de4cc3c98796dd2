"""Losses of ranked lists: by hand, against slow loops, at equality, under shifts, and with the worst of numbers."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from distilrec.losses.candidates import listed, log_sum, ranks
from distilrec.losses.collaborative_distillation import collaborative_distillation
from distilrec.losses.grouped_kl import grouped_kl
from distilrec.losses.listnet import listnet
from distilrec.losses.margin_squared_error import margin_squared_error
from distilrec.losses.plackett_luce import plackett_luce
from distilrec.losses.rank_distillation import rank_distillation
from distilrec.losses.rejuvenated_cross_entropy import rejuvenated_cross_entropy
from distilrec.losses.relaxed_ranking import relaxed_ranking
from distilrec.training.objective import Negatives
from distilrec.training.settings import TrainSettings

pytestmark = pytest.mark.req("C2")

GROUPS = torch.tensor([0, 1, 0, 1, 1, 0, 2, 3])
ALL: dict[str, Callable[..., Tensor]] = {
    "listnet": lambda s, z, o, **more: listnet(s, z, **more),
    "margin_squared_error": lambda s, z, o: margin_squared_error(s, z),
    "plackett_luce": lambda s, z, o: plackett_luce(s, z),
    "grouped_kl": lambda s, z, o, **more: grouped_kl(s, z, GROUPS[: s.shape[1]].expand_as(z), **more),
    "relaxed_ranking": lambda s, z, o: relaxed_ranking(s, z, others=o, times=3.0),
    "rank_distillation": lambda s, z, o: rank_distillation(s, z, others=o, times=3.0),
    "rejuvenated_cross_entropy": lambda s, z, o, **more: rejuvenated_cross_entropy(s, z, others=o, mined=3, **more),
    "collaborative_distillation": lambda s, z, o, **more: collaborative_distillation(s, z, others=o, **more),
}
WARM = ("listnet", "grouped_kl", "rejuvenated_cross_entropy")


def drawn(rows: int, width: int, seed: int, scale: float = 2.0) -> Tensor:
    return scale * torch.randn(rows, width, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def gradient(loss: Callable[..., Tensor], student: Tensor, *more: Tensor, **how: Any) -> Tensor:
    student = student.clone().requires_grad_()
    loss(student, *more, **how).sum().backward()
    assert student.grad is not None
    return student.grad


# --- values by hand, and by a second and slower way


def test_listnet_is_the_divergence_of_the_two_top_one_distributions() -> None:
    student, teacher = torch.log(torch.tensor([[1.0, 1.0, 2.0]])), torch.log(torch.tensor([[2.0, 1.0, 1.0]]))
    by_hand = 0.5 * math.log(0.5 / 0.25) + 0.25 * math.log(0.25 / 0.25) + 0.25 * math.log(0.25 / 0.5)
    assert listnet(student, teacher).item() == pytest.approx(by_hand)


def test_plackett_luce_is_the_probability_of_the_order() -> None:
    # odds 1, 2, 5 of items that the teacher orders c, a, b: 5/8 * 1/3 * 2/2
    student, teacher = torch.log(torch.tensor([[1.0, 2.0, 5.0]])), torch.tensor([[0.5, 0.1, 0.9]])
    assert plackett_luce(student, teacher).item() == pytest.approx(-math.log(5 / 8 * 1 / 3) / 3)


def test_plackett_luce_sums_to_one_over_all_orders() -> None:
    student, total = drawn(1, 4, 0), 0.0
    for order in itertools.permutations(range(4)):
        teacher = torch.tensor([[-float(order.index(i)) for i in range(4)]])
        total += math.exp(-4 * plackett_luce(student, teacher).item())
    assert total == pytest.approx(1.0)


def test_relaxed_ranking_adds_what_is_outside_the_list_to_every_step() -> None:
    student, teacher = torch.log(torch.tensor([[1.0, 2.0]])), torch.tensor([[0.0, 1.0]])
    others = torch.log(torch.tensor([[3.0, 4.0]]))
    by_hand = -(math.log(2 / (3 + 2 * 7)) + math.log(1 / (1 + 2 * 7))) / 2
    assert relaxed_ranking(student, teacher, others=others, times=2.0).item() == pytest.approx(by_hand)
    by_item = relaxed_ranking(student, teacher, others=others, times=torch.tensor([2.0, 0.5]))
    assert by_item.item() == pytest.approx(-(math.log(2 / (3 + 8)) + math.log(1 / (1 + 8))) / 2)


def test_without_others_relaxed_ranking_is_plackett_luce() -> None:
    student, teacher, nobody = drawn(3, 5, 0), drawn(3, 5, 1), torch.full((3, 4), -torch.inf, dtype=torch.float64)
    torch.testing.assert_close(relaxed_ranking(student, teacher, others=nobody), plackett_luce(student, teacher))


def test_rank_distillation_against_a_loop() -> None:
    student, teacher, others = drawn(4, 5, 0), drawn(4, 5, 1), drawn(4, 7, 2)
    found = rank_distillation(student, teacher, others=others, times=2.0, decay=0.4, sharpness=0.2)
    for row in range(4):
        order = sorted(range(5), key=lambda k: -float(teacher[row, k]))
        rates = [math.exp(-place / (0.4 * 5)) for place in range(5)]
        value = 0.0
        for place, k in enumerate(order):
            s = float(student[row, k])
            rank = 1 + sum(float(x) > s for x in student[row]) + 2 * sum(float(x) > s for x in others[row])
            push = math.tanh(0.2 * max(0.0, rank - (place + 1)))
            value += rates[place] / sum(rates) * push * math.log1p(math.exp(-s))
        assert found[row].item() == pytest.approx(value)


def test_rank_distillation_is_silent_where_the_order_stands() -> None:
    """Every item at the teacher's rank or above it: no weight, and no gradient."""
    teacher = drawn(3, 5, 0)
    student, others = teacher + 20, drawn(3, 6, 1)
    loss = rank_distillation(student.requires_grad_(), teacher, others=others)
    loss.sum().backward()
    assert (loss == 0).all()
    assert student.grad is not None
    assert (student.grad == 0).all()


def test_collaborative_distillation_by_hand() -> None:
    student, teacher = torch.tensor([[0.0, math.log(3)]]), torch.tensor([[math.log(3) - 2, -2.0]])
    others = torch.tensor([[0.0, -torch.inf, math.log(3)]])
    kept = (math.log(2) + 0.5 * math.log(4 / 3) + 0.5 * math.log(4)) / 2
    value = collaborative_distillation(student, teacher, others=others, center=-2.0)
    assert value.item() == pytest.approx(kept + (math.log(2) + math.log(4)) / 2)
    # an item that stands for three others counts three times in their mean
    value = collaborative_distillation(student, teacher, others=others, center=-2.0,
                                       times=torch.tensor([3.0, 9.0, 1.0]))
    assert value.item() == pytest.approx(kept + (3 * math.log(2) + math.log(4)) / 4)


def test_margin_is_a_loop_over_the_pairs() -> None:
    student, teacher = drawn(3, 4, 0), drawn(3, 4, 1)
    for row, value in enumerate(margin_squared_error(student, teacher)):
        pairs = [float((student[row, i] - student[row, j]) - (teacher[row, i] - teacher[row, j])) ** 2
                 for i in range(4) for j in range(4) if i != j]
        assert value.item() == pytest.approx(np.mean(pairs))


def test_rejuvenated_cross_entropy_against_a_loop() -> None:
    student, teacher, others = drawn(5, 4, 0), drawn(5, 4, 1), drawn(5, 9, 2, scale=1)
    t, found = 1.5, rejuvenated_cross_entropy(student, teacher, others=others, temperature=1.5, mined=3)
    sizes = set()
    for row in range(5):
        s, z = (student[row] / t).tolist(), (teacher[row] / t).tolist()
        rivals = sorted((others[row] / t).tolist(), reverse=True)
        near = [k for k in range(4) if 1 + sum(x > s[k] for x in s) + sum(x > s[k] for x in rivals) <= 4]
        far = [k for k in range(4) if k not in near]
        sizes.add(len(near))
        value = 0.0
        for part, against in ((near, []), (far, rivals[:3])):
            log_z = math.log(sum(math.exp(s[k]) for k in part) + sum(map(math.exp, against))) if part else 0.0
            mass = sum(math.exp(z[k]) for k in part)
            value += len(part) / 4 * sum(math.exp(z[k]) / mass * (log_z - s[k]) for k in part)
        assert found[row].item() == pytest.approx(t * t * value)
    assert len(sizes) > 1, "rows of unlike shares were looked at"


def test_rejuvenated_cross_entropy_leaves_out_what_only_fills_up_the_list() -> None:
    # known: a and d, odds 3 to 1; b and c fill the list up. Of the student's own four best, of e^s = 7, 6, 5 and
    # 4, a (5) and c (7) are two, an outsider (6) another; d (2) and b (1) are not
    student = torch.log(torch.tensor([[5.0, 1.0, 7.0, 2.0]], dtype=torch.float64))
    teacher = torch.tensor([[math.log(3.0), -60_000.0, -60_000.0, 0.0]], dtype=torch.float64)
    others = torch.log(torch.tensor([[6.0, 4.0, 3.0]], dtype=torch.float64))
    # A = {a}: alone in its part, so nothing to learn; B = {d}, against the two best of the others: 2 / (2 + 6 + 4)
    by_hand = 1 / 2 * 0 + 1 / 2 * math.log(12 / 2)
    found = rejuvenated_cross_entropy(student, teacher, others=others, mined=2)
    assert found.item() == pytest.approx(by_hand)


@pytest.mark.parametrize("seed", range(5))
def test_rejuvenated_cross_entropy_never_pushes_a_filler_up(seed: int) -> None:
    student, teacher, others = drawn(40, 6, seed), drawn(40, 6, seed + 9), drawn(40, 9, seed + 5, scale=1)
    filler = torch.arange(6) >= torch.arange(40)[:, None] % 7  # from none known to all
    teacher = teacher.masked_fill(filler, -60_000.0)
    warmth = torch.linspace(0.5, 4, 40, dtype=torch.float64)
    for t in (1.0, warmth):
        grad = gradient(lambda s, t=t: rejuvenated_cross_entropy(s, teacher, others=others, mined=3, temperature=t),
                        student)
        assert torch.isfinite(grad).all()
        assert (grad[filler] == 0).all(), "neither up nor down: the teacher has no opinion about it"
        assert (grad[~filler] != 0).any()


def test_grouped_kl_is_listnet_within_each_group_of_two_or_more() -> None:
    student, teacher = drawn(3, 8, 0), drawn(3, 8, 1)
    groups = torch.stack([GROUPS, GROUPS.flip(0), torch.zeros(8, dtype=torch.long)])
    found = grouped_kl(student, teacher, groups, temperature=2.0)
    for row in range(3):
        parts = [groups[row] == g for g in range(4) if (groups[row] == g).sum() > 1]
        values = [listnet(student[row, p][None], teacher[row, p][None], temperature=2.0).item() for p in parts]
        assert found[row].item() == pytest.approx(np.mean(values))


def test_grouped_kl_never_sees_what_the_teacher_thinks_of_a_group_as_such() -> None:
    student, teacher = drawn(2, 8, 0), drawn(2, 8, 1)
    groups = GROUPS.expand(2, 8)
    popular = teacher + 7.0 * (groups == 0)
    torch.testing.assert_close(grouped_kl(student, popular, groups), grouped_kl(student, teacher, groups))


# --- equality, shifts, permutations


@pytest.mark.parametrize("name", ["listnet", "margin_squared_error", "grouped_kl"])
def test_equal_up_to_a_constant_costs_nothing(name: str) -> None:
    teacher = drawn(3, 8, 0)
    student, none = (teacher + 4).requires_grad_(), drawn(3, 2, 1)
    loss = ALL[name](student, teacher, none)
    loss.sum().backward()
    torch.testing.assert_close(loss.detach(), torch.zeros(3, dtype=torch.float64), atol=1e-12, rtol=0)
    torch.testing.assert_close(student.grad, torch.zeros_like(teacher), atol=1e-12, rtol=0)


def test_collaborative_distillation_is_still_at_the_teachers_odds() -> None:
    teacher, nobody = drawn(3, 5, 0), torch.full((3, 2), -torch.inf, dtype=torch.float64)
    grad = gradient(lambda s: collaborative_distillation(s, teacher, others=nobody, temperature=2.0, center=-3.0),
                    (teacher + 3.0) / 2)
    torch.testing.assert_close(grad, torch.zeros_like(grad), atol=1e-12, rtol=0)


@pytest.mark.parametrize("name", sorted({*ALL} - {"rank_distillation", "collaborative_distillation"}))
def test_a_constant_shift_of_student_or_teacher_changes_nothing(name: str) -> None:
    student, teacher, others = drawn(3, 8, 0), drawn(3, 8, 1), drawn(3, 5, 2)
    expected = ALL[name](student, teacher, others)
    torch.testing.assert_close(ALL[name](student + 3.5, teacher, others + 3.5), expected)
    torch.testing.assert_close(ALL[name](student, teacher - 2.5, others), expected)


@pytest.mark.parametrize("name", [name for name in ALL if name != "grouped_kl"])
def test_the_place_of_an_item_in_the_list_does_not_matter(name: str) -> None:
    student, teacher, others = drawn(3, 8, 0), drawn(3, 8, 1), drawn(3, 5, 2)
    mixed, rest = torch.randperm(8), torch.randperm(5)
    torch.testing.assert_close(ALL[name](student[:, mixed], teacher[:, mixed], others[:, rest]),
                               ALL[name](student, teacher, others))


@pytest.mark.parametrize("name", ["plackett_luce", "relaxed_ranking", "rank_distillation"])
def test_of_the_teacher_only_the_order_counts(name: str) -> None:
    student, teacher, others = drawn(3, 8, 0), drawn(3, 8, 1), drawn(3, 5, 2)
    torch.testing.assert_close(ALL[name](student, teacher.exp() * 9 - 4, others), ALL[name](student, teacher, others))


@pytest.mark.parametrize("name", list(ALL))
def test_following_the_gradient_brings_the_teachers_order(name: str) -> None:
    """From equal scores: two items of the list, the teacher's better one must gain on the worse one."""
    student, teacher = torch.zeros(1, 4, dtype=torch.float64), torch.tensor([[4.0, 3.0, 0.0, -1.0]]).double()
    grad = gradient(ALL[name], student, teacher, torch.ones(1, 6, dtype=torch.float64))
    assert grad[0, 0] < grad[0, 2]


# --- temperature


@pytest.mark.parametrize("name", [*WARM, "collaborative_distillation"])
def test_a_temperature_for_each_row_is_what_one_for_all_is(name: str) -> None:
    student, teacher, others = drawn(3, 8, 0), drawn(3, 8, 1), drawn(3, 5, 2)
    some = torch.tensor([0.5, 1.0, 4.0], dtype=torch.float64)
    together = ALL[name](student, teacher, others, temperature=some)
    alone = [ALL[name](student, teacher, others, temperature=float(t))[row] for row, t in enumerate(some)]
    torch.testing.assert_close(together, torch.stack(alone))


@pytest.mark.parametrize("name", WARM)
def test_the_scale_of_the_gradient_does_not_fall_with_the_temperature(name: str) -> None:
    """At t -> infinity softmax is linear and t^2 holds the gradient at a constant: hot and hotter agree."""
    student, teacher, others = drawn(3, 6, 0), drawn(3, 6, 1), drawn(3, 5, 2) - 50
    hot, hotter = (gradient(ALL[name], student, teacher, others, temperature=t) for t in (200.0, 400.0))
    torch.testing.assert_close(hot, hotter, rtol=0.2, atol=5e-3)
    assert hot.abs().max() > 0.01


# --- the worst of numbers


CASES = {
    "huge": (1e4 * drawn(3, 8, 0).sign().float(), 1e4 * drawn(3, 8, 1).float().sign(), 1e4 * drawn(3, 5, 2).float()),
    "ruled out": (drawn(3, 8, 0).float(), torch.tensor([[-0.5, -1.0, *[-60_000.0] * 6]] * 3), drawn(3, 5, 2).float()),
    "nobody else": (drawn(3, 8, 0).float(), drawn(3, 8, 1).float(), torch.full((3, 5), -torch.inf)),
    "some nobody": (drawn(3, 8, 0).float(), drawn(3, 8, 1).float(),
                    drawn(3, 5, 2).float().masked_fill(torch.eye(3, 5).bool(), -torch.inf)),
    "one kept": (drawn(3, 1, 0).float(), drawn(3, 1, 1).float(), drawn(3, 5, 2).float()),
    "one kept, nobody else": (drawn(3, 1, 0).float(), drawn(3, 1, 1).float(), torch.full((3, 5), -torch.inf)),
    "one row": (drawn(1, 8, 0).float(), drawn(1, 8, 1).float(), drawn(1, 5, 2).float()),
    "no row": (torch.zeros(0, 8), torch.zeros(0, 8), torch.zeros(0, 5)),
    "ties": (torch.zeros(3, 8), torch.zeros(3, 8), torch.zeros(3, 5)),
}


@pytest.mark.parametrize("case", list(CASES))
@pytest.mark.parametrize("name", list(ALL))
def test_values_and_gradients_are_finite(name: str, case: str) -> None:
    student, teacher, others = (tensor.clone() for tensor in CASES[case])
    hows: list[dict[str, Any]] = [{}]
    if name in (*WARM, "collaborative_distillation"):
        hows += [{"temperature": 0.1}, {"temperature": torch.full((len(student),), 8.0)}]
    for how in hows:
        ours, rest = student.clone().requires_grad_(), others.clone()
        held = rest > -torch.inf
        rest.requires_grad_()
        # as training fills it in: no gradient flows through what is not to count
        loss = ALL[name](ours, teacher, torch.where(held, rest, -torch.inf), **how)
        assert loss.shape == (len(student),)
        loss.sum().backward()
        assert torch.isfinite(loss).all()
        assert ours.grad is not None
        assert torch.isfinite(ours.grad).all()
        assert rest.grad is None or torch.isfinite(rest.grad).all()


@pytest.mark.parametrize("name", list(ALL))
def test_what_the_teacher_rules_out_teaches_no_order(name: str) -> None:
    """A store fills up short lists with -60,000: their ids are chance, not knowledge, nor a distance of 60,000."""
    student, others = drawn(3, 8, 0), drawn(3, 5, 2)
    teacher = drawn(3, 8, 1)
    teacher[:, 5:] = -60_000.0
    mixed = student.clone()
    mixed[:, 5:] = student[:, [7, 5, 6]]
    assert (listed(teacher).sum(1) == 5).all()
    if name == "grouped_kl":
        short = grouped_kl(student[:, :5], teacher[:, :5], GROUPS[:5].expand(3, 5))
        torch.testing.assert_close(ALL[name](student, teacher, others), short)
    else:
        torch.testing.assert_close(ALL[name](mixed, teacher, others), ALL[name](student, teacher, others))
    assert gradient(ALL[name], student, teacher, others).abs().max() < 30


def test_ruled_out_items_stand_below_the_others_in_an_order() -> None:
    student = torch.log(torch.tensor([[1.0, 2.0, 5.0]]))
    teacher = torch.tensor([[-0.5, -60_000.0, -60_000.0]])
    assert plackett_luce(student, teacher).item() == pytest.approx(-math.log(1 / 8))
    others = torch.log(torch.tensor([[2.0]]))
    assert relaxed_ranking(student, teacher, others=others).item() == pytest.approx(-math.log(1 / 10))
    pair = torch.tensor([[1.0, 0.0, -60_000.0]])
    assert margin_squared_error(torch.tensor([[0.5, 0.0, 9.0]]), pair).item() == pytest.approx(0.25)


# --- a sample for the catalog


@pytest.mark.parametrize("power", [0.0, 0.75])
def test_a_sample_of_others_estimates_sums_and_ranks_without_bias(power: float) -> None:
    rng, size = np.random.default_rng(0), 40
    counts = (1000 / np.arange(1, size + 1)).astype(np.int64)
    scores = torch.as_tensor(0.4 * np.log(counts + 1) + rng.normal(size=size))
    kept = scores[[3, 11, 30]][None]
    outside = torch.ones(size, dtype=torch.bool)
    outside[[3, 11, 30]] = False
    draws = Negatives.of(counts, TrainSettings(negatives=10, negative_power=power))
    sums, places = [], []
    for _ in range(1200):
        items, log_expected = draws.draw(rng)  # type: ignore[misc]
        at = torch.as_tensor(items)
        times = torch.exp(-torch.as_tensor(log_expected, dtype=torch.float64)).expand(len(at))
        others = torch.where(outside[at], scores[at], -torch.inf)[None]
        sums.append(log_sum(others, times).exp().item())
        places.append(ranks(kept, others, times)[0].numpy())
    whole = float(scores[outside].exp().sum())
    assert abs(np.mean(sums) - whole) < 4 * np.std(sums) / np.sqrt(1200)
    everything = ranks(kept, torch.where(outside, scores, -torch.inf)[None])[0].numpy()
    assert everything.tolist() == [1 + int((scores > s).sum()) for s in kept[0]]
    error = np.std(places, axis=0) / np.sqrt(1200)
    assert (np.abs(np.mean(places, axis=0) - everything) < 4 * error + 1e-9).all()


def test_equal_scores_share_the_better_rank_and_nobody_is_above_nobody() -> None:
    kept = torch.tensor([[1.0, 1.0, 0.0]])
    assert ranks(kept, torch.tensor([[1.0, 2.0, -torch.inf]]), 2.0).tolist() == [[3.0, 3.0, 7.0]]
    assert ranks(kept, torch.full((1, 2), -torch.inf), torch.tensor([5.0, 5.0])).tolist() == [[1.0, 1.0, 3.0]]


def test_a_sum_over_nobody_is_nothing_and_has_no_gradient() -> None:
    scores = torch.zeros(2, 3, requires_grad=True)
    total = log_sum(torch.where(torch.tensor([[True], [False]]), scores, -torch.inf), 2.0)
    assert total.tolist() == [pytest.approx(math.log(6)), -math.inf]
    total[0].backward()
    torch.testing.assert_close(scores.grad, torch.tensor([[1 / 3] * 3, [0.0] * 3]))
    huge = torch.tensor([[1e4, -1e4]], requires_grad=True)
    log_sum(huge, 1e5).sum().backward()
    torch.testing.assert_close(huge.grad, torch.tensor([[1.0, 0.0]]))
