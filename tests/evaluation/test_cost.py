"""Parameters, bytes and milliseconds of real files and real calls."""

from __future__ import annotations

import os
import time
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from distilrec.errors import BundleError, DataError
from distilrec.evaluation.cost import bundle_bytes, bundle_parameters, latency
from distilrec.types import Histories, Recommendations


def save_graph(path: Path) -> None:
    """A float table, an int8 table, a weight in a Constant node, one in a branch of an If, and a shape."""
    branch = helper.make_graph(
        [helper.make_node("Constant", [], ["w"], value=numpy_helper.from_array(np.ones((2, 3), np.float32)))],
        "branch", [], [helper.make_tensor_value_info("w", TensorProto.FLOAT, [2, 3])],
    )
    graph = helper.make_graph(
        [
            helper.make_node("If", ["flag"], ["chosen"], then_branch=branch, else_branch=branch),
            helper.make_node("Constant", [], ["c"], value=numpy_helper.from_array(np.ones(7, np.float32))),
            helper.make_node("Add", ["chosen", "chosen"], ["out"]),
        ],
        "main", [helper.make_tensor_value_info("flag", TensorProto.BOOL, [])],
        [helper.make_tensor_value_info("out", TensorProto.FLOAT, [2, 3])],
        [
            numpy_helper.from_array(np.ones((10, 4), np.float32), "table"),
            numpy_helper.from_array(np.ones((5, 5), np.int8), "codes"),
            numpy_helper.from_array(np.array([1, -1]), "shape"),
            numpy_helper.from_array(np.arange(100), "lookup"),
        ],
    )
    onnx.save(helper.make_model(graph), path)


def test_parameters_count_every_number_a_graph_reads(tmp_path: Path) -> None:
    save_graph(tmp_path / "model.onnx")
    # 40 float, 25 int8, 7 in a constant, 6 in each branch, 100 of a lookup table; not the 2 of a shape
    assert bundle_parameters(tmp_path) == 40 + 25 + 7 + 12 + 100
    (tmp_path / "tower").mkdir()
    save_graph(tmp_path / "tower" / "text.onnx")
    assert bundle_parameters(tmp_path) == 2 * 184


def test_bytes_are_those_of_all_files(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"x" * 10)
    (tmp_path / "deep").mkdir()
    (tmp_path / "deep" / "b").write_bytes(b"x" * 5)
    assert bundle_bytes(tmp_path) == 15


def test_bad_bundles(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match=r"no \.onnx file"):
        bundle_parameters(tmp_path)
    (tmp_path / "model.onnx").write_bytes(b"\xff\xff\xff not a graph")
    with pytest.raises(BundleError, match="cannot be read"):
        bundle_parameters(tmp_path)
    with pytest.raises(BundleError, match="is not a folder"):
        bundle_bytes(tmp_path / "nowhere")


class Sleeper:
    """A bundle that waits 200 ms at first, then 2 ms, and 20 ms on every twentieth request; waiting costs no CPU."""

    def __init__(self) -> None:
        self.asked: list[Histories] = []
        self.cores: set[int] = set()

    def recommend(self, history: list[str], k: int = 10) -> None: ...

    def recommend_ids(self, histories: Histories, exclude: Histories, k: int) -> Recommendations:
        self.asked.append(histories)
        if hasattr(os, "sched_getaffinity"):
            self.cores |= os.sched_getaffinity(0)
        time.sleep(0.2 if len(self.asked) <= 2 else 0.02 if len(self.asked) % 20 == 0 else 0.002)
        return Recommendations(histories.users, np.zeros((1, k), np.int32), np.zeros((1, k), np.float32))


def test_latency_of_single_requests(make_split) -> None:
    split = make_split([([u, u + 1], [u + 2], [u + 3]) for u in range(30)] + [([0], [], [])], 40)
    bundle = Sleeper()
    before = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else None
    times = latency(bundle, split, k=3, requests=60, warm_up=5, seed=1)
    assert set(times) == {"p50", "p99", "cpu_p50", "cpu_p99"}
    assert 2.0 <= times["p50"] < 15.0 and 150.0 > times["p99"] >= 19.0, "the warm-up is not counted"
    assert times["cpu_p50"] < times["p50"], "waiting is not work"
    assert len(bundle.asked) == 65 and all(len(one) == 1 for one in bundle.asked)
    # real test histories: train and validation events of a user with a test part
    assert all(one.items.tolist() == [u, u + 1, u + 2] for one in bundle.asked for u in one.users.tolist())
    if before is not None:
        assert len(bundle.cores) == 1 and os.sched_getaffinity(0) == before
    again = Sleeper()
    latency(again, split, k=3, requests=60, warm_up=5, seed=1)
    assert [a.users[0] for a in again.asked] == [b.users[0] for b in bundle.asked]


def test_latency_needs_a_query(make_split) -> None:
    with pytest.raises(DataError, match="0 test histories"):
        latency(Sleeper(), make_split([([0, 1], [], [])], 2))
