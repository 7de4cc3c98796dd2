"""SASRec: a causal transformer over item sequences."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from distilrec.errors import TrainingError, problem
from distilrec.models.items import ItemTable

__all__ = ["Block", "SASRec", "start_as_rotation"]


class SASRec(nn.Module):
    """Self-attentive sequential recommendation (Kang & McAuley, ICDM 2018), with layer norm before each part.

    When to use it: ordered logs; the default teacher (wide, started from text vectors) and the default student
    (narrow). It is trained with cross-entropy over many negatives rather than the paper's binary loss, which
    alone is worth more than most later architectures (Klenitskiy & Vasilev, RecSys 2023).

    Items are scored by the dot product of the last hidden state with the item table. `hidden` may be wider than
    `dim`: the table, which holds nearly all parameters, stays narrow while the transformer thinks in more numbers.

    Args:
        n_items: I.
        dim: D, width of an item vector and of a query vector.
        hidden: width of the transformer; None means `dim`.
        layers, heads, dropout: as usual. `feedforward` is the inner width as a multiple of `hidden`.
        max_length: latest events that are looked at.
        content: float32 [I, C] vectors of item content, used as `content_use` says (see models.items).
        bias: learn one popularity number per item.
    """

    needs_history = True
    uses_users = False

    def __init__(
        self, n_items: int, *, dim: int = 64, hidden: int | None = None, layers: int = 2, heads: int = 2,
        dropout: float = 0.2, feedforward: float = 1.0, max_length: int = 50, content: np.ndarray | None = None,
        content_use: str = "start", bias: bool = False,
    ) -> None:
        super().__init__()
        width = hidden or dim
        if width % heads:
            raise TrainingError(problem(f"{heads} heads for a width of {width}", "a width that the heads divide",
                                        "change `heads`, `dim` or `hidden`"))
        self.n_items, self.dim, self.max_length = n_items, dim, max_length
        self.table = ItemTable(n_items, dim, content=content, content_use=content_use, bias=bias)
        self.enter = nn.Linear(dim, width, bias=False) if width != dim else nn.Identity()
        self.leave = nn.Linear(width, dim, bias=False) if width != dim else nn.Identity()
        self.positions = nn.Parameter(torch.randn(max_length, width) * 0.02)
        self.dropout = nn.Dropout(dropout)
        self.blocks = nn.ModuleList(Block(width, heads, dropout, feedforward) for _ in range(layers))
        self.norm = nn.LayerNorm(width)
        start_as_rotation(self.enter, self.leave)

    def query(self, items: Tensor, lengths: Tensor, users: Tensor | None = None) -> Tensor:
        """[B, L] padded items -> [B, L, D], one query vector after each event. Padding on the right needs no mask
        under causal attention: nothing before it can see it."""
        x = self._embed(items)
        for block in self.blocks:
            x = block(x)
        return self.leave(self.norm(x))

    def last(self, items: Tensor, lengths: Tensor, users: Tensor | None = None) -> Tensor:
        """[B, D], the query after the last event; an empty history gives the table's start vector.

        The last block computes its query at one position only, which is what makes serving cheap.
        """
        x = self._embed(items)
        for block in self.blocks[:-1]:
            x = block(x)
        at = (lengths - 1).clamp(min=0)
        visible = torch.arange(items.shape[1], device=items.device) <= at[:, None]
        state = x.gather(1, at[:, None, None].expand(-1, 1, x.shape[2]))
        if len(self.blocks):
            final: Any = self.blocks[-1]
            state = final.at(state, x, visible)
        vector = self.leave(self.norm(state[:, 0]))
        return torch.where((lengths > 0)[:, None], vector, self.table.start)

    def attention(self, items: Tensor, lengths: Tensor, last: Tensor) -> Tensor:
        """[B, L]: how the last layer, its heads averaged, looks back over the history from position `last` [B].

        Raises:
            TrainingError: a model without layers.
        """
        if not len(self.blocks):
            raise TrainingError(problem("a model without layers has no attention", "layers: 1 or more"))
        x = self._embed(items)
        for block in self.blocks[:-1]:
            x = block(x)
        final: Any = self.blocks[-1]
        visible = torch.arange(items.shape[1], device=items.device) <= last[:, None]
        return final.look(x.gather(1, last[:, None, None].expand(-1, 1, x.shape[2])), x, visible)

    def item_vectors(self) -> Tensor:
        return self.table.vectors()

    def item_bias(self) -> Tensor | None:
        return self.table.bias

    def _embed(self, items: Tensor) -> Tensor:
        return self.dropout(self.enter(self.table(items)) + self.positions[: items.shape[1]])


@torch.no_grad()
def start_as_rotation(enter: nn.Module, leave: nn.Module) -> None:
    """Let the way in and the way out, where there are such, start as one rotation and its inverse, so that a history
    still resembles its items in the table's own space; with two unrelated projections text in the table is lost."""
    if isinstance(enter, nn.Linear) and isinstance(leave, nn.Linear):
        nn.init.orthogonal_(enter.weight)
        leave.weight.copy_(enter.weight.T)


class Block(nn.Module):
    """One transformer layer, norm first."""

    def __init__(self, width: int, heads: int, dropout: float, feedforward: float) -> None:
        super().__init__()
        self.heads, self.rate = heads, dropout
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.qkv = nn.Linear(width, 3 * width)
        self.out = nn.Linear(width, width)
        inner = int(width * feedforward)
        self.grow, self.shrink = nn.Linear(width, inner), nn.Linear(inner, width)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor, visible: Tensor | None = None) -> Tensor:
        """[B, L, H]; each position sees itself and those before it, or all that are `visible` [B, L]."""
        q, k, v = (self._split(part) for part in self.qkv(self.norm1(x)).chunk(3, dim=-1))
        drop = self.rate if self.training else 0.0
        # spelled out for every query: ONNX's attention does not spread a mask of one row
        mask = None if visible is None else visible[:, None, None, :].expand(-1, -1, x.shape[1], -1)
        mixed = F.scaled_dot_product_attention(q, k, v, attn_mask=mask, is_causal=mask is None, dropout_p=drop)
        return self._finish(x, mixed)

    def at(self, state: Tensor, x: Tensor, visible: Tensor) -> Tensor:
        """The layer's output at one position: `state` [B, 1, H] is x there, `visible` [B, L] what it may see."""
        q, k, v = self._from(state, x)
        mixed = F.scaled_dot_product_attention(q, k, v, attn_mask=visible[:, None, None, :])
        return self._finish(state, mixed)

    def look(self, state: Tensor, x: Tensor, visible: Tensor) -> Tensor:
        """[B, L]: the weights behind `at`, the mean of the heads."""
        q, k, _ = self._from(state, x)
        scores = (q @ k.transpose(-1, -2)).squeeze(2) / math.sqrt(q.shape[-1])
        return scores.masked_fill(~visible[:, None], -torch.inf).softmax(-1).mean(1)

    def _from(self, state: Tensor, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Queries of one position, keys and values of all, by head."""
        normed = self.norm1(x)
        q_weight, kv_weight = self.qkv.weight.tensor_split([x.shape[2]])
        q_bias, kv_bias = self.qkv.bias.tensor_split([x.shape[2]])
        q = self._split(F.linear(self.norm1(state), q_weight, q_bias))
        k, v = (self._split(part) for part in F.linear(normed, kv_weight, kv_bias).chunk(2, dim=-1))
        return q, k, v

    def _split(self, x: Tensor) -> Tensor:
        return x.unflatten(-1, (self.heads, -1)).transpose(1, 2)

    def _finish(self, x: Tensor, mixed: Tensor) -> Tensor:
        x = x + self.dropout(self.out(mixed.transpose(1, 2).flatten(2)))
        inner = self.dropout(F.gelu(self.grow(self.norm2(x))))
        return x + self.dropout(self.shrink(inner))
