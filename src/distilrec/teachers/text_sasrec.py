"""The default teacher: a wide SASRec that knows the items' texts."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from distilrec.errors import DataError, problem
from distilrec.models.trained import Trained
from distilrec.training.settings import TrainSettings
from distilrec.training.train import train
from distilrec.types import Split

__all__ = ["DEFAULTS", "text_sasrec"]

DEFAULTS = {"dim": 128, "layers": 1, "heads": 2, "dropout": 0.5, "max_length": 50}


def text_sasrec(
    split: Split, settings: Mapping[str, Any], training: TrainSettings, *, content: np.ndarray | None,
    folder: Path | None = None, name: str = "teacher", metric: str = "ndcg@10", seen: str = "drop",
    chosen: Mapping[str, Any] | None = None,
) -> Trained:
    """A SASRec whose item table starts from the principal components of a language model's vectors of the item texts
    and is then free (`content_use: start`), or which keeps them beside ids (`add`).

    The language model itself (for instance all-MiniLM-L6-v2: Wang et al., NeurIPS 2020; Reimers & Gurevych, EMNLP
    2019) is read once, in data.text; after that no step of training touches it.

    Raises:
        DataError: the data set has no item texts.
    """
    if content is None or not np.any(content):
        raise DataError(problem("text_sasrec needs item texts, and this data set has none",
                                "an item table with a title or text column",
                                "name it under data.items, or choose `model: sasrec`"))
    return train("sasrec", split, {**DEFAULTS, **settings}, training, name=name, content=content, metric=metric,
                 seen=seen, folder=folder, chosen=chosen)
