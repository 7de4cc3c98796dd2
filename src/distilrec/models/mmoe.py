"""Multi-gate mixture of experts."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from distilrec.errors import RecipeError, problem
from distilrec.features import Feature
from distilrec.models.fields import FieldTable, Inputs
from distilrec.models.layers import Dense, Towers, outputs_of

__all__ = ["MMoE", "mix"]


def mix(experts: Tensor, gate: Tensor) -> Tensor:
    """[B, E, H] answers of experts, [B, E] logits of a gate -> [B, H], their mean by the softmax of the gate."""
    return torch.matmul(gate.softmax(1)[:, None], experts)[:, 0]


class MMoE(nn.Module):
    """Experts that all heads share, mixed by a gate per head, then a tower per head (Ma et al., KDD 2018).

    When to use it: a teacher of several tasks that help each other in part (click, purchase, dwell).

    Args: as in models.mlp (`hidden` are the widths of one expert), and
        experts: how many. tower: widths of the dense layers of each head's tower.
    """

    def __init__(
        self, fields: Sequence[Feature], heads: Sequence[int], *, dim: int = 16, experts: int = 4,
        hidden: Sequence[int] = (64,), tower: Sequence[int] = (32,), dropout: float = 0.0,
        embedding_dropout: float = 0.0, batch_norm: bool = False,
    ) -> None:
        super().__init__()
        if experts < 1:
            raise RecipeError(problem(f"{experts} experts", "1 or more"))
        outputs = outputs_of(heads)
        self.table = FieldTable(fields, dim, dropout=embedding_dropout)
        width = len(self.table.names) * dim
        self.experts = nn.ModuleList(
            Dense(width, hidden, dropout=dropout, batch_norm=batch_norm) for _ in range(experts)
        )
        self.gates = nn.ModuleList(nn.Linear(width, experts, bias=False) for _ in heads)
        self.towers = Towers(hidden[-1] if hidden else width, heads, tower, dropout=dropout, batch_norm=batch_norm)
        self.output_bias = nn.Parameter(torch.zeros(outputs))

    def forward(self, inputs: Inputs) -> dict[str, Tensor]:
        """scores [B, O]; hidden [B, H], the last layers of all towers side by side; shared, the experts' answers."""
        x = self.table(inputs).flatten(1)
        answers = torch.stack([expert(x) for expert in self.experts], 1)
        scores, hidden = self.towers([mix(answers, gate(x)) for gate in self.gates])
        return {"scores": scores + self.output_bias, "hidden": hidden, "shared": answers}
