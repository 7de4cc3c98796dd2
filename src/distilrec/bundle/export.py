"""From a trained torch model to a bundle: one ONNX graph, proven equal to the model before anything is published."""

from __future__ import annotations

import contextlib
import copy
import datetime
import io
import logging
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import torch
from torch import Tensor, nn

from distilrec.bundle.config import GRAPH, SCHEMA, library_version, write_bundle
from distilrec.bundle.graph import add_ranking, clean, count_parameters, find_bytes
from distilrec.errors import BundleError, problem
from distilrec.models.items import ItemTable
from distilrec.models.popularity import Popularity
from distilrec.models.trained import Trained
from distilrec.types import Histories, Split

__all__ = ["OPSET", "TOLERANCE", "export", "quiet_exporter"]

# 23 is the first opset with a fused Attention: a third less CPU per request than the spelled-out one of opset 20.
OPSET = 23
_OPSET_RECURRENT = 20  # the newest that the tracing exporter writes
TOLERANCE = 1e-4


def export(
    model: nn.Module | Trained | Popularity, split: Split, path: str | Path, *, card: str | None,
    metadata: Mapping[str, Any], seen: str = "drop",
) -> Path:
    """Write `model` as a bundle at `path` and return it.

    model: a module with the contract of models/ (`last`, `item_vectors`, `item_bias`, `max_length`, `uses_users`),
        such a module with its name (Trained), or Popularity.
    split: the data that the model was trained on; gives the vocabularies, the titles and the digest.
    card: text of card.md, or None.
    metadata: further JSON for config.json; its "student" is the name that the bundle goes by.
    seen: "drop" (items of the history are never recommended) or "keep"; the default of every answer.

    The graph takes `history` int64 [B, L] (padded with -1 on the right), `exclude` int64 [B, S] (padded with -1), `k`
    int64 [1] (1..I) and, for models that know users, `user` int64 [B] (-1 unknown); it gives `items` int64 [B, k],
    `scores` float32 [B, k] and `vector` float32 [B, D]. Equal scores: the smaller internal id first.

    Raises BundleError, with nothing written, if the model does not fit the split, holds NaN, or if ONNX Runtime does
    not reproduce its scores and its lists on random histories of several lengths and batch sizes.
    """
    metadata = dict(metadata)
    if seen not in ("drop", "keep"):
        raise BundleError(problem(f"seen: {seen!r}", "'drop' or 'keep'"))
    if isinstance(model, Trained):
        metadata = {"student": model.name, **metadata}
        model = model.model
    elif isinstance(model, Popularity):
        metadata = {"student": model.name, **metadata}
        model = _Constant(model.scores(Histories.of([[]]))[0])
    body = _Body(_folded(model)).eval()
    with torch.inference_mode():
        vectors = body.model.item_vectors().detach().float().numpy().copy()
        raw_bias = body.model.item_bias()
        bias = None if raw_bias is None else raw_bias.detach().float().numpy().copy()
    _check_table(vectors, bias, split)
    graph = _to_onnx(body)
    clean(graph)
    table = add_ranking(graph, vectors, bias)
    data = graph.SerializeToString()
    onnx.checker.check_model(graph)
    _compare(body, data, vectors, bias, split.n_users)

    dataset = split.dataset
    config = _config(body, split, metadata, seen, vectors.shape, count_parameters(graph))
    if isinstance(body.model, _Constant):
        config["item_vectors"] = None  # one number per item says nothing about likeness
    else:
        config["item_vectors"]["offset"] = find_bytes(graph, data, table)
    return write_bundle(path, config, data, card=card, vocabularies={
        "items.json": list(map(str, dataset.item_keys)), "titles.json": _titles(split),
        "users.json": list(map(str, dataset.user_keys)) if body.uses_users else None,
    })


class _Body(nn.Module):
    """history [B, L] padded with -1 (and user [B]) -> vector [B, D]: the part of the graph that torch exports."""

    model: Any  # the contract of models/, which nn.Module does not declare

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model = model
        self.uses_users = bool(getattr(model, "uses_users", False))
        self.n_items = int(model.n_items)
        self.max_length = int(model.max_length)

    def forward(self, history: Tensor, user: Tensor | None = None) -> Tensor:
        valid = history >= 0
        items = torch.where(valid, history, self.n_items)
        return self.model.last(items, valid.sum(1), user).float()


class _Constant(nn.Module):
    """The same scores [I] for everybody, as a model of width one."""

    uses_users = False
    max_length = 1

    def __init__(self, scores: np.ndarray) -> None:
        super().__init__()
        self.n_items = len(scores)
        self.scores: Tensor
        self.register_buffer("scores", torch.as_tensor(scores, dtype=torch.float32)[:, None])

    def last(self, items: Tensor, lengths: Tensor, users: Tensor | None = None) -> Tensor:  # noqa: ARG002
        return (lengths[:, None] >= 0).float()

    def item_vectors(self) -> Tensor:
        return self.scores

    def item_bias(self) -> None:
        return None


def _folded(model: Any) -> nn.Module:
    """A copy on the CPU, in eval mode, whose item tables no longer compute vectors from content: they hold them."""
    for name in ("last", "item_vectors", "item_bias", "n_items", "max_length"):
        if not hasattr(model, name):
            raise BundleError(problem(f"{type(model).__name__} has no {name}", "a model of distilrec.models"))
    twin = copy.deepcopy(model).cpu().float().eval()
    if hasattr(twin, "served"):  # a model that is simpler once its weights are settled
        return twin.served()
    for module in twin.modules():
        if isinstance(module, ItemTable) and module.project is not None and module.content is not None:
            with torch.no_grad():
                module.weight = nn.Parameter(torch.cat([module.vectors(), module.weight[-2:]]))
            module.content, module.project = None, None
    return twin


def _check_table(vectors: np.ndarray, bias: np.ndarray | None, split: Split) -> None:
    if len(vectors) != split.n_items:
        raise BundleError(problem(
            f"a model of {len(vectors)} items, a split of {split.n_items}", "the split that the model was trained on",
        ))
    if not np.isfinite(vectors).all() or (bias is not None and not np.isfinite(bias).all()):
        raise BundleError(problem("NaN or infinite item vectors", "finite numbers", "look at the training log"))


def _to_onnx(body: _Body) -> onnx.ModelProto:
    length = min(4, body.max_length)
    history = torch.zeros((2, length), dtype=torch.int64)
    arguments = (history, torch.zeros(2, dtype=torch.int64)) if body.uses_users else (history,)
    names = ["history", "user"][: len(arguments)]
    # The graph-capturing exporter unrolls recurrent layers over a fixed length; only the tracing one keeps them whole.
    recurrent = any(isinstance(module, nn.RNNBase) for module in body.modules())
    try:
        with quiet_exporter(), torch.inference_mode():
            graph = _trace(body, arguments, names) if recurrent else _capture(body, arguments, names)
    except (torch.onnx.OnnxExporterError, RuntimeError) as error:
        raise BundleError(problem(
            f"{type(body.model).__name__} cannot be written as ONNX: {str(error).strip().splitlines()[0]}",
            "a `last` made of exportable operations, with dynamic batch and length",
        )) from error
    present = {value.name for value in graph.graph.input}
    for position, (name, shape) in enumerate((("history", ["B", "L"]), ("user", ["B"]))):
        if name in names and name not in present:  # a model that does not look at it still has the same interface
            graph.graph.input.insert(position, onnx.helper.make_tensor_value_info(name, onnx.TensorProto.INT64, shape))
    return graph


def _capture(body: _Body, arguments: tuple[Tensor, ...], names: list[str]) -> onnx.ModelProto:
    batch = torch.export.Dim("B", max=1 << 20)
    length = torch.export.Dim("L", max=body.max_length) if body.max_length > 1 else None
    shapes = ({0: batch, 1: length}, {0: batch})[: len(arguments)]
    program = torch.onnx.export(
        body, arguments, dynamo=True, opset_version=OPSET, input_names=names, output_names=["vector"],
        dynamic_shapes=shapes, verbose=False,
    )
    return program.model_proto  # type: ignore[union-attr]


def _trace(body: _Body, arguments: tuple[Tensor, ...], names: list[str]) -> onnx.ModelProto:
    axes = {"history": {0: "B", 1: "L"}, "user": {0: "B"}, "vector": {0: "B"}}
    buffer = io.BytesIO()
    torch.onnx.export(
        body, arguments, buffer, dynamo=False,  # type: ignore[arg-type]
        opset_version=_OPSET_RECURRENT, input_names=names,
        output_names=["vector"], dynamic_axes={name: axes[name] for name in (*names, "vector")},
    )
    return onnx.load_from_string(buffer.getvalue())


@contextlib.contextmanager
def quiet_exporter() -> Iterator[None]:
    """The exporter warns of its own internals (and of torchvision, which nobody needs); nothing a reader can act on."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)


def _compare(body: _Body, graph: bytes, vectors: np.ndarray, bias: np.ndarray | None, n_users: int) -> None:
    """Hold the graph against torch; BundleError on the first difference."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])
    rng = np.random.default_rng(0)
    n, longest = body.n_items, body.max_length
    for batch, width in ((1, 1), (1, longest), (3, max(1, longest // 2)), (7, longest)):
        history = rng.integers(0, n, (batch, width))
        lengths = rng.integers(0, width + 1, batch)
        lengths[0] = width
        history[np.arange(width) >= lengths[:, None]] = -1
        history[-1] = history[-1] if batch == 1 else -1  # an empty history in every larger batch
        users = rng.integers(-1, n_users, batch)
        k = min(n, 20)
        feed = {"history": history, "exclude": history, "k": np.array([k])}
        arguments = [torch.as_tensor(history)]
        if body.uses_users:
            feed["user"] = users
            arguments.append(torch.as_tensor(users))
        with torch.inference_mode():
            expected = body(*arguments).numpy()
        items, scores, vector = (np.asarray(output) for output in session.run(["items", "scores", "vector"], feed))
        full = expected @ vectors.T + (0.0 if bias is None else bias)
        rows, columns = np.nonzero(history >= 0)
        full[rows, history[rows, columns]] = -np.inf
        fault = _difference(expected, vector, full, items, scores)
        if fault:
            raise BundleError(problem(
                f"the exported graph and the torch model disagree at batch {batch}, length {width}: {fault}",
                f"equality within {TOLERANCE:g} of the largest value",
                "this is a fault of the export, nothing was written; please report it with the model's settings",
            ))


def _difference(
    expected: np.ndarray, vector: np.ndarray, full: np.ndarray, items: np.ndarray, scores: np.ndarray
) -> str | None:
    """What differs between torch's vectors [B, D] and masked scores [B, I], and ONNX's vectors and lists [B, k]."""
    if not np.isfinite(expected).all():
        return "torch gives NaN or infinite vectors"
    if not np.allclose(expected, vector, rtol=0, atol=TOLERANCE * max(1e-3, float(np.abs(expected).max()))):
        return f"vectors differ by up to {np.abs(expected - vector).max():g}"
    finite = np.abs(full[np.isfinite(full)])
    near = TOLERANCE * max(1e-3, float(finite.max(initial=0.0)))
    best = -np.sort(-full, axis=1)[:, : items.shape[1]]
    own = np.take_along_axis(full, np.maximum(items, 0), axis=1)
    own[items < 0] = -np.inf
    for what, found in (("listed scores", scores), ("torch's scores of the listed items", own)):
        if not ((best == found) | (np.abs(np.where(np.isfinite(best), best, 0) - found) <= near)).all():
            return f"the best scores of torch and the {what} differ"
    return None


def _titles(split: Split) -> list[str | None] | None:
    table = split.dataset.items
    if table is None or "title" not in table.column_names:
        return None
    return [None if title is None else str(title) for title in table.column("title").to_pylist()]


def _config(
    body: _Body, split: Split, metadata: dict[str, Any], seen: str, shape: tuple[int, ...], parameters: int
) -> dict[str, Any]:
    def entry(name: str, kind: str, shape: list[str | int], vocabulary: str | None, default: Any) -> dict[str, Any]:
        return {"name": name, "kind": kind, "dtype": "int64", "shape": shape, "vocabulary": vocabulary,
                "default": default, "required": name == "history" and not body.uses_users}

    inputs = [entry("history", "items", ["B", "L"], "items.json", -1)]
    if body.uses_users:
        inputs.append(entry("user", "user", ["B"], "users.json", -1))
    inputs += [entry("exclude", "items", ["B", "S"], "items.json", -1), entry("k", "count", [1], None, 10)]
    return {
        "schema": SCHEMA, "task": "rank", "student": str(metadata.pop("student", type(body.model).__name__.lower())),
        "inputs": inputs,
        "outputs": [{"name": name, "head": "next", "space": space}
                    for name, space in (("items", "id"), ("scores", "logit"), ("vector", "vector"))],
        "graphs": {"rank": GRAPH}, "seen": seen, "max_length": body.max_length,
        "items": split.n_items, "parameters": parameters,
        # where in the graph file the scoring table lies, so that similar items need no second copy of it
        "item_vectors": {"file": GRAPH, "offset": 0, "shape": list(shape), "dtype": "float32"},
        "created": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"), "distilrec": library_version(),
        "dataset": {"name": split.dataset.name, "digest": split.dataset.digest, "split": split.digest},
        "metadata": metadata,
    }
