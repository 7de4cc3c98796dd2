"""A Keras 3 model as teacher."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from distilrec.errors import DataError, problem
from distilrec.teachers.matrix import Source, named_or_matrix
from distilrec.teachers.outside import OutsidePredictor, digest_of, found, library, output_names
from distilrec.types_rows import RowSplit

__all__ = ["keras_teacher"]


def keras_teacher(
    model: Any, split: RowSplit, *, space: str | Mapping[str, str] | None = None,
    inputs: Sequence[Source] | Mapping[str, Source | Sequence[Source]] | None = None, name: str = "",
    narrow_logits: bool = False, block: int = 4096,
) -> OutsidePredictor:
    """A teacher that is a Keras 3 model, or a `.keras` file of one.

    Keras chooses its backend when it is first imported; where nothing is set, torch is taken. Files are read in Keras's
    safe mode, always: one with Lambda layers, which hold Python code, is refused.

    Args:
        inputs: a list of sources (see teachers.matrix) for a model with one input, or a mapping of its input names to a
            source, or to a list of them.
    Raises:
        DataError: no such file, a file that safe mode refuses, inputs that do not fit; everything that OutsidePredictor
            refuses.
        MissingExtraError: keras is not installed.
    """
    os.environ.setdefault("KERAS_BACKEND", "torch")
    keras = library("keras", "keras", "outside")
    path = found(model, "a Keras 3 file", (".keras",)) if isinstance(model, str | Path) else None
    loaded = model if path is None else _load(keras, path)
    wanted = [one.name for one in loaded.inputs or []]
    if inputs is None or (isinstance(inputs, Mapping) and sorted(inputs) != sorted(wanted)) or (
            not isinstance(inputs, Mapping) and len(wanted) > 1):
        raise DataError(problem(f"inputs: {inputs!r:.80}", f"the model's inputs: {', '.join(wanted)}",
                                "give a list of columns for a model with one input, otherwise a mapping of names"))

    def score(batch: Any) -> np.ndarray:
        ready = {key: _fit(values, loaded, key) for key, values in batch.items()} if isinstance(batch, dict) else batch
        try:
            answer = loaded(ready, training=False)
        except (ValueError, TypeError, RuntimeError) as error:
            raise DataError(problem(f"the Keras model cannot answer rows ({' '.join(str(error).split())[:200]})",
                                    f"inputs: {', '.join(f'{one.name} {one.shape}' for one in loaded.inputs)}",
                                    "see that inputs gives as many columns as the model reads")) from error
        return _numbers(answer, split, keras)

    own = digest_of(path, inputs)
    return OutsidePredictor(
        score, split, space=space, rows=named_or_matrix(inputs), name=name or (path.stem if path else "keras"),
        parameters=int(loaded.count_params()), digest=own, narrow_logits=narrow_logits, block=block,
    )


def _load(keras: Any, path: Path) -> Any:
    try:
        return keras.saving.load_model(path, compile=False, safe_mode=True)
    except Exception as error:  # damaged archives, unknown classes and Lambda layers have errors of many kinds
        raise DataError(problem(f"{path.name} cannot be read ({' '.join(str(error).split())[:200]})",
                                "a .keras file of registered layers, without Lambda layers",
                                "replace a Lambda by a registered layer, or export the model to ONNX")) from error


def _fit(values: np.ndarray, model: Any, name: str) -> np.ndarray:
    """An array in the type and number of dimensions of the model's input."""
    wanted = next(one for one in model.inputs if one.name == name)
    if values.dtype == object:
        raise DataError(problem(f"input {name!r} is given text", f"{wanted.dtype} {wanted.shape}",
                                f"map it to an encoded column: {name}: encoded:FEATURE"))
    if "int" in str(wanted.dtype) and values.dtype.kind == "f" and not np.equal(values, np.floor(values)).all():
        raise DataError(problem(f"input {name!r} is {wanted.dtype}, and its column has missing or broken numbers",
                                "whole numbers", f"map it to an encoded column: {name}: encoded:FEATURE"))
    if values.ndim == 1 and len(wanted.shape) == 2:
        values = values[:, None]
    return values.astype(wanted.dtype)


def _numbers(answer: Any, split: RowSplit, keras: Any) -> np.ndarray:
    """[n, O] from one tensor, a list of them in the order of the heads, or {head: tensor}."""
    if isinstance(answer, dict):
        names = [head.name for head in split.heads]
        if sorted(answer) != sorted(names):
            raise DataError(problem(f"the model answers {', '.join(answer)}", f"the heads {', '.join(names)}"))
        answer = [answer[one] for one in names]
    if not isinstance(answer, list | tuple):
        return keras.ops.convert_to_numpy(answer)
    parts = [keras.ops.convert_to_numpy(one) for one in answer]
    if any(one.ndim > 2 or len(one) != len(parts[0]) for one in parts):
        raise DataError(problem(f"the model answers arrays of shapes {', '.join(str(one.shape) for one in parts)}",
                                f"one column for each of {', '.join(output_names(split.heads))}"))
    return np.concatenate([one.reshape(len(one), -1) for one in parts], axis=1)
