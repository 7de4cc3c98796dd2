"""The ONNX side of an export: the ranking tail of the graph, and where in the file the item table lies."""

from __future__ import annotations

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

__all__ = ["add_ranking", "clean", "count_parameters", "find_bytes"]

_SHAPE_CONSTANT = 16


def add_ranking(body: onnx.ModelProto, vectors: np.ndarray, bias: np.ndarray | None) -> str:
    """Extend a graph whose output is `vector` [B, D] to scores, masking and the k best, in place.

    vectors: float32 [I, D], the scoring table. If the body already holds it (with at least one further row, the
        padding row), that very initializer is used, so the weights are stored once.
    bias: float32 [I] or None.

    Added inputs: `exclude` int64 [B, S] (padded with -1) and `k` int64 [1]; outputs `items` int64 [B, k] and
    `scores` float32 [B, k], best first; -1 and -inf where nothing was left. Equal scores come in the order of their
    ids: ONNX's TopK breaks ties by the lower index. Returns the name of the table's initializer.
    """
    graph = body.graph
    table, rows = _table(graph, vectors)

    def constant(name: str, value: np.ndarray | np.generic) -> str:
        graph.initializer.append(numpy_helper.from_array(np.asarray(value), f"rank.{name}"))
        return f"rank.{name}"

    def node(op: str, inputs: list[str], outputs: list[str], **attributes: int) -> None:
        graph.node.append(helper.make_node(op, inputs, outputs, **attributes))  # type: ignore[arg-type]

    operands = ["vector", table]
    if bias is not None:
        operands.append(constant("bias", np.concatenate([bias, np.zeros(rows - len(bias))]).astype(np.float32)))
    node("Gemm", operands, ["rank.all"], transB=1)
    # -1 is the last column for ScatterElements: a padding row, which the slice then cuts off with all other such rows.
    node("Shape", ["exclude"], ["rank.excluded"])
    node("Expand", [constant("never", np.float32(-np.inf)), "rank.excluded"], ["rank.nevers"])
    node("ScatterElements", ["rank.all", "exclude", "rank.nevers"], ["rank.masked"], axis=1)
    starts, stops, axes = (constant(n, np.array([v])) for n, v in (("from", 0), ("to", len(vectors)), ("axis", 1)))
    node("Slice", ["rank.masked", starts, stops, axes], ["rank.items"])
    node("TopK", ["rank.items", "k"], ["scores", "rank.best"], axis=1, largest=1, sorted=1)
    node("IsInf", ["scores"], ["rank.empty"], detect_positive=0)
    node("Where", ["rank.empty", constant("nothing", np.int64(-1)), "rank.best"], ["items"])
    graph.input.append(helper.make_tensor_value_info("exclude", TensorProto.INT64, ["B", "S"]))
    graph.input.append(helper.make_tensor_value_info("k", TensorProto.INT64, [1]))
    graph.output.insert(0, helper.make_tensor_value_info("scores", TensorProto.FLOAT, ["B", "K"]))
    graph.output.insert(0, helper.make_tensor_value_info("items", TensorProto.INT64, ["B", "K"]))
    return table


def _table(graph: onnx.GraphProto, vectors: np.ndarray) -> tuple[str, int]:
    """(name, rows) of an initializer that starts with `vectors` and has more rows than they; made if there is none."""
    n, dim = vectors.shape
    for tensor in graph.initializer:
        if tensor.data_type != TensorProto.FLOAT or len(tensor.dims) != 2:
            continue
        held = numpy_helper.to_array(tensor)
        if held.shape[0] > n and held.shape[1] == dim and np.array_equal(held[:n], vectors):
            tensor.CopyFrom(numpy_helper.from_array(held, tensor.name))  # as raw bytes
            return tensor.name, len(held)
    padded = np.concatenate([vectors, np.zeros((1, dim), dtype=np.float32)])
    graph.initializer.append(numpy_helper.from_array(padded, "rank.table"))
    return "rank.table", n + 1


def clean(model: onnx.ModelProto) -> None:
    """Drop what the exporter notes for its own debugging: it is large, and names files of the exporting machine."""
    graph = model.graph
    for part in (*graph.node, *graph.initializer, *graph.input, *graph.output, graph, model):
        part.ClearField("doc_string")
        part.ClearField("metadata_props")
    graph.ClearField("value_info")


def count_parameters(model: onnx.ModelProto) -> int:
    """Every number that the graph reads to answer: weights and tables, frozen and quantized ones too, wherever they
    are kept (initializers, Constant nodes, branches, functions).

    An integer or bool constant of fewer than 16 entries is a shape or an axis and is not counted.
    """
    return _in_graph(model.graph) + sum(_in_node(node) for function in model.functions for node in function.node)


def _in_graph(graph: onnx.GraphProto) -> int:
    return sum(map(_size, graph.initializer)) + sum(map(_in_node, graph.node))


def _in_node(node: onnx.NodeProto) -> int:
    total = sum(_in_graph(attribute.g) for attribute in node.attribute if attribute.HasField("g"))
    return total + sum(_size(a.t) for a in node.attribute if node.op_type == "Constant" and a.HasField("t"))


def _size(tensor: onnx.TensorProto) -> int:
    size = int(np.prod(tensor.dims, dtype=np.int64))
    index_types = (TensorProto.INT64, TensorProto.INT32, TensorProto.BOOL)
    return 0 if tensor.data_type in index_types and size < _SHAPE_CONSTANT else size


def find_bytes(model: onnx.ModelProto, data: bytes, name: str) -> int:
    """Where the raw values of initializer `name` begin in the serialized model `data`."""
    raw = next(tensor.raw_data for tensor in model.graph.initializer if tensor.name == name)
    return data.index(raw)
