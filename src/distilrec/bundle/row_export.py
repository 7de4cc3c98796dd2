"""From a trained model of rows to a bundle: one ONNX graph, proven equal to the model before anything is published.

The graph takes the features by name (category int64 [B]; list, sequence and text int64 [B, L] padded with -1; number
float32 [B]; vector float32 [B, D]) and gives `logits` float32 [B, O] and `outputs` float32 [B, O], the probabilities
of binary and tags heads and the values of number heads.
"""

from __future__ import annotations

import copy
import datetime
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from torch import Tensor, nn

from distilrec.bundle.config import GRAPH, ROW_TASKS, SCHEMA, library_version, write_bundle
from distilrec.bundle.export import OPSET, TOLERANCE, quiet_exporter
from distilrec.bundle.graph import clean, count_parameters
from distilrec.bundle.session import open_graph
from distilrec.errors import BundleError, nearest, problem
from distilrec.features import RAGGED_KINDS, Feature
from distilrec.models.coupling import couple
from distilrec.models.fields import Inputs
from distilrec.models.predictor import TrainedRows
from distilrec.types_rows import Head, RowSplit

__all__ = ["export_rows"]

_RESULTS = ("logits", "outputs")
_INLINE = 64  # values of a vocabulary that stand in config.json itself; longer ones get a file
_MAX_BATCH = 1 << 20


def export_rows(
    trained: TrainedRows, split: RowSplit, path: str | Path, *, card: str | None, metadata: Mapping[str, Any],
) -> Path:
    """Write a trained model of rows as a bundle at `path` and return it.

    split: the table that the model was trained on; gives the name and the digest.
    card: text of card.md, or None.
    metadata: further JSON for config.json. Of it, "student" is the name that the bundle goes by, "task" is predict or
        tag (tag if all heads are tags), "thresholds" {head: probability, or one per class} says from where on a class
        counts as given.

    Raises BundleError, with nothing written, if the model reads a feature that is not known when a request comes, does
    not fit the split, holds NaN, or if ONNX Runtime does not reproduce its answers on random and empty inputs.
    """
    metadata = dict(metadata)
    features, heads = tuple(trained.features), tuple(trained.heads)
    _check(trained, features, split)
    thresholds = _thresholds(metadata.pop("thresholds", None) or {}, heads)
    body = _Body(trained).eval()
    graph = _to_onnx(body, features)
    clean(graph)
    data = graph.SerializeToString()
    onnx.checker.check_model(graph)
    _compare(body, data, features)
    files = _vocabulary_files(features)
    task = str(metadata.pop("task", "tag" if all(head.kind == "tags" for head in heads) else "predict"))
    if task not in ROW_TASKS:
        raise BundleError(problem(f"task: {task!r}", " or ".join(ROW_TASKS)))
    config = {
        "schema": SCHEMA, "task": task, "student": str(metadata.pop("student", trained.name)),
        "inputs": [_input(feature, files) for feature in features], "outputs": _outputs(heads),
        "graphs": {"predict": GRAPH}, "seen": None, "thresholds": thresholds, "parameters": count_parameters(graph),
        "created": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"), "distilrec": library_version(),
        "dataset": {"name": split.name, "split": split.digest}, "metadata": metadata,
    }
    vocabularies = {name: feature.vocabulary for feature in features if (name := files.get(feature.vocabulary))}
    return write_bundle(path, config, data, card=card, vocabularies=vocabularies)


class _Body(nn.Module):
    """One tensor per feature -> (logits [B, O], outputs [B, O]): the graph that is served."""

    scale: Tensor
    shift: Tensor
    is_value: Tensor

    def __init__(self, trained: TrainedRows) -> None:
        super().__init__()
        self.model = copy.deepcopy(trained.model).cpu().float().eval()
        self.features, self.heads = tuple(trained.features), tuple(trained.heads)
        self.register_buffer("scale", torch.as_tensor(np.asarray(trained.scale), dtype=torch.float32))
        self.register_buffer("shift", torch.as_tensor(np.asarray(trained.shift), dtype=torch.float32))
        kinds = [head.kind == "number" for head in self.heads for _ in head.columns]
        self.register_buffer("is_value", torch.tensor(kinds))

    def forward(self, *tensors: Tensor) -> tuple[Tensor, Tensor]:
        scores = self.model(_inputs(self.features, tensors))["scores"]
        logits = (couple(scores, self.heads) * self.scale + self.shift).float()
        return logits, torch.where(self.is_value, logits, torch.sigmoid(logits))


def _inputs(features: Sequence[Feature], tensors: Sequence[Tensor]) -> Inputs:
    """What a model reads, from one tensor per feature."""
    def of(*kinds: str) -> tuple[Tensor, ...]:
        return tuple(one for feature, one in zip(features, tensors, strict=True) if feature.kind in kinds)

    def stacked(kind: str, dtype: torch.dtype) -> Tensor:
        found = of(kind)
        return torch.stack(found, dim=1) if found else torch.zeros((tensors[0].shape[0], 0), dtype=dtype)

    return Inputs(stacked("category", torch.int64), of(*RAGGED_KINDS), stacked("number", torch.float32), of("vector"))


def _check(trained: TrainedRows, features: Sequence[Feature], split: RowSplit) -> None:
    hidden = [feature for feature in features if feature.available == "training"]
    if hidden:
        names = ", ".join(repr(feature.name) for feature in hidden)
        raise BundleError(problem(
            f"{trained.name} reads {names}, which the recipe calls available in training only: nobody can send "
            f"{'it' if len(hidden) == 1 else 'them'} with a request",
            "a student of features that are known when a request comes",
            f"leave {names} out of the student's features (its teacher may keep it), or correct `available`",
        ))
    if not features:
        raise BundleError(problem(f"{trained.name} reads no feature", "at least one feature"))
    taken = [feature.name for feature in features if feature.name in _RESULTS]
    if taken:
        raise BundleError(problem(f"a feature is called {taken[0]!r}, as an output of the graph", "another name"))
    if trained.split_digest != split.digest:
        raise BundleError(problem(f"{trained.name} was trained on another table, or on another split of it",
                                  f"the split with digest {trained.split_digest[:12]}...", "train it again"))
    bad = [name for name, tensor in trained.model.state_dict().items()
           if tensor.is_floating_point() and not torch.isfinite(tensor).all()]
    if bad:
        raise BundleError(problem(f"NaN or infinite numbers in {', '.join(bad)}", "finite numbers",
                                  "look at the training log"))


def _to_onnx(body: _Body, features: Sequence[Feature]) -> onnx.ModelProto:
    batch = torch.export.Dim("B", max=_MAX_BATCH)
    shapes: list[dict[int, Any]] = []
    for place, feature in enumerate(features):
        shapes.append({0: batch})
        if feature.kind in RAGGED_KINDS and feature.max_length > 1:
            shapes[-1][1] = torch.export.Dim(f"L{place}", max=feature.max_length)
    rng = np.random.default_rng(0)
    # lengths of more than one: the exporter takes a one for a constant; unlike ones, so that none are taken for equal
    arguments = _tensors(_examples(features, 3, rng, full=True))
    names = [feature.name for feature in features]
    try:
        with quiet_exporter(), torch.inference_mode():
            program = torch.onnx.export(
                body, arguments, dynamo=True, opset_version=OPSET, input_names=[f"in{i}" for i in range(len(names))],
                output_names=list(_RESULTS), dynamic_shapes=(tuple(shapes),), verbose=False,
            )
    except (torch.onnx.OnnxExporterError, RuntimeError) as error:
        raise BundleError(problem(
            f"{type(body.model).__name__} cannot be written as ONNX: {str(error).strip().splitlines()[0]}",
            "a `forward` made of exportable operations, with dynamic batch and list lengths",
        )) from error
    graph: onnx.ModelProto = program.model_proto  # type: ignore[union-attr]
    _rename(graph.graph, {f"in{place}": name for place, name in enumerate(names)})
    _declare(graph.graph, features)
    return graph


def _rename(graph: onnx.GraphProto, names: Mapping[str, str]) -> None:
    """Give the inputs their features' names; an inner value that has such a name already makes way."""
    new = {**{name: f"inner.{name}" for name in names.values() if name not in names}, **names}
    for node in graph.node:
        for side in (node.input, node.output):
            side[:] = [new.get(value, value) for value in side]
    for value in (*graph.input, *graph.initializer):
        value.name = new.get(value.name, value.name)


def _declare(graph: onnx.GraphProto, features: Sequence[Feature]) -> None:
    """Every feature is an input, even one that the model does not look at: the interface is that of config.json."""
    present = {value.name: value for value in graph.input}
    del graph.input[:]
    for feature in features:
        kind = onnx.TensorProto.INT64 if _dtype(feature) == "int64" else onnx.TensorProto.FLOAT
        info = onnx.helper.make_tensor_value_info(feature.name, kind, _shape(feature))
        graph.input.append(present.get(feature.name, info))


def _examples(
    features: Sequence[Feature], batch: int, rng: np.random.Generator, *, full: bool = False, nothing: bool = False,
) -> list[np.ndarray]:
    """Random inputs with unknown ids and lists of all lengths; `full`: no pads; `nothing`: everything missing."""
    found: list[np.ndarray] = []
    for place, feature in enumerate(features):
        if feature.kind == "number":
            value: np.ndarray = np.zeros(batch) if nothing else rng.normal(size=batch) * 3
        elif feature.kind == "vector":
            value = np.zeros((batch, feature.dim)) if nothing else rng.normal(size=(batch, feature.dim))
        elif feature.kind == "category":
            value = np.zeros(batch) if nothing else rng.integers(0, feature.size, batch)
        else:
            longest = max(1, feature.max_length)
            width = min(longest, 2 + place) if full else int(rng.integers(1, longest + 1))
            value = rng.integers(0, feature.size, (batch, width))
            if not full:
                lengths = np.zeros(batch) if nothing else rng.integers(0, width + 1, batch)
                value[np.arange(width) >= lengths[:, None]] = -1
        found.append(value.astype(_dtype(feature)))
    return found


def _tensors(arrays: Sequence[np.ndarray]) -> tuple[Tensor, ...]:
    return tuple(torch.as_tensor(array) for array in arrays)


def _compare(body: _Body, data: bytes, features: Sequence[Feature]) -> None:
    """Hold the graph against torch; BundleError on the first difference."""
    session = open_graph(data)
    rng = np.random.default_rng(1)
    for batch, nothing in ((1, False), (1, True), (2, False), (7, False), (64, False), (3, True)):
        arrays = _examples(features, batch, rng, nothing=nothing)
        with torch.inference_mode():
            expected = [one.numpy() for one in body(*_tensors(arrays))]
        feed = {feature.name: array for feature, array in zip(features, arrays, strict=True)}
        for what, torch_says, found in zip(_RESULTS, expected, session.run(list(_RESULTS), feed), strict=True):
            fault = _difference(torch_says, np.asarray(found))
            if fault:
                raise BundleError(problem(
                    f"the exported graph and the torch model disagree on the {what} of {batch} "
                    f"{'empty ' if nothing else ''}rows: {fault}",
                    f"equality within {TOLERANCE:g} of the largest value",
                    "this is a fault of the export, nothing was written; please report it with the model's settings",
                ))


def _difference(expected: np.ndarray, found: np.ndarray) -> str | None:
    if not np.isfinite(expected).all():
        return "torch gives NaN or infinite numbers"
    if expected.shape != found.shape:
        return f"shapes {expected.shape} and {found.shape}"
    if not np.allclose(expected, found, rtol=0, atol=TOLERANCE * max(1.0, float(np.abs(expected).max()))):
        return f"they differ by up to {np.abs(expected - found).max():g}"
    return None


def _dtype(feature: Feature) -> str:
    return "float32" if feature.kind in ("number", "vector") else "int64"


def _shape(feature: Feature) -> list[str | int]:
    if feature.kind == "vector":
        return ["B", feature.dim]
    return ["B", f"L_{feature.name}"] if feature.kind in RAGGED_KINDS else ["B"]


def _vocabulary_files(features: Sequence[Feature]) -> dict[tuple[str, ...], str]:
    """long vocabulary -> file name; a sequence that shares the vocabulary of a category shares its file."""
    files: dict[tuple[str, ...], str] = {}
    for feature in features:
        if len(feature.vocabulary) > _INLINE and feature.vocabulary not in files:
            plain = re.sub(r"[^A-Za-z0-9_-]+", "_", feature.name)[:64]
            name = f"values-{plain}.json"
            files[feature.vocabulary] = name if name not in files.values() else f"values-{len(files)}-{plain}.json"
    return files


def _input(feature: Feature, files: Mapping[tuple[str, ...], str]) -> dict[str, Any]:
    """An entry of config.json: what the graph takes, and everything that a Feature needs to encode raw values."""
    document = feature.to_json()
    del document["available"]  # always "request" here
    default: int | float = 0 if feature.kind == "category" else -1 if feature.kind in RAGGED_KINDS else 0.0
    vocabulary = files.get(feature.vocabulary) or list(feature.vocabulary) or None
    head = {"name": feature.name, "kind": feature.kind, "dtype": _dtype(feature), "shape": _shape(feature)}
    return {**head, "default": default, **document, "vocabulary": vocabulary, "columns": list(feature.sources)}


def _outputs(heads: Sequence[Head]) -> list[dict[str, Any]]:
    """An entry of config.json per column of `outputs`."""
    return [
        {"name": f"{head.name}.{one}" if head.kind == "tags" else head.name, "head": head.name, "kind": head.kind,
         "space": "value" if head.kind == "number" else "probability",
         "class": one if head.kind == "tags" else None, "after": head.after}
        for head in heads for one in head.columns
    ]


def _thresholds(given: Mapping[str, Any], heads: Sequence[Head]) -> dict[str, Any]:
    """{head: probability, or one per class}, checked."""
    allowed = {head.name: len(head.columns) for head in heads if head.kind != "number"}
    found: dict[str, Any] = {}
    for name, value in given.items():
        if name not in allowed:
            raise BundleError(problem(f"a threshold for {name!r}{nearest(name, allowed)}",
                                      f"binary and tags heads: {', '.join(allowed) or '(none)'}"))
        values = np.asarray(value, dtype=np.float64)
        if values.shape not in ((), (allowed[name],)) or not ((values >= 0) & (values <= 1)).all():
            raise BundleError(problem(f"thresholds of {name!r}: {value!r:.60}",
                                      f"a probability, or {allowed[name]} of them"))
        found[name] = values.tolist()
    return found
