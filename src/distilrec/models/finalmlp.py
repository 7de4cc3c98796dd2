"""FinalMLP: two streams of dense layers, each with a gate on its inputs, fused by a bilinear form."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from distilrec.errors import RecipeError, nearest, problem
from distilrec.features import Feature
from distilrec.models.fields import FieldTable, Inputs
from distilrec.models.layers import Dense, outputs_of

__all__ = ["FinalMLP", "Gate"]


class Gate(nn.Module):
    """2 sigmoid(g(context)) times each input of a stream: about 1 at the start. The context are the vectors of some
    fields, or a learned vector where none is named."""

    def __init__(self, table: FieldTable, context: Sequence[str], inner: int) -> None:
        super().__init__()
        for name in context:
            if name not in table.names:
                raise RecipeError(problem(f"the context of a gate names {name!r}{nearest(name, table.names)}",
                                          ", ".join(table.names)))
        self.places = [table.names.index(name) for name in context]
        self.context = None if context else nn.Parameter(torch.randn(table.dim))
        width = len(table.names) * table.dim
        self.layers = nn.Sequential(Dense(max(1, len(context)) * table.dim, [inner]), nn.Linear(inner, width))
        # without context a trained gate is `width` constants, and an exported graph holds nothing else of it
        self.unread = 0 if context else sum(one.numel() for one in self.parameters()) - width

    def forward(self, vectors: Tensor) -> Tensor:
        """[B, F, D] -> [B, F D]."""
        if self.context is not None:
            seen = self.context[None]
        else:
            seen = torch.cat([vectors[:, place] for place in self.places], 1)
        return vectors.flatten(1) * (2.0 * torch.sigmoid(self.layers(seen)))


class FinalMLP(nn.Module):
    """Two-stream MLP with gated inputs and multi-head bilinear fusion (Mao et al., AAAI 2023).

    When to use it: a teacher beside DCNv2; the two make a good ensemble because they err differently.

    Args: as in models.mlp (`hidden` is the first stream), and
        hidden2: widths of the second stream, None for those of the first.
        context, context2: names of the features that steer the gate of each stream; none: a learned vector.
        gate: inner width of a gate. fusion: parts that the last layers are cut into before they are multiplied.
    """

    def __init__(
        self, fields: Sequence[Feature], heads: Sequence[int], *, dim: int = 16, hidden: Sequence[int] = (128, 64),
        hidden2: Sequence[int] | None = None, context: Sequence[str] = (), context2: Sequence[str] = (),
        gate: int = 32, fusion: int = 1, dropout: float = 0.0, embedding_dropout: float = 0.0,
        batch_norm: bool = False,
    ) -> None:
        super().__init__()
        outputs = outputs_of(heads)
        self.table = FieldTable(fields, dim, dropout=embedding_dropout)
        width = len(self.table.names) * dim
        self.gate1, self.gate2 = Gate(self.table, context, gate), Gate(self.table, context2, gate)
        self.dense1 = Dense(width, hidden, dropout=dropout, batch_norm=batch_norm)
        self.dense2 = Dense(width, hidden if hidden2 is None else hidden2, dropout=dropout, batch_norm=batch_norm)
        w1, w2 = self.dense1.width, self.dense2.width
        if fusion < 1 or w1 % fusion or w2 % fusion:
            raise RecipeError(problem(f"last layers of {w1} and {w2} cut into {fusion} parts",
                                      "a number that divides both", "change `fusion`, `hidden` or `hidden2`"))
        self.fusion = fusion
        self.output = nn.Linear(w1 + w2, outputs, bias=False)
        self.bilinear = nn.Parameter(torch.randn(fusion, w1 // fusion, outputs * (w2 // fusion)) / (w1 * w2) ** 0.5)
        self.output_bias = nn.Parameter(torch.zeros(outputs))

    def forward(self, inputs: Inputs) -> dict[str, Tensor]:
        """scores [B, O]; hidden [B, H1 + H2], the last layers of both streams."""
        vectors = self.table(inputs)
        first, second = self.dense1(self.gate1(vectors)), self.dense2(self.gate2(vectors))
        parts = first.unflatten(1, (self.fusion, -1)).transpose(0, 1)  # [k, B, H1 / k]
        crossed = torch.matmul(parts, self.bilinear).unflatten(2, (len(self.output_bias), -1))  # [k, B, O, H2 / k]
        other = second.unflatten(1, (self.fusion, -1)).transpose(0, 1)[:, :, None]
        hidden = torch.cat([first, second], 1)
        return {"scores": self.output(hidden) + (crossed * other).sum((0, 3)) + self.output_bias, "hidden": hidden}
