"""The item table that every trained model shares: ids, content, or both."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from distilrec.errors import TrainingError, nearest, problem

__all__ = ["CONTENT_USES", "ItemTable"]

CONTENT_USES = ("start", "add", "only")


class ItemTable(nn.Module):
    """Item vectors [I, D], plus two rows that no score reads: padding (id I) and the mask token (id I + 1).

    Content vectors [I, C] can be used in three ways:
        start  the id table begins as their principal components and is then free (strongest on warm items);
        add    id vector + learned projection of the content, which stays frozen;
        only   the learned projection alone, so an item that never occurred is as good as its content.

    Principal components are scaled so that the mean squared entry equals that of a random table.
    """

    def __init__(
        self, n_items: int, dim: int, *, content: np.ndarray | None = None, content_use: str = "start",
        bias: bool = False, scale: float = 0.02,
    ) -> None:
        super().__init__()
        if content_use not in CONTENT_USES:
            raise TrainingError(problem(f"content_use {content_use!r}{nearest(content_use, CONTENT_USES)}",
                                        " | ".join(CONTENT_USES)))
        if content is not None and len(content) != n_items:
            raise TrainingError(problem(f"content of shape {content.shape}", f"one row for each of {n_items} items"))
        self.n_items, self.dim, self.scale = n_items, dim, scale
        only_content = content is not None and content_use == "only"
        # The last two rows are padding and mask token; with content alone they are all the rows there are.
        self.weight = nn.Parameter(torch.randn(2 if only_content else n_items + 2, dim) * scale)
        self.bias = nn.Parameter(torch.zeros(n_items)) if bias else None
        self.start: Tensor
        self.register_buffer("start", torch.zeros(dim))
        self.content: Tensor | None
        self.register_buffer("content", None)
        self.project: nn.Module | None = None
        if content is not None and content_use == "start":
            self.set_vectors(content)
        elif content is not None:
            self.content = torch.as_tensor(content, dtype=torch.float32)
            norm = nn.LayerNorm(dim)
            nn.init.constant_(norm.weight, scale * 5)
            self.project = nn.Sequential(
                nn.Linear(content.shape[1], 2 * dim), nn.GELU(), nn.Linear(2 * dim, dim), norm
            )

    def vectors(self) -> Tensor:
        """[I, D], the table that scores are taken against."""
        if self.project is None:
            return self.weight[: self.n_items]
        projected = self.project(self.content)
        return projected + self.weight[: self.n_items] if len(self.weight) > 2 else projected

    def forward(self, items: Tensor) -> Tensor:
        """[...] ids (pad and mask included) -> [..., D]."""
        if self.project is None:
            return F.embedding(items, self.weight)
        return F.embedding(items, torch.cat([self.vectors(), self.weight[-2:]]))

    @torch.no_grad()
    def set_vectors(self, vectors: np.ndarray) -> None:
        """Start the id table from [I, C] vectors: their first D principal directions, scaled like a random start.

        Rows of zeros (items without content) keep their random start.
        """
        if self.project is not None and len(self.weight) == 2:
            raise TrainingError(problem("the item table holds no id vectors to start", "content_use: start | add"))
        if len(vectors) != self.n_items or not np.isfinite(vectors).all():
            holes = int((~np.isfinite(vectors)).sum())
            raise TrainingError(problem(f"start vectors of shape {np.shape(vectors)}, {holes} numbers NaN or infinite",
                                        f"one finite row for each of {self.n_items} items"))
        x = torch.as_tensor(np.asarray(vectors, dtype=np.float32))
        known = x.abs().sum(1) > 0
        if x.shape[1] > self.dim:
            x = principal(x, known, self.dim)
        elif x.shape[1] < self.dim:
            x = F.pad(x, (0, self.dim - x.shape[1]))
        x = x * (self.scale / x[known].pow(2).mean().sqrt().clamp(min=1e-12))
        rows = known.nonzero().squeeze(1)
        self.weight[rows] = x[rows].to(self.weight)


def principal(x: Tensor, known: Tensor, dim: int) -> Tensor:
    """[I, C] -> [I, dim] by uncentered principal directions of the known rows, in float64.

    The sign of each direction is fixed (largest entry positive), so that a start does not depend on the machine.
    """
    rows = x[known].double()
    values, directions = torch.linalg.eigh(rows.T @ rows)
    directions = directions[:, torch.argsort(values, descending=True)[:dim]]
    top = directions.abs().argmax(0)
    directions = directions * directions[top, torch.arange(directions.shape[1])].sign()
    return (x.double() @ directions).float()
