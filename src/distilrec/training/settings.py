"""How a model is trained: one typed document, shared by recipes, functions and checkpoints (no torch here)."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

__all__ = [
    "LOWER", "RANK_ONLY", "ROW_ONLY", "ROW_SELECTION_METRICS", "SELECTION_METRICS", "Augment", "TrainSettings",
    "lower_is_better",
]

SELECTION_METRICS = ("ndcg", "recall", "hit_rate", "mrr")  # what the best weights can be chosen by: rank
ROW_SELECTION_METRICS = ("auc", "gauc", "log_loss", "rmse", "mae", "micro_f1")  # predict and tag
# fields of TrainSettings that only one half of the tasks reads; the other refuses them
RANK_ONLY = ("negatives", "negative_power", "balance", "weighting", "teacher", "decay", "experts", "score_scale",
             "augment", "windows")
ROW_ONLY = ("task_weights", "calibrate")
LOWER = ("log_loss", "rmse", "mae")  # of these less is better


def lower_is_better(metric: str) -> bool:
    """Whether less of `[head.]metric[@k]` is better."""
    return metric.rpartition(".")[2].partition("@")[0] in LOWER


class Augment(BaseModel):
    """Sequence augmentation, each a probability per sequence and epoch (Xie et al., "Contrastive Learning for
    Sequential Recommendation", ICDE 2022, without the contrastive part).

    A crop keeps its event keys and with them the soft labels; masking and reordering change what the history says,
    so the soft terms of such a sequence are switched off.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    crop: Annotated[float, Field(ge=0, le=1)] = 0.0
    mask: Annotated[float, Field(ge=0, le=1)] = 0.0
    reorder: Annotated[float, Field(ge=0, le=1)] = 0.0


class TrainSettings(BaseModel):
    """Everything about training that is not the model, the data, or the knowledge."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    epochs: Annotated[int, Field(ge=1)] = 100
    batch_size: Annotated[int, Field(ge=1)] = 256  # sequences (users) per step
    learning_rate: Annotated[float, Field(gt=0)] = 1e-3
    optimizer: Literal["adamw", "adam", "sgd", "adagrad", "lazy_adam"] = "adamw"  # lazy_adam: rows of millions of ids
    schedule: Literal["constant", "linear", "cosine"] = "constant"  # after the warm-up, over `epochs`
    warmup_steps: Annotated[int, Field(ge=0)] = 0
    weight_decay: Annotated[float, Field(ge=0)] = 0.0
    negatives: Annotated[int, Field(ge=1)] | Literal["full"] = 1024  # shared by the batch; "full" = whole catalog
    negative_power: Annotated[float, Field(ge=0, le=1)] = 0.0  # drawn in proportion to popularity ** power
    label_smoothing: Annotated[float, Field(ge=0, lt=1)] = 0.0
    temperature: Annotated[float, Field(gt=0)] = 1.0  # of the soft labels
    balance: Literal["constant", "soft-then-hard", "hard-then-soft"] = "constant"  # of the losses, over `epochs`
    weighting: list[Literal["consistency", "curriculum"]] = []  # of soft decisions, by what the student does with them
    teacher: Literal["store", "average", "peer"] = "store"  # who gives the soft labels: knowledge or the student itself
    decay: Annotated[float, Field(ge=0, lt=1)] = 0.99  # of the average, per step
    experts: Annotated[int, Field(ge=1)] = 1  # of the bridge between unlike widths, for the loss hint
    score_scale: Annotated[float, Field(gt=0)] = 1.0  # multiplies the dot product before every loss
    augment: Augment = Augment()
    windows: Literal["last", "all"] = "last"  # of a history longer than the model's: its latest events, or every window
    task_weights: Literal["equal", "uncertainty", "gradient"] = "equal"  # how several heads share a step
    calibrate: Literal["none", "shift", "affine"] = "shift"  # of logits, fitted on validation after training
    patience: Annotated[int, Field(ge=1)] = 10  # evaluations without a better validation metric
    evaluate_every: Annotated[int, Field(ge=1)] = 1  # epochs
    gradient_clip: Annotated[float, Field(ge=0)] = 0.0  # largest gradient norm; 0 = off
    precision: Literal["float32", "bf16"] = "float32"
    device: str = "cpu"
    seed: Annotated[int, Field(ge=0)] = 0

    def share(self, soft: bool, done: float) -> float:
        """The factor of a loss when the share `done` in [0, 1] of training lies behind; 1 on the average."""
        if self.balance == "constant":
            return 1.0
        falling = soft == (self.balance == "soft-then-hard")
        return 2 * (1 - done) if falling else 2 * done
