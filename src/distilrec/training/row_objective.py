"""One step's loss of the pointwise tasks: hard terms by head, soft terms by output, and how heads share the step."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor, nn

from distilrec.errors import RecipeError, problem
from distilrec.losses import ROW_HARD
from distilrec.losses.bernoulli_kl import bernoulli_kl
from distilrec.losses.binary_cross_entropy import binary_cross_entropy
from distilrec.losses.hint import hint
from distilrec.losses.output_squared_error import output_squared_error
from distilrec.losses.squared_error import squared_error
from distilrec.models.coupling import couple
from distilrec.training.settings import TrainSettings
from distilrec.types_rows import Outputs, RowSplit

__all__ = ["Learner", "row_objective", "variances_of"]

_MOMENTUM = 0.98  # of the running gradient norms that balance the heads


class Learner(nn.Module):
    """A model with what only training needs: an auxiliary head, the map of a hint, the weights of the heads.

    The auxiliary head learns from the teacher in the place of the served one, so that soft labels shape what lies
    below and the served outputs keep to the data (Liang et al., "External Large Foundation Model", WWW 2025).
    """

    scale: Tensor
    norms: Tensor

    def __init__(
        self, model: nn.Module, outputs: Outputs, variances: np.ndarray, *, width: int = 0, auxiliary: bool = False,
        hint_width: int = 0,
    ) -> None:
        super().__init__()
        self.model, self.outputs = model, outputs
        if (auxiliary or hint_width) and not width:
            raise RecipeError(problem(f"{type(model).__name__} has no hidden layer",
                                      "a model with one for auxiliary heads and hints, e.g. mlp",
                                      "choose another student, or leave `auxiliary` and `hint` out"))
        self.auxiliary = nn.Linear(width, outputs.size) if auxiliary else None
        self.bridge = nn.Linear(width, hint_width) if hint_width else None
        self.log_variance = nn.Parameter(torch.zeros(len(outputs.heads)))
        self.register_buffer("scale", torch.as_tensor(1 / variances, dtype=torch.float32))  # [O]; 1 where not a number
        self.register_buffer("norms", torch.zeros(len(outputs.heads)))


def variances_of(split: RowSplit) -> np.ndarray:
    """float64 [O]: the variance of the train labels of number heads, 1 for the others."""
    labels = split.label_matrix(split.rows("train"))
    out = np.ones(split.outputs.size)
    for head in split.heads:
        if head.kind == "number":
            where = split.outputs.slices[head.name]
            out[where] = np.maximum(np.nanvar(labels[:, where], axis=0), 1e-12)
    return out


def row_objective(
    learner: Learner, inputs: object, labels: Tensor, weights: Tensor | None, losses: Mapping[str, float],
    settings: TrainSettings, known: Mapping[str, Tensor],
) -> Tensor:
    """The scalar loss of B rows.

    Args:
        labels: float32 [B, O], NaN where not observed: such an entry costs nothing in the hard terms.
        weights: [B] or None.
        known: "response" [B, O] and "hidden" [B, H] of the teacher, as far as the losses need them.
    """
    out = learner.model(inputs)
    outputs = learner.outputs
    scores = couple(out["scores"].float(), outputs.heads)
    taught = scores if learner.auxiliary is None else couple(learner.auxiliary(out["hidden"]).float(), outputs.heads)
    observed = ~labels.isnan()
    targets = labels.nan_to_num()
    terms = []
    for head in outputs.heads:
        where = outputs.slices[head.name]
        z, t = scores[:, where], taught[:, where]
        total = z.new_zeros(())
        for name, weight in losses.items():
            if name in ROW_HARD and head.kind in ROW_HARD[name]:
                term = (binary_cross_entropy(z, targets[:, where], label_smoothing=settings.label_smoothing)
                        if name == "binary_cross_entropy" else
                        squared_error(z, targets[:, where]) * learner.scale[where])
                total = total + weight * _mean(term, observed[:, where], weights)
            elif name == "bernoulli_kl" and head.kind != "number":
                term = bernoulli_kl(t, known["response"][:, where], temperature=settings.temperature)
                total = total + weight * _mean(term, None, weights)
            elif name == "output_squared_error":
                term = output_squared_error(t, known["response"][:, where]) * learner.scale[where]
                total = total + weight * _mean(term, None, weights)
        terms.append(total)
    loss = _together(learner, torch.stack(terms), out.get("shared", out.get("hidden")), settings)
    if learner.bridge is not None:
        resemblance = hint(learner.bridge(out["hidden"]).float(), known["hidden"])
        loss = loss + losses["hint"] * _mean(resemblance, None, weights)
    return loss


def _mean(term: Tensor, observed: Tensor | None, weights: Tensor | None) -> Tensor:
    """Mean over what is observed, by weight; 0 where nothing is."""
    share = torch.ones_like(term) if observed is None else observed.to(term.dtype)
    if weights is not None:
        share = share * (weights if term.dim() == 1 else weights[:, None])
    return (term * share).sum() / share.sum().clamp(min=1e-9)


def _together(learner: Learner, terms: Tensor, shared: Tensor | None, settings: TrainSettings) -> Tensor:
    """One loss from the losses of the heads [T].

    equal: their sum. uncertainty: each divided by a learned variance (Kendall, Gal & Cipolla, CVPR 2018). gradient:
    each divided by the running norm of its gradient at the layer that all heads share, so that no head moves it more
    than another (Chen et al., "GradNorm", ICML 2018, at its fixed point for equal training rates).
    """
    if settings.task_weights == "uncertainty":
        return (terms * torch.exp(-learner.log_variance) + 0.5 * learner.log_variance).sum()
    if settings.task_weights == "equal" or len(terms) == 1:
        return terms.sum()
    norms = torch.stack([_norm(term, shared) for term in terms])
    with torch.no_grad():
        first = learner.norms == 0
        learner.norms.copy_(torch.where(first, norms, _MOMENTUM * learner.norms + (1 - _MOMENTUM) * norms))
        seen = learner.norms > 0  # a head without any label so far has no gradient to weigh
        weights = torch.where(seen, 1 / learner.norms.clamp(min=1e-12), 0.0)
        weights = weights * (seen.sum() / weights.sum().clamp(min=1e-12))
    return (weights * terms).sum()


def _norm(term: Tensor, shared: Tensor | None) -> Tensor:
    if not term.requires_grad:
        return term.new_zeros(())
    gradient = None
    if shared is not None and shared.requires_grad:
        (gradient,) = torch.autograd.grad(term, shared, retain_graph=True, allow_unused=True)
    if gradient is None:  # without it all heads would silently weigh the same
        raise RecipeError(problem("task_weights: gradient with a model that has no layer which all heads share",
                                  "mlp, shared_bottom, mmoe, ple, ...", "use task_weights: uncertainty"))
    return gradient.norm().detach()
