"""LightGBM to an MLP on the shop's numbers: AUC beside the trees, and the time of a single row, the trees by ONNX too.

    python benchmarks/rows/trees.py [--out runs/bench/trees-to-mlp] [--seeds 0 1 2]

Runs recipes/trees-to-mlp.yaml and, with the same teachers and controls, once more with `start: importance`. A run that
was killed goes on where it stopped. Leaves benchmarks/results/trees-to-mlp/{report,importance,latency,run}.json.
"""

from __future__ import annotations

import argparse
import ctypes
import os
import shutil
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from distilrec import pipeline
from distilrec.bundle.runtime import load
from distilrec.bundle.session import open_graph
from distilrec.cli_guard import use_threads
from distilrec.data import load_rows
from distilrec.files import read_json
from distilrec.models.predictor import TrainedRows
from distilrec.recipe_yaml import load_recipe
from distilrec.teachers.matrix import matrix
from distilrec.teachers.trees import Trees
from distilrec.types_rows import RowSplit
from kept import ROOT, keep

NAME = "trees-to-mlp"
RECIPE = ROOT / "recipes" / f"{NAME}.yaml"
ROUNDS, CALLS = 40, 100  # rounds in which all ways take turns; single rows of each way in a round


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=ROOT / "runs" / "bench" / NAME)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    options = parser.parse_args()
    use_threads(1)
    plain, started = options.out / "none", options.out / "importance"
    pipeline.run(load_recipe(RECIPE, overrides=[f"seeds={options.seeds}"]), plain)
    for seed in options.seeds:  # the teachers are the same, so are the controls
        for part in (f"teachers/seed-{seed}", f"teachers/seed-{seed}.json", f"students/seed-{seed}/control"):
            _copy(plain / part, started / part)
    for trial in (plain / "students" / "trials").glob("*/control"):
        _copy(trial, started / trial.relative_to(plain))
    pipeline.run(load_recipe(RECIPE, overrides=[f"seeds={options.seeds}", "student.start=importance",
                                             "evaluate.baselines=[]"]), started)
    split = load_rows(plain / "data")
    times = [latencies(plain, split, seed) for seed in options.seeds]
    report = read_json(plain / "report.json")
    goals = _goals(report, times)
    print("\n".join(goals))
    keep(NAME, f"python benchmarks/rows/trees.py --seeds {' '.join(map(str, options.seeds))}", options.seeds,
         {"report.json": report, "importance.json": read_json(started / "report.json"),
          "latency.json": dict(zip(map(str, options.seeds), times, strict=True))},
         recipe=f"recipes/{NAME}.yaml", goals=goals)


def latencies(out: Path, split: RowSplit, seed: int) -> dict[str, Any]:
    """Median microseconds of one row, one thread, for every way to ask the trees and the student."""
    trees = Trees.load(out / "teachers" / f"seed-{seed}")
    student = TrainedRows.load(out / "students" / f"seed-{seed}" / "student", split)
    bundle = load(out / "students" / f"seed-{seed}" / "student.bundle")
    rows = split.rows("test")[:CALLS]
    table = matrix(split, rows, trees.sources, np.float64)[0]
    single = [np.ascontiguousarray(table[i : i + 1]) for i in range(CALLS)]
    single32 = [one.astype(np.float32) for one in single]
    booster = trees._boosters[0]  # type: ignore[attr-defined]
    forest, dense, empty = _trees_graph(booster, table.shape[1]), _mlp_graph(student), _empty_graph(table.shape[1])
    raw = [{name: value for name, value in row.items() if value is not None and name in bundle.fields}
           for row in split.raw.take(rows).to_pylist()]
    graph = bundle._session
    feeds = [{one.name: np.ascontiguousarray(split.columns[one.name][i : i + 1], dtype=np.float32)
              for one in bundle.features} for i in rows]
    ordered = _student_matrix(split, student, rows)
    ways: dict[str, Callable[[int], Any]] = {
        "trees: ONNX Runtime": lambda i: forest.run(None, {"x": single32[i]}),
        "trees: Booster.predict": lambda i: booster.predict(single[i], num_threads=1),
        "trees: LightGBM's C call for single rows": _fast_call(booster, single),
        "student: ONNX Runtime, a matrix of raw numbers": lambda i: dense.run(None, {"x": ordered[i]}),
        "student: graph of the bundle, an input per feature": lambda i: graph.run(["outputs"], feeds[i]),
        "student: bundle.predict of raw rows": lambda i: bundle.predict([raw[i]]),
    }
    _check(ways, trees, student, split, rows)
    medians = _timed(ways)
    whole, whole32 = np.concatenate(ordered), np.concatenate(single32)
    of_100 = _timed({
        "trees: ONNX Runtime": lambda _: forest.run(None, {"x": whole32}),
        "student: ONNX Runtime, a matrix of raw numbers": lambda _: dense.run(None, {"x": whole}),
        "an empty graph, for comparison": lambda i: empty.run(None, {"x": single32[i]}),
    })
    return {"microseconds": medians, "microseconds_of_100_rows": of_100, "trees": trees.training["trees"],
            "student_parameters": student.parameters, "load": os.getloadavg()[0]}


def _timed(ways: dict[str, Callable[[int], Any]]) -> dict[str, float]:
    """The ways take turns, so that a busy moment of the machine falls on all of them."""
    found: dict[str, list[int]] = {name: [] for name in ways}
    for _ in range(ROUNDS):
        for name, ask in ways.items():
            for i in range(10):
                ask(i)
            for i in range(CALLS):
                begun = time.perf_counter_ns()
                ask(i)
                found[name].append(time.perf_counter_ns() - begun)
    return {name: float(np.median(values)) / 1e3 for name, values in found.items()}


def _check(ways: dict[str, Callable[[int], Any]], trees: Trees, student: TrainedRows, split: RowSplit,
           rows: np.ndarray) -> None:
    """Every way answers what the model answers: a wrong graph would be timed for nothing."""
    for who, model in (("trees", trees), ("student", student)):
        wanted = 1 / (1 + np.exp(-model.predict(split, rows)[:, 0].astype(np.float64)))
        for name, ask in ways.items():
            if not name.startswith(who):
                continue
            got = []
            for i in range(len(rows)):
                answer = ask(i)
                answer = answer["click"] if isinstance(answer, dict) else answer
                got.append(float(np.asarray(answer[-1]).ravel()[-1]))
            worst = float(np.abs(np.array(got) - wanted).max())
            if worst > 1e-3:  # float32 moves a value across a cut of a tree once in a while
                raise SystemExit(f"{name} is off by {worst}")


def _trees_graph(booster: Any, width: int) -> Any:
    from onnxmltools import convert_lightgbm
    from onnxmltools.convert.common.data_types import FloatTensorType

    graph = convert_lightgbm(booster, initial_types=[("x", FloatTensorType([None, width]))], zipmap=False)
    return open_graph(graph.SerializeToString())


def _fast_call(booster: Any, single: list[np.ndarray]) -> Callable[[int], np.ndarray]:
    """LGBM_BoosterPredictForMatSingleRowFast: the Python package has it in its library, not in its API."""
    from lightgbm.basic import _LIB, _c_str

    handle, out, length = ctypes.c_void_p(), np.zeros(1), ctypes.c_int64()
    code = _LIB.LGBM_BoosterPredictForMatSingleRowFastInit(
        booster._handle, ctypes.c_int(0), ctypes.c_int(0), ctypes.c_int(-1), ctypes.c_int(1),
        ctypes.c_int32(single[0].shape[1]), _c_str("num_threads=1"), ctypes.byref(handle))
    if code:
        raise SystemExit("LightGBM has no call for single rows")
    places = [ctypes.c_void_p(one.ctypes.data) for one in single]
    target, size, call = ctypes.c_void_p(out.ctypes.data), ctypes.byref(length), \
        _LIB.LGBM_BoosterPredictForMatSingleRowFast

    def ask(i: int) -> np.ndarray:
        call(handle, places[i], size, target)
        return out

    return ask


def _student_matrix(split: RowSplit, student: TrainedRows, rows: np.ndarray) -> list[np.ndarray]:
    """float32 [1, F] of raw numbers for each row, NaN where missing."""
    columns = [split.raw.column(one.sources[0]).take(rows).to_numpy(zero_copy_only=False).astype(np.float32)
               for one in student.features]
    table = np.stack(columns, axis=1)
    return [np.ascontiguousarray(table[i : i + 1]) for i in range(len(rows))]


def _mlp_graph(student: TrainedRows) -> Any:
    """The same weights from raw numbers [B, F] to a probability, as one graph with one input.

    A number's vector is a learned vector times its value, so that it and the first dense layer are one matrix.
    """
    state = {name: value.numpy().astype(np.float64) for name, value in student.model.state_dict().items()}
    features, vectors = student.features, state["table.number_weight"]
    widths = [name for name in state if name.startswith("dense.layers") and name.endswith("weight")]
    layers = [(state[name], state[name.replace("weight", "bias")]) for name in widths]
    first = np.einsum("hfd,fd->hf", layers[0][0].reshape(len(layers[0][0]), *vectors.shape), vectors)
    layers[0] = (first, layers[0][1])
    scale, shift = float(student.scale[0]), float(student.shift[0])  # type: ignore[index]
    layers.append((state["output.weight"] * scale, state["output_bias"] * scale + shift))
    mean, spread = (np.array([getattr(one, key) for one in features]) for key in ("mean", "scale"))
    layers[0] = (layers[0][0] / spread, layers[0][1] - layers[0][0] @ (mean / spread))  # standardizing, folded in
    log = np.array([one.log for one in features])
    neutral = np.where(log, np.sign(mean) * np.expm1(np.abs(mean)), mean)  # what a missing number counts as
    one = np.array(1, np.float32)
    arrays: dict[str, np.ndarray] = {"log": log, "neutral": neutral.astype(np.float32), "one": one}
    nodes = [
        helper.make_node("IsNaN", ["x"], ["missing"]),
        helper.make_node("Where", ["missing", "neutral", "x"], ["given"]),
        helper.make_node("Abs", ["given"], ["size"]), helper.make_node("Add", ["size", "one"], ["more"]),
        helper.make_node("Log", ["more"], ["bent"]), helper.make_node("Sign", ["given"], ["sign"]),
        helper.make_node("Mul", ["bent", "sign"], ["signed"]),
        helper.make_node("Where", ["log", "signed", "given"], ["h0"]),
    ]
    for place, (weight, bias) in enumerate(layers):
        arrays[f"w{place}"], arrays[f"b{place}"] = weight.astype(np.float32), bias.astype(np.float32)
        last = place == len(layers) - 1
        nodes.append(helper.make_node("Gemm", [f"h{place}", f"w{place}", f"b{place}"], [f"a{place}"], transB=1))
        nodes.append(helper.make_node("Sigmoid" if last else "Relu", [f"a{place}"],
                                      ["probability" if last else f"h{place + 1}"]))
    return _open(nodes, len(features), 1, arrays)


def _empty_graph(width: int) -> Any:
    """What a call of ONNX Runtime costs before any model."""
    return _open([helper.make_node("Identity", ["x"], ["probability"])], width, width, {})


def _open(nodes: list[Any], width: int, outputs: int, arrays: dict[str, np.ndarray]) -> Any:
    value = lambda name, size: helper.make_tensor_value_info(name, TensorProto.FLOAT, ["B", size])  # noqa: E731
    graph = helper.make_graph(nodes, "rows", [value("x", width)], [value("probability", outputs)],
                              [numpy_helper.from_array(array, name) for name, array in arrays.items()])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.checker.check_model(model)
    return open_graph(model.SerializeToString())


def _goals(report: dict[str, Any], times: list[dict[str, Any]]) -> list[str]:
    """Each goal with the number beside it."""
    found = next(c for c in report["comparisons"]
                 if (c["a"], c["b"], c["metric"]) == ("student", "teacher", "auc"))
    low, high = found["interval"]
    lines = [f"student - trees in AUC (goal: above -.002): {found['difference']:+.4f} ({low:+.4f} to {high:+.4f})"]
    medians = {name: float(np.median([one["microseconds"][name] for one in times]))
               for name in times[0]["microseconds"]}
    for mine in (name for name in medians if name.startswith("student")):
        for theirs in (name for name in medians if name.startswith("trees")):
            lines.append(f"rows/s, {mine} ({medians[mine]:.1f} us) over {theirs} ({medians[theirs]:.1f} us): "
                         f"{medians[theirs] / medians[mine]:.2f} x (goal 5 x)")
    lot = {name: float(np.median([one["microseconds_of_100_rows"][name] for one in times]))
           for name in times[0]["microseconds_of_100_rows"]}
    return [*lines, *(f"100 rows at once (one row of the empty graph), {name}: {one:.1f} us"
                      for name, one in lot.items())]


def _copy(source: Path, target: Path) -> None:
    if target.exists():
        return
    target.parent.mkdir(parents=True, exist_ok=True)
    (shutil.copytree if source.is_dir() else shutil.copy)(source, target)


if __name__ == "__main__":
    main()
