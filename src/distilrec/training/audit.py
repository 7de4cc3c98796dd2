"""Knowledge that harms: users on whom the student is worse than without its teacher, found on the validation part."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from statistics import NormalDist
from typing import Any

import numpy as np

from distilrec.models.trained import Trained
from distilrec.training.validate import per_user
from distilrec.types import Split

__all__ = ["Audit", "Group", "audit", "members", "user_groups"]

_EVERYBODY = "all"
_LEAST = 30  # users of a group: fewer prove nothing


@dataclass(frozen=True)
class Group:
    """One group of users: the metric of the student less that of the control, with its 95 % interval."""

    name: str
    users: int
    difference: float
    interval: tuple[float, float]
    harmed: bool


@dataclass(frozen=True, eq=False)
class Audit:
    """What the teacher did to whom, on the validation part."""

    metric: str
    groups: list[Group]
    left_out: np.ndarray  # bool [U], members of harmed groups; all users only where no smaller group is harmed

    @property
    def harmed(self) -> list[str]:
        return [group.name for group in self.groups if group.harmed]

    def facts(self) -> dict[str, Any]:
        """For the report."""
        return {"metric": self.metric, "groups": [asdict(group) for group in self.groups],
                "left_out_users": int(self.left_out.sum())}


def audit(student: Trained, control: Trained, split: Split, metric: str, *, seen: str = "drop") -> Audit:
    """Compare two models user by user on the validation part, and name the groups that the first one serves worse.

    A group is harmed if the upper end of the 95 % interval of its mean difference, widened for the number of groups
    looked at (Bonferroni), lies below 0. The labels of the test part are not read.

    Args:
        metric: as in training, e.g. ndcg@10, one value per user.
    """
    users, ours = per_user(student.model, split, metric, seen=seen, device=student.device)
    _, theirs = per_user(control.model, split, metric, seen=seen, device=control.device)
    difference = ours - theirs
    named = user_groups(split)
    wide = NormalDist().inv_cdf(1 - 0.025 / max(1, len(named)))
    groups, left_out = [], np.zeros(split.n_users, dtype=bool)
    for name, inside in named.items():
        some = difference[inside[users]]
        if len(some) < _LEAST:
            continue
        mean, error = float(some.mean()), float(some.std(ddof=1) / np.sqrt(len(some)))
        harmed = mean + wide * error < 0
        groups.append(Group(name, len(some), mean, (mean - wide * error, mean + wide * error), harmed))
        if harmed and name != _EVERYBODY:
            left_out |= inside
    # a mean over all that is low because of some is no reason to leave out the others
    if not left_out.any() and any(group.harmed for group in groups):
        left_out = named[_EVERYBODY]
    return Audit(metric, groups, left_out)


def members(split: Split, names: Sequence[str]) -> np.ndarray:
    """bool [U]: who is to be left out where these groups are harmed, as in `audit`."""
    groups = user_groups(split)
    out = np.zeros(split.n_users, dtype=bool)
    for name in [name for name in names if name != _EVERYBODY] or names:
        out |= groups[name]
    return out


def user_groups(split: Split) -> dict[str, np.ndarray]:
    """{name: bool [U]}: all users; quarters by number of train events; thirds by the popularity of what they took.

    Everything is of the train part.
    """
    sizes = split.bounds[:, 1] - split.bounds[:, 0]
    users, items, _ = split.events("train")
    popular = np.bincount(users, np.log1p(split.train_counts[items]), minlength=split.n_users) / np.maximum(sizes, 1)
    active = sizes > 0
    found = {_EVERYBODY: active}
    for label, values, cuts in (("events", sizes.astype(float), 4), ("popularity", popular, 3)):
        edges = np.quantile(values[active], np.linspace(0, 1, cuts + 1)[1:-1]) if active.any() else []
        place = np.searchsorted(edges, values, side="left")
        found |= {f"{label} {number + 1} of {cuts}": active & (place == number) for number in range(cuts)}
    return found
