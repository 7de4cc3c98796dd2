"""Deep interest network: which part of a history matters depends on the item in question."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from distilrec.errors import RecipeError, problem
from distilrec.features import Feature
from distilrec.models.fields import FieldTable, Inputs, field_order
from distilrec.models.layers import Dense, outputs_of

__all__ = ["DIN", "Attention"]


class Attention(nn.Module):
    """Pools a history [B, L, D] by the weight that a small network gives to each of its vectors beside a target.

    The network reads history, target, difference and product of the two; the linear ones among these fold into one
    layer on (history, product) and one on the target, which is computed once per row. As in the paper the weights are
    not normalized, so a history with much of the target in it gives a long vector; `normalize` makes them sum to 1.
    """

    def __init__(self, dim: int, hidden: Sequence[int], *, normalize: bool = False) -> None:
        super().__init__()
        if not hidden:
            raise RecipeError(problem("an attention without hidden layer", "`attention` with a width or more"))
        self.pair, self.target = nn.Linear(2 * dim, hidden[0]), nn.Linear(dim, hidden[0], bias=False)
        self.dense = Dense(hidden[0], hidden[1:])
        self.weight = nn.Linear(self.dense.width, 1)
        self.normalize = normalize

    def forward(self, history: Tensor, there: Tensor, target: Tensor) -> Tensor:
        """[B, L, D], bool [B, L], [B, D] -> [B, D]; zeros for an empty history."""
        seen = torch.cat([history, history * target[:, None]], 2)
        inner = torch.relu(self.pair(seen) + self.target(target)[:, None])
        weights = self.weight(self.dense(inner))[..., 0]
        if self.normalize:
            weights = weights.masked_fill(~there, -1e9).softmax(1)
        return torch.matmul((weights * there)[:, None], history)[:, 0]


class DIN(nn.Module):
    """Deep interest network (Zhou et al., KDD 2018): attention of a target over each history of such targets, then
    dense layers.

    When to use it: rows with a `sequence` feature and the category feature it is a history `of` (items bought, and the
    item in question). Every such pair gets its own attention; other lists are pooled by their mean.

    Args: as in models.mlp, and
        attention: widths of the layers that weigh a history. normalize: softmax over the history.
    Raises:
        RecipeError: no sequence among the fields whose `of` is among them too.
    """

    def __init__(
        self, fields: Sequence[Feature], heads: Sequence[int], *, dim: int = 16, hidden: Sequence[int] = (128, 64),
        attention: Sequence[int] = (32,), normalize: bool = False, dropout: float = 0.0,
        embedding_dropout: float = 0.0, batch_norm: bool = False,
    ) -> None:
        super().__init__()
        outputs = outputs_of(heads)
        categories = [one.name for one in field_order(fields)["category"]]
        self.pairs = [(one.name, categories.index(one.of)) for one in fields
                      if one.kind == "sequence" and one.of in categories]
        if not self.pairs:
            raise RecipeError(problem("din without a history", "a `sequence` feature and the category it is `of`",
                                      "add both to `features`, or take mlp"))
        self.table = FieldTable(fields, dim, dropout=embedding_dropout, leave_out=[name for name, _ in self.pairs])
        self.attention = nn.ModuleList(Attention(dim, attention, normalize=normalize) for _ in self.pairs)
        width = (len(self.table.names) + len(self.pairs)) * dim
        self.dense = Dense(width, hidden, dropout=dropout, batch_norm=batch_norm)
        self.output = nn.Linear(self.dense.width, outputs, bias=False)
        self.output_bias = nn.Parameter(torch.zeros(outputs))

    def forward(self, inputs: Inputs) -> dict[str, Tensor]:
        """scores [B, O]; hidden [B, H], the last layer."""
        fields = self.table(inputs)
        parts = [fields.flatten(1)]
        for (name, place), attention in zip(self.pairs, self.attention, strict=True):
            history, there = self.table.history(inputs, name)
            parts.append(attention(history, there, fields[:, place]))
        hidden = self.dense(torch.cat(parts, 1))
        return {"scores": self.output(hidden) + self.output_bias, "hidden": hidden}
