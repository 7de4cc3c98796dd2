"""An ONNX file of any origin as teacher."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort

from distilrec.errors import DataError, nearest, problem
from distilrec.teachers.matrix import Source, named_or_matrix
from distilrec.teachers.outside import OutsidePredictor, digest_of, found, library, output_names
from distilrec.types_rows import Head, RowSplit

__all__ = ["onnx_teacher"]

TYPES = {
    "tensor(float)": np.float32, "tensor(double)": np.float64, "tensor(float16)": np.float16,
    "tensor(int64)": np.int64, "tensor(int32)": np.int32, "tensor(bool)": np.bool_, "tensor(string)": object,
}
Reader = Callable[[dict[str, Any], int], np.ndarray]


def onnx_teacher(
    path: str | Path, split: RowSplit, *, space: str | Mapping[str, str] | None = None,
    inputs: Sequence[Source] | Mapping[str, Source | Sequence[Source]] | None = None,
    output: str | Mapping[str, str] | None = None, name: str = "", narrow_logits: bool = False, block: int = 4096,
) -> OutsidePredictor:
    """A teacher that is an ONNX file.

    Args:
        inputs: for each input of the graph a source (see teachers.matrix), or a list of sources that become one matrix;
            for a graph with one input the list alone is enough. Left out, every input must have the name of a raw
            column. A missing text is given as "", a missing number as NaN.
        output: the output to read, needed where the graph has several. `name[1]` is column 1 of an output, or key 1 of
            a dictionary (the ZipMap of converted scikit-learn and LightGBM classifiers). A mapping of head to output
            where every head has its own.
        space: see teachers.outside.OutsidePredictor.
    Raises:
        DataError: the file is missing or no ONNX; unknown or missing inputs or outputs; all that
            OutsidePredictor refuses.
    """
    path = found(path, "an ONNX file", (".onnx", ".ort"))
    options = ort.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 3
    try:
        session = ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    except Exception as error:
        raise DataError(problem(f"{path.name} cannot be read as ONNX ({_short(error)})",
                                "a graph that onnxruntime can run")) from error
    mapping = _inputs(session, inputs, split)
    read, said = _outputs(session, output, split.heads)
    kinds = {one.name: one for one in session.get_inputs()}
    wide = [name for name, one in kinds.items() if one.type in ("tensor(double)", "tensor(int64)", "tensor(int32)")]

    def score(batch: dict[str, np.ndarray]) -> np.ndarray:
        n = len(next(iter(batch.values())))
        feed = {key: _fit(values, kinds[key]) for key, values in batch.items()}
        try:
            answers = session.run(None, feed)
        except Exception as error:
            raise DataError(problem(
                f"{path.name} cannot answer rows ({_short(error)})",
                "inputs: " + ", ".join(f"{one.name} {one.type} {one.shape}" for one in kinds.values()),
                "export it with a free batch dimension; see that inputs maps each input to the right columns",
            )) from error
        return read({one.name: answer for one, answer in zip(session.get_outputs(), answers, strict=True)}, n)

    return OutsidePredictor(
        score, split, space=space, rows=named_or_matrix(mapping, wide), name=name or path.stem, block=block,
        parameters=_parameters(path), digest=digest_of(path, mapping, said), narrow_logits=narrow_logits,
    )


def _inputs(session: Any, inputs: Any, split: RowSplit) -> dict[str, Source | Sequence[Source]]:
    """Every input of the graph -> its source or sources."""
    wanted = [one.name for one in session.get_inputs()]
    shown = ", ".join(f"{one.name} ({one.type}, {one.shape})" for one in session.get_inputs())
    if inputs is None:
        lost = [one for one in wanted if one not in split.raw.column_names]
        if lost:
            raise DataError(problem(f"what the inputs {', '.join(lost)} of the graph are is not said", shown,
                                    "give inputs: a mapping of input names to columns, or a list of columns for one"))
        return {one: one for one in wanted}
    if not isinstance(inputs, Mapping):
        if isinstance(inputs, str) or len(wanted) != 1:
            raise DataError(problem(f"inputs: {inputs!r:.60} for a graph with {len(wanted)} inputs", shown,
                                    "give a mapping of input names to columns"))
        return {wanted[0]: list(inputs)}
    unknown = [f"{one!r}{nearest(one, wanted)}" for one in inputs if one not in wanted]
    lost = [one for one in wanted if one not in inputs]
    if unknown or lost:
        raise DataError(problem("; ".join([*(f"the graph has no input {one}" for one in unknown),
                                           *(f"input {one!r} is not mapped" for one in lost)]), shown))
    return {one: inputs[one] for one in wanted}


def _outputs(session: Any, output: str | Mapping[str, str] | None, heads: tuple[Head, ...]) -> tuple[Reader, Any]:
    """How to find the numbers [n, O] among the outputs, and what to put under the digest."""
    known = {one.name: one.type for one in session.get_outputs()}
    shown = ", ".join(f"{name} ({kind})" for name, kind in known.items())
    if output is None:
        if len(known) != 1:
            raise DataError(problem(f"the graph has {len(known)} outputs, and which one to read is not said", shown,
                                    "give output=NAME, or NAME[1] for one column of it"))
        output = next(iter(known))
    if isinstance(output, Mapping):
        names = [head.name for head in heads]
        if sorted(output) != sorted(names):
            raise DataError(problem(f"outputs are given for {', '.join(output)}", f"each of {', '.join(names)}"))
        chosen = [output[one] for one in names]
    else:
        chosen = [output]
    parsed = [_parse(one, known, shown) for one in chosen]

    def read(answers: dict[str, Any], n: int) -> np.ndarray:
        parts = [_numbers(answers[name], column, name, n, heads) for name, column in parsed]
        return parts[0] if len(parts) == 1 else np.concatenate([one.reshape(n, -1) for one in parts], axis=1)

    return read, parsed


def _parse(text: str, known: Mapping[str, str], shown: str) -> tuple[str, str | None]:
    """ "name" or "name[column]" -> (name, column)."""
    if text in known:
        return text, None
    match = re.fullmatch(r"(.+)\[([^\]]+)\]", text)
    if match is None or match[1] not in known:
        raise DataError(problem(f"the graph has no output {text!r}{nearest(text, known)}", shown))
    return match[1], match[2]


def _numbers(answer: Any, column: str | None, name: str, n: int, heads: tuple[Head, ...]) -> np.ndarray:
    """One output, or one column of it."""
    if isinstance(answer, list):
        if not answer or not isinstance(answer[0], dict):
            raise DataError(problem(f"output {name!r} is a sequence", "a tensor [n, O]"))
        keys = {str(key): key for key in answer[0]}
        if column not in keys:
            shown = f"output {name!r} is a dictionary a row (a ZipMap) with the keys {', '.join(keys)}, and "
            raise DataError(problem(
                shown + ("which of them is meant is not said" if column is None else f"{column} is none of them"),
                "one key: the class that means yes",
                f"give output=\"{name}[{list(keys)[-1]}]\", or convert the model with options={{'zipmap': False}}"))
        return np.array([row[keys[column]] for row in answer], dtype=np.float64)
    if column is None:
        return np.asarray(answer)
    if not column.isdigit() or np.ndim(answer) != 2 or int(column) >= answer.shape[1]:
        raise DataError(problem(f"column {column} of output {name!r}, whose shape is {list(np.shape(answer))}",
                                f"a column of an output [{n}, ...] for {', '.join(output_names(heads))}"))
    return answer[:, int(column)]


def _fit(values: np.ndarray, wanted: Any) -> np.ndarray:
    """An array in the type and number of dimensions of a graph's input."""
    kind = TYPES.get(wanted.type)
    if kind is None:
        raise DataError(problem(f"input {wanted.name!r} of the graph is {wanted.type}", ", ".join(TYPES)))
    if kind is object:
        values = np.array(["" if one is None else str(one) for one in values.tolist()], dtype=object)
    elif values.dtype == object:
        raise DataError(problem(f"input {wanted.name!r} of the graph is {wanted.type}, and its column holds text",
                                "numbers", f"map it to an encoded column: {wanted.name}: encoded:FEATURE"))
    elif np.issubdtype(kind, np.integer) and values.dtype.kind == "f" and not np.equal(values, np.floor(values)).all():
        raise DataError(problem(f"input {wanted.name!r} of the graph is {wanted.type}, and its column has missing or "
                                "broken numbers", "whole numbers",
                                "map it to an encoded column, or fill the gaps first"))
    elif np.issubdtype(kind, np.integer) and len(values) and not (
            np.iinfo(kind).min <= values.min() and values.max() <= np.iinfo(kind).max):
        raise DataError(problem(f"input {wanted.name!r} of the graph is {wanted.type}, and its column holds "
                                f"{values.min()} to {values.max()}", "numbers of this type",
                                "map it to the column that the model was trained on"))
    else:
        values = values.astype(kind)
    if values.ndim == 1 and len(wanted.shape) == 2:
        values = values[:, None]
    return values


def _parameters(path: Path) -> int:
    """Numbers in the graph: initializers, constants, and the node lists of trees and linear models."""
    onnx = library("onnx", "onnx", "train")

    def of(graph: Any) -> int:
        total = sum(int(np.prod(one.dims)) for one in graph.initializer)
        for node in graph.node:
            for attribute in node.attribute:
                total += int(np.prod(attribute.t.dims)) if attribute.HasField("t") else 0
                if node.domain.startswith("ai.onnx.ml"):
                    total += len(attribute.floats) + len(attribute.ints)
                total += of(attribute.g) if attribute.HasField("g") else 0
        return total

    return of(onnx.load(str(path), load_external_data=False).graph) if path.suffix == ".onnx" else 0


def _short(error: Exception) -> str:
    return " ".join(str(error).split())[:160]
