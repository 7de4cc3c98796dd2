"""What all saved models have in common: a folder with weights and a description, checked before it is believed."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from distilrec.errors import KnowledgeError, problem
from distilrec.files import digest_file, read_object, recover, well_formed
from distilrec.types import Split
from distilrec.types_rows import RowSplit

__all__ = ["read_saved"]

WEIGHTS, DESCRIPTION = "model.safetensors", "model.json"
_FIELDS = {"name": str, "architecture": str, "settings": dict, "split_digest": str, "training": dict, "digest": str}
Model = TypeVar("Model")


def read_saved(
    folder: Path, split: Split | RowSplit | None, build: Callable[[dict[str, Any], Path], Model]
) -> Model:
    """`build(description, file of weights)` of the model in `folder`; with a `split`, one that was trained on it.

    Raises:
        KnowledgeError: changed weights, another split, or a description that `build` can make nothing of.
        DataError: the description is no JSON, or lacks what every one has.
    """
    recover(folder)
    weights, path = folder / WEIGHTS, folder / DESCRIPTION
    with well_formed(path, KnowledgeError):
        said = read_object(path, _FIELDS)
        if digest_file(weights) != said["digest"]:
            raise KnowledgeError(problem(f"{weights} has changed since it was written", f"SHA-256 {said['digest']}",
                                         "train it again, or restore the file"))
        if split is not None and said["split_digest"] != split.digest:
            kind = "table" if isinstance(split, RowSplit) else "data set"
            raise KnowledgeError(problem(f"the model in {folder} was trained on another {kind} or split",
                                         f"split {split.digest[:12]}", "use the split it came from, or train again"))
        return build(said, weights)
