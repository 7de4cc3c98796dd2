"""Opening a graph with ONNX Runtime, and timing calls: what every kind of bundle does alike."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnxruntime
from onnxruntime.capi import onnxruntime_pybind11_state as ort_errors

from distilrec.errors import BundleError, problem

__all__ = ["open_graph", "timed"]

_LOAD_ERRORS = (
    ort_errors.Fail, ort_errors.InvalidArgument, ort_errors.InvalidGraph, ort_errors.InvalidProtobuf,
    ort_errors.NoSuchFile, ort_errors.NotImplemented, ort_errors.RuntimeException,
)


def open_graph(graph: Path | bytes, threads: int = 1) -> onnxruntime.InferenceSession:
    """A session on the CPU for a graph file, or for a graph in memory.

    Raises BundleError if ONNX Runtime cannot read it.
    """
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    # Every new shape would leave a plan behind, and a server sees every shape.
    options.enable_mem_pattern = False
    # Waiting threads would burn a core between requests.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    source = graph if isinstance(graph, bytes) else str(graph)
    try:
        return onnxruntime.InferenceSession(source, options, providers=["CPUExecutionProvider"])
    except _LOAD_ERRORS as error:
        name = "the graph" if isinstance(graph, bytes) else str(graph)
        raise BundleError(problem(f"{name} cannot be loaded: {error}", "a graph that onnxruntime reads")) from None


def timed(calls: int, call: Callable[[int], object], warm_up: int) -> dict[str, float]:
    """Wall milliseconds of `call(0)` to `call(calls - 1)`, one at a time: {"p50", "p99", "cpu"} ("cpu" is the mean CPU
    time of the process); `call(0)` ... are called `warm_up` times before."""
    for place in range(min(warm_up, calls)):
        call(place)
    walls = np.empty(calls)
    cpu = time.process_time()
    for place in range(calls):
        start = time.perf_counter()
        call(place)
        walls[place] = time.perf_counter() - start
    cpu = (time.process_time() - cpu) / max(1, calls)
    return {
        "p50": float(np.percentile(walls, 50)) * 1e3, "p99": float(np.percentile(walls, 99)) * 1e3, "cpu": cpu * 1e3,
    }
