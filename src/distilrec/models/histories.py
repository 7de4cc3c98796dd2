"""Between flat histories and the padded arrays that a torch model or an ONNX graph reads."""

from __future__ import annotations

import numpy as np

from distilrec.types import Histories

__all__ = ["pad"]


def pad(histories: Histories, max_length: int, fill: int) -> tuple[np.ndarray, np.ndarray]:
    """(items int64 [B, L], lengths int64 [B]): the latest `max_length` items, padded on the right with `fill`.

    L is the longest kept history, at least 1.
    """
    lengths = np.minimum(histories.lengths, max_length)
    width = max(1, int(lengths.max(initial=0)))
    column = np.arange(width)
    valid = column < lengths[:, None]
    source = np.where(valid, (histories.offsets[1:] - lengths)[:, None] + column, 0)
    if len(histories.items) == 0:
        return np.full(valid.shape, fill, dtype=np.int64), lengths
    return np.where(valid, histories.items[source], fill).astype(np.int64), lengths
