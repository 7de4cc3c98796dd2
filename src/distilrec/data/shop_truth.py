"""What the users of the simulated shop really want: the probabilities that the events were drawn from."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, fields
from pathlib import Path

import numpy as np

from distilrec.data.shop_text import ACCESSORY
from distilrec.errors import DataError, problem

__all__ = ["Truth"]


@dataclass(frozen=True, eq=False)
class Truth:
    """The true preferences of a simulated shop, for tests of debiasing, conversion and policies.

    The public methods take external ids as they stand in the frames (users 1..U, items 1..I; `previous` is the item
    clicked before the page was seen, 0 for none), Unix seconds, and positions from 1. All arguments broadcast, so
    `click_probability(users[:, None], np.arange(1, I + 1), times[:, None])` is the whole table. Every one raises
    DataError for an id or a position out of range. Nothing here may be trained on.
    """

    user_start: np.ndarray  # float64 [U, D], interest before the drift
    user_end: np.ndarray  # float64 [U, D], interest after it
    turn: np.ndarray  # float64 [U], Unix seconds, middle of the drift
    pace: np.ndarray  # float64 [U], seconds; small = sudden
    budget: np.ndarray  # float64 [U], log of the price the user finds right
    emphasis: np.ndarray  # float64 [U, 10], which tags the user cares to mention
    item_vectors: np.ndarray  # float64 [I, D]
    appeal: np.ndarray  # float64 [I], draws clicks
    quality: np.ndarray  # float64 [I], draws purchases and good ratings
    log_price: np.ndarray  # float64 [I]
    tags: np.ndarray  # bool [I, 10]
    category: np.ndarray  # int64 [I]
    collection: np.ndarray  # int64 [I]
    order: np.ndarray  # int64 [I], place within the collection
    exposure: np.ndarray  # float64 [I], how the logging policy weighs an item, sums to 1
    examination: np.ndarray  # float64 [P], probability that a position is looked at

    def interest(self, users: np.ndarray, times: np.ndarray) -> np.ndarray:
        """[..., D]: what users want at a time; a smooth passage from user_start to user_end."""
        return self._interest(self._user(users), np.asarray(times))

    def click_probability(
        self, users: np.ndarray, items: np.ndarray, times: np.ndarray, previous: np.ndarray | int = 0,
        position: np.ndarray | None = None,
    ) -> np.ndarray:
        """P(click) of an impression at `position`; without a position, of an item that is surely looked at."""
        last = self._check("previous item", previous, 0, len(self.category)) - 1
        chance = self._attraction(self._user(users), self._item(items), np.asarray(times), last)
        if position is None:
            return chance
        return chance * self.examination[self._check("position", position, 1, len(self.examination)) - 1]

    def conversion_probability(self, users: np.ndarray, items: np.ndarray, times: np.ndarray) -> np.ndarray:
        """P(purchase given a click), defined for every pair, clicked or not."""
        return self._conversion(self._user(users), self._item(items), np.asarray(times))

    def purchase_probability(
        self, users: np.ndarray, items: np.ndarray, times: np.ndarray, previous: np.ndarray | int = 0,
        position: np.ndarray | None = None,
    ) -> np.ndarray:
        """P(click and purchase) of an impression: conversion over the entire space."""
        return self.click_probability(users, items, times, previous, position) * self.conversion_probability(
            users, items, times
        )

    def rating_probabilities(self, users: np.ndarray, items: np.ndarray, times: np.ndarray) -> np.ndarray:
        """[..., 5]: P(rating = 1..5) if the user were to rate the item."""
        center = self._rating(self._user(users), self._item(items), np.asarray(times))
        below = sigmoid((np.array([1.5, 2.5, 3.5, 4.5]) - center[..., None]) / RATING_NOISE)
        zero, one = np.zeros((*center.shape, 1)), np.ones((*center.shape, 1))
        return np.diff(np.concatenate([zero, below, one], axis=-1), axis=-1)

    def expected_rating(self, users: np.ndarray, items: np.ndarray, times: np.ndarray) -> np.ndarray:
        """The mean of `rating_probabilities`."""
        return self.rating_probabilities(users, items, times) @ np.arange(1.0, 6.0)

    def expected_dwell(self, users: np.ndarray, items: np.ndarray, times: np.ndarray) -> np.ndarray:
        """Mean seconds spent on a clicked item."""
        log_mean = self._log_dwell(self._user(users), self._item(items), np.asarray(times))
        return np.exp(log_mean + DWELL_NOISE**2 / 2)

    def tag_probability(self, users: np.ndarray, items: np.ndarray) -> np.ndarray:
        """[..., 10]: P(a user's review of the item mentions a tag)."""
        return self._mention(self._user(users), self._item(items))

    def save(self, folder: Path) -> None:
        """One .npy file per array."""
        for name, array in self._arrays():
            np.save(folder / f"{name}.npy", array, allow_pickle=False)

    @classmethod
    def load(cls, folder: str | Path) -> Truth:
        """Read what `save` wrote. Raises DataError where a file is missing or damaged."""
        arrays = {}
        for each in fields(cls):
            path = Path(folder) / f"{each.name}.npy"
            try:
                arrays[each.name] = np.load(path, allow_pickle=False)
            except (OSError, ValueError) as error:
                raise DataError(problem(
                    f"cannot read {path}: {error}", "the truth folder of a simulated shop", "write the shop again"
                )) from error
        return cls(**arrays)

    def _arrays(self) -> Iterator[tuple[str, np.ndarray]]:
        for each in fields(self):
            yield each.name, getattr(self, each.name)

    # From here on ids are positions (from 0, previous -1 for none): the simulation and the truth share this code.

    def _interest(self, users: np.ndarray, times: np.ndarray) -> np.ndarray:
        share = sigmoid((times - self.turn[users]) / self.pace[users])[..., None]
        return (1 - share) * self.user_start[users] + share * self.user_end[users]

    def _affinity(self, users: np.ndarray, items: np.ndarray, times: np.ndarray) -> np.ndarray:
        return np.einsum("...d,...d->...", self._interest(users, times), self.item_vectors[items])

    def _attraction(
        self, users: np.ndarray, items: np.ndarray, times: np.ndarray, previous: np.ndarray
    ) -> np.ndarray:
        strain = self.log_price[items] - self.budget[users]
        logit = -6.0 + 7.0 * self._affinity(users, items, times) + 0.5 * self.appeal[items] - 0.3 * strain**2
        known = previous >= 0
        same = known & (self.category[items] == self.category[previous])
        goes_with = known & (self.category[items] == ACCESSORY[self.category[previous]])
        together = known & (self.collection[items] == self.collection[previous])
        following = together & (self.order[items] == self.order[previous] + 1)
        return sigmoid(logit + 0.7 * same + 1.5 * goes_with + 1.0 * together + 2.0 * following)

    def _conversion(self, users: np.ndarray, items: np.ndarray, times: np.ndarray) -> np.ndarray:
        dear = np.maximum(self.log_price[items] - self.budget[users], 0)
        affinity = self._affinity(users, items, times)
        return sigmoid(-1.4 + 2.2 * affinity + 0.9 * self.quality[items] - 0.8 * dear)

    def _rating(self, users: np.ndarray, items: np.ndarray, times: np.ndarray) -> np.ndarray:
        return 2.7 + 1.5 * self._affinity(users, items, times) + 0.6 * self.quality[items]

    def _log_dwell(self, users: np.ndarray, items: np.ndarray, times: np.ndarray) -> np.ndarray:
        return 3.0 + 1.2 * self._affinity(users, items, times) + 0.4 * self.quality[items]

    def _mention(self, users: np.ndarray, items: np.ndarray) -> np.ndarray:
        return sigmoid(-3.2 + 4.2 * self.tags[items] + 1.2 * self.emphasis[users])

    def _user(self, users: np.ndarray) -> np.ndarray:
        return self._check("user", users, 1, len(self.turn)) - 1

    def _item(self, items: np.ndarray) -> np.ndarray:
        return self._check("item", items, 1, len(self.category)) - 1

    @staticmethod
    def _check(what: str, values: np.ndarray | int, low: int, high: int) -> np.ndarray:
        values = np.asarray(values, dtype=np.int64)
        if values.size and (values.min() < low or values.max() > high):
            raise DataError(problem(
                f"{what} {int(values.min())} to {int(values.max())}", f"{low} to {high}", "use the ids of this shop"
            ))
        return values


RATING_NOISE = 0.45  # scale of the logistic noise of a rating
DWELL_NOISE = 0.6  # standard deviation of the log of the seconds


def sigmoid(x: np.ndarray) -> np.ndarray:
    # The clip keeps exp from overflowing where a drift is sudden; at 40 the result is 1 to the last bit anyway.
    return 1 / (1 + np.exp(-np.clip(x, -40, 40)))
