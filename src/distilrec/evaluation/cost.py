"""What a model costs to keep and to ask: parameters, bytes, milliseconds of one core."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from distilrec.errors import BundleError, DataError, MissingExtraError, problem
from distilrec.types import Histories, Lister, Part, Split
from distilrec.types_rows import RowSplit

if TYPE_CHECKING:
    from distilrec.bundle.row_runtime import RowBundle

__all__ = ["bundle_bytes", "bundle_parameters", "latency", "row_latency"]

_CANDIDATES = 100  # rows of a request that ranks a list


def bundle_bytes(folder: str | Path) -> int:
    """Bytes of all files of a bundle, which is what is shipped. Raises BundleError where there is no folder."""
    return sum(path.stat().st_size for path in _files(folder, "*"))


def bundle_parameters(folder: str | Path) -> int:
    """Every number that the bundle's ONNX graphs read, as `bundle.graph.count_parameters` counts them.

    Raises BundleError for a folder without a graph or with a damaged one, MissingExtraError without `onnx`.
    """
    try:
        import onnx
        from google.protobuf.message import DecodeError

        from distilrec.bundle.graph import count_parameters
    except ImportError:
        raise MissingExtraError("onnx", "train") from None
    graphs = _files(folder, "*.onnx")
    if not graphs:
        raise BundleError(problem(f"no .onnx file in {folder}", "a bundle with at least one graph", "export it again"))
    total = 0
    for path in graphs:
        try:
            total += count_parameters(onnx.load(path, load_external_data=False))
        except DecodeError as error:
            raise BundleError(problem(f"{path} cannot be read: {error}", "an ONNX graph", "export it again")) from None
    return total


def latency(
    bundle: Lister,
    split: Split,
    *,
    part: Part = "test",
    k: int = 10,
    requests: int = 1000,
    warm_up: int = 50,
    seed: int = 0,
) -> dict[str, float]:
    """{"p50", "p99", "cpu_p50", "cpu_p99"}: milliseconds of a single request on one core, wall clock and CPU.

    Requests are histories of `split.queries(part)` sampled by `seed` (with replacement), one at a time, seen items
    excluded, as the server would ask. The calling thread is held on one core meanwhile. CPU time counts all
    threads of the process, so a bundle that uses several cores cannot look cheap.

    Raises DataError for a split without queries.
    """
    queries = split.queries(part)
    if len(queries) == 0 or requests < 1:
        raise DataError(problem(f"{len(queries)} {part} histories, {requests} requests", "at least one of each"))
    rows = np.random.default_rng(seed).integers(0, len(queries), size=warm_up + requests)
    asked: list[Histories] = [split.histories(queries.take(np.array([row]))) for row in rows]
    return _timed(lambda history: bundle.recommend_ids(history, history, k), asked, warm_up)


def row_latency(
    bundle: RowBundle, split: RowSplit, rows: np.ndarray, *, requests: int = 500, warm_up: int = 20, seed: int = 0
) -> dict[str, Any]:
    """As `latency`, for requests of one raw row each, and {"of_100": ...} for requests of 100 candidates.

    The raw rows are drawn from `rows` of the split, as a server would get them: values of fields that the bundle reads,
    without those that are missing; rows without a required field would be refused and are not drawn. Raises DataError
    for no rows, or for values that the bundle refuses.
    """
    fields = [name for name in bundle.fields if name in split.raw.column_names]
    for name in {name for feature in bundle.features if feature.required for name in feature.sources}:
        rows = rows[split.raw.column(name).take(pa.array(rows)).is_valid().to_numpy(zero_copy_only=False)]
    if len(rows) == 0 or requests < 1:
        raise DataError(problem(f"{len(rows)} rows that can be asked, {requests} requests", "at least one of each"))
    drawn = np.random.default_rng(seed).choice(rows, size=min(len(rows), warm_up + requests), replace=False)
    table = split.raw.select(fields).take(pa.array(drawn)).to_pylist()
    asked = [{name: value for name, value in row.items() if value is not None} for row in table]
    places = np.random.default_rng(seed).integers(0, len(asked), size=(warm_up + max(1, requests // 5), _CANDIDATES))
    lists = [[asked[place] for place in row] for row in places]
    one_by_one = [[asked[i % len(asked)]] for i in range(warm_up + requests)]
    return {**_timed(bundle.predict, one_by_one, warm_up), "of_100": _timed(bundle.predict, lists, warm_up)}


def _timed(answer: Callable[[Any], object], asked: Sequence[Any], warm_up: int) -> dict[str, float]:
    wall, cpu = np.empty(len(asked)), np.empty(len(asked))
    with _one_core():
        for i, request in enumerate(asked):
            cpu_before, wall_before = time.process_time_ns(), time.perf_counter_ns()
            answer(request)
            wall[i], cpu[i] = time.perf_counter_ns() - wall_before, time.process_time_ns() - cpu_before
    values = {"": wall[warm_up:] / 1e6, "cpu_": cpu[warm_up:] / 1e6}
    return {f"{kind}p{q}": float(np.percentile(times, q)) for kind, times in values.items() for q in (50, 99)}


@contextlib.contextmanager
def _one_core() -> Iterator[None]:
    """Hold the calling thread on one of its cores, where the system knows how to (Linux)."""
    if not hasattr(os, "sched_setaffinity"):
        yield
        return
    allowed = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {max(allowed)})
    try:
        yield
    finally:
        os.sched_setaffinity(0, allowed)


def _files(folder: str | Path, pattern: str) -> list[Path]:
    if not Path(folder).is_dir():
        raise BundleError(problem(f"{folder} is not a folder", "a bundle folder", "export a student first"))
    return sorted(path for path in Path(folder).rglob(pattern) if path.is_file())
