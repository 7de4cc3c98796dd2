"""Matrix factorization with biases, for ratings."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from distilrec.errors import RecipeError, nearest, problem
from distilrec.features import Feature
from distilrec.models.fields import SCALE, FieldTable, Inputs, field_order
from distilrec.models.layers import Dot, Dropout, outputs_of

__all__ = ["BiasedMF"]


class BiasedMF(nn.Module):
    """Mean + bias of every field + dot product of user and item (Koren, Bell & Volinsky, IEEE Computer 2009).

    With `history`, a list of items of the user, the user's vector gains the sum of their own second vectors divided by
    the root of their number: SVD++ (Koren, KDD 2008). Features beyond these give a bias each and no vector.

    When to use it: ratings; the mean is `output_bias`, which training sets before it begins.

    Args:
        fields: the features it reads. heads: outputs of each head. dim: D.
        user, item: names of the two category features; None: the first and the second one that is neither a bucket
            nor a cross.
        history: name of a list or sequence feature. embedding_dropout: dropout on the two vectors.
    Raises:
        RecipeError: a name that is no such feature, or fewer than two categories.
    """

    def __init__(
        self, fields: Sequence[Feature], heads: Sequence[int], *, dim: int = 16, user: str | None = None,
        item: str | None = None, history: str | None = None, embedding_dropout: float = 0.0,
    ) -> None:
        super().__init__()
        outputs = outputs_of(heads)
        if dim < 1:
            raise RecipeError(problem(f"dim {dim}", "1 or more"))
        groups = field_order(fields)
        categories = {one.name: place for place, one in enumerate(groups["category"])}
        plain = [one.name for one in groups["category"] if not one.bucketed and len(one.sources) == 1]
        free = iter([name for name in plain if name not in (user, item)])
        names = [_named(user or next(free, None), categories, "user"),
                 _named(item or next(free, None), categories, "item")]
        if names[0] == names[1]:
            raise RecipeError(problem(f"{names[0]!r} is both user and item", "two category features"))
        self.user, self.item = (categories[name] for name in names)
        self.table = FieldTable(fields, outputs, scale=0.0)
        self.users, self.items = (_vectors(groups["category"][place].size, dim) for place in (self.user, self.item))
        lists = {one.name: place for place, one in enumerate(groups["ragged"])}
        self.history = None if history is None else lists[_named(history, lists, "history")]
        self.implicit = None if self.history is None else _vectors(groups["ragged"][self.history].size, dim)
        self.dropout = Dropout(embedding_dropout)
        self.dot = Dot(dim, outputs)
        self.output_bias = nn.Parameter(torch.zeros(outputs))

    def forward(self, inputs: Inputs) -> dict[str, Tensor]:
        """scores [B, O]; hidden [B, D], the product of the two vectors."""
        users = self.users.index_select(0, inputs.ids[:, self.user])
        items = self.items.index_select(0, inputs.ids[:, self.item])
        if self.history is not None and self.implicit is not None:
            ids = inputs.ragged[self.history]
            there = (ids >= 0).to(users.dtype)
            share = there / there.sum(1, keepdim=True).clamp(min=1).sqrt()
            vectors = self.implicit.index_select(0, ids.clamp(min=0).flatten()).unflatten(0, ids.shape)
            users = users + torch.matmul(share[:, None], vectors)[:, 0]
        products = self.dropout(users) * self.dropout(items)
        return {"scores": self.table(inputs).sum(1) + self.dot(products) + self.output_bias, "hidden": products}


def _vectors(rows: int, dim: int) -> nn.Parameter:
    """[rows, D] fresh vectors; the unknown id has none, and so is answered by the biases alone."""
    weight = torch.randn(rows, dim) * SCALE
    weight[0] = 0.0
    return nn.Parameter(weight)


def _named(name: str | None, known: dict[str, int], role: str) -> str:
    if name is None or name not in known:
        seen = f"no feature to be the {role}" if name is None else f"{role} {name!r}{nearest(name, known)}"
        raise RecipeError(problem(f"biased_mf: {seen}", ", ".join(known) or "a category feature",
                                  f"name one as `{role}`"))
    return name
