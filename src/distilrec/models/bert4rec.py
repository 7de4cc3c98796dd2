"""BERT4Rec: a transformer that sees both sides of a gap in an item sequence."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

from distilrec.errors import TrainingError, problem
from distilrec.models.items import ItemTable
from distilrec.models.sasrec import Block, start_as_rotation

__all__ = ["BERT4Rec"]


class BERT4Rec(nn.Module):
    """Bidirectional transformer, trained to fill gaps (Sun et al., CIKM 2019), with layer norm before each part.

    When to use it: as an unlike member of an ensemble beside SASRec; it needs many more epochs to be as good (Petrov &
    Macdonald, RecSys 2022). In training random items of a history are replaced by a mask and predicted from
    both sides, and the last one always; to answer, a mask stands behind the history. So it has no answers along a
    history in one pass, and soft labels teach it at the decision after the last train event alone.

    Positions are counted from the end, so that the mask that answers always stands at the same one.

    Args: as in SASRec, and
        mask_share: how many items of a history are masked in training, 0 to 1.
    """

    needs_history = True
    uses_users = False
    cloze = True

    def __init__(
        self, n_items: int, *, dim: int = 64, hidden: int | None = None, layers: int = 2, heads: int = 2,
        dropout: float = 0.2, feedforward: float = 4.0, mask_share: float = 0.2, max_length: int = 50,
        content: np.ndarray | None = None, content_use: str = "start", bias: bool = False,
    ) -> None:
        super().__init__()
        width = hidden or dim
        if width % heads:
            raise TrainingError(problem(f"{heads} heads for a width of {width}", "a width that the heads divide",
                                        "change `heads`, `dim` or `hidden`"))
        if not 0 <= mask_share < 1:
            raise TrainingError(problem(f"mask_share {mask_share}", "0 or more and less than 1"))
        self.n_items, self.dim, self.max_length, self.mask_share = n_items, dim, max_length, mask_share
        self.table = ItemTable(n_items, dim, content=content, content_use=content_use, bias=bias)
        self.enter = nn.Linear(dim, width, bias=False) if width != dim else nn.Identity()
        self.leave = nn.Linear(width, dim, bias=False) if width != dim else nn.Identity()
        self.from_end = nn.Parameter(torch.randn(max_length + 1, width) * 0.02)
        self.dropout = nn.Dropout(dropout)
        self.blocks = nn.ModuleList(Block(width, heads, dropout, feedforward) for _ in range(layers))
        self.norm = nn.LayerNorm(width)
        start_as_rotation(self.enter, self.leave)

    def query(self, items: Tensor, lengths: Tensor, users: Tensor | None = None) -> Tensor:
        """[B, L] padded items with masks (id I + 1) among them, L <= max_length + 1 -> [B, L, D], one query vector at
        each position, from all of them. Only at a mask does it say something of an item that is not known."""
        x, visible = self._embed(items, lengths)
        for block in self.blocks:
            x = block(x, visible)
        return self.leave(self.norm(x))

    def last(self, items: Tensor, lengths: Tensor, users: Tensor | None = None) -> Tensor:
        """[B, D], the query at a mask behind the history; an empty history gives the table's start vector.

        The last block computes its query at the mask only.
        """
        state, x, visible = self._before_last(self.masked(items, lengths), lengths + 1, lengths)
        if len(self.blocks):
            state = self.blocks[-1].at(state, x, visible)  # type: ignore[operator]
        vector = self.leave(self.norm(state[:, 0]))
        return torch.where((lengths > 0)[:, None], vector, self.table.start)

    def attention(self, items: Tensor, lengths: Tensor, last: Tensor) -> Tensor:
        """[B, L]: how the last layer, its heads averaged, looks from the mask at position `last` [B] of `items` at the
        other positions; what it keeps for the mask itself is left out of the whole.

        Raises:
            TrainingError: a model without layers.
        """
        if not len(self.blocks):
            raise TrainingError(problem("a model without layers has no attention", "layers: 1 or more"))
        state, x, visible = self._before_last(items, lengths, last)
        weights = self.blocks[-1].look(state, x, visible)  # type: ignore[operator]
        weights = weights * (torch.arange(items.shape[1], device=items.device) != last[:, None])
        return weights / weights.sum(1, keepdim=True).clamp(min=1e-12)

    def masked(self, items: Tensor, lengths: Tensor) -> Tensor:
        """[B, L] -> [B, L + 1], with a mask behind each history."""
        longer = torch.cat([items, items[:, :1]], 1)
        column = torch.arange(longer.shape[1], device=items.device)
        longer = torch.where(column < lengths[:, None], longer, self.n_items)
        return torch.where(column == lengths[:, None], self.n_items + 1, longer)

    def item_vectors(self) -> Tensor:
        return self.table.vectors()

    def item_bias(self) -> Tensor | None:
        return self.table.bias

    def _before_last(self, items: Tensor, lengths: Tensor, at: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Before the last layer: (state at one position [B, 1, H], all states [B, L, H], what may be seen [B, L])."""
        x, visible = self._embed(items, lengths)
        for block in self.blocks[:-1]:
            x = block(x, visible)
        return x.gather(1, at[:, None, None].expand(-1, 1, x.shape[2])), x, visible

    def _embed(self, items: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        column = torch.arange(items.shape[1], device=items.device)
        back = (lengths[:, None] - 1 - column).clamp(min=0)
        # a row of padding alone sees its first position: attention to nothing is no number
        visible = column < lengths[:, None].clamp(min=1)
        return self.dropout(self.enter(self.table(items)) + self.from_end[back]), visible
