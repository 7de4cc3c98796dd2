"""Time of POST /predict with 100 raw rows, or a context and 100 candidates: one core, one connection that stays open.

    python benchmarks/ctr/serve_latency.py [--tables frappe shop] [--requests 2000] [--windows 10]

Makes a student's bundle of each table (its weights are fresh: they do not change the time), starts the server in a
process of its own on one core, and sends it rows of the table. Tells, per request: the wall time at the client, over
all requests and in the quietest of the windows (on a shared machine the others measure the neighbors); the same less
the time that server and client stood ready and waited for a core; and the CPU time of the server. The last two are the
scheduler's own counts. Writes benchmarks/results/predict-latency/result.json.
"""

from __future__ import annotations

import argparse
import http.client
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from distilrec.bundle.row_export import export_rows
from distilrec.data import prepare_rows
from distilrec.data.shop_rows import shop_spec, shop_table
from distilrec.data.simulate import simulate_shop
from distilrec.models.predictor import TrainedRows, create_rows, features_read
from distilrec.types_rows import RowSplit

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))
from rivals import commit, hardware, surroundings, write  # noqa: E402  (a file beside this folder, no package)

RESULT = HERE.parent / "results" / "predict-latency" / "result.json"
STUDENT = {"dim": 16, "hidden": [64]}
CANDIDATES, WARM_UP = 100, 100
OF_CANDIDATES = {  # the fields of a table that differ between the candidates of a request
    "frappe": ("item", "cost"),
    "shop": ("item_id", "title", "price", "category", "department", "brand", "collection", "material", "color",
             "weight_kg", "discount", "test_score", "item_tags", "position"),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tables", nargs="+", choices=["frappe", "shop"], default=["frappe", "shop"])
    parser.add_argument("--requests", type=int, default=2000)
    parser.add_argument("--windows", type=int, default=10)
    args = parser.parse_args()
    held = json.loads(RESULT.read_text(encoding="utf-8"))["tables"] if RESULT.exists() else {}
    for name in args.tables:
        with tempfile.TemporaryDirectory() as folder:
            split = frappe() if name == "frappe" else shop()
            bundle = student(split, Path(folder) / "student.bundle")
            for form, own in (("rows", None), ("candidates", OF_CANDIDATES[name])):
                told = held[f"{name}, {form}"] = measure(bundle, bodies(split, args.requests, own), args.windows)
                print(name, form, json.dumps(told), flush=True)
        write(RESULT, {
            "command": "python benchmarks/ctr/serve_latency.py", "date": time.strftime("%Y-%m-%d", time.gmtime()),
            "commit": commit(), "hardware": hardware(), "seeds": [0], "rows": CANDIDATES, "requests": args.requests,
            "windows": args.windows, "student": {"model": "mlp", **STUDENT}, "tables": held,
        })


def frappe() -> RowSplit:
    frame = pl.read_parquet(Path(os.environ["DISTILREC_DATA"]) / "frappe-nfm" / "ctr.parquet").drop("split")
    fields = [column for column in frame.columns if column != "label"]
    return prepare_rows(frame, features=dict.fromkeys(fields, "category"), labels={"click": "label"})


def shop() -> RowSplit:
    """Numbers, categories, words, tags and histories: every kind of feature but vectors."""
    spec = shop_spec("impressions")
    return prepare_rows(shop_table(simulate_shop(users=1000, seed=1), "impressions"), **{**spec, "labels": {
        "click": "click"}})


def student(split: RowSplit, path: Path) -> Path:
    model, settings = create_rows("mlp", split, STUDENT)
    trained = TrainedRows("student", model.eval(), "mlp", settings, features_read(split), split.heads, split.digest)
    return export_rows(trained, split, path, card="# Fresh weights, for timing", metadata={})


def bodies(split: RowSplit, requests: int, own: Sequence[str] | None = None) -> list[bytes]:
    """JSON of requests, each with its own 100 rows of the table; own: the fields of candidates, the others being those
    of one row that is the context of all."""
    rng, table = np.random.default_rng(0), pl.DataFrame(split.raw)
    fields = sorted({source for feature in split.features.values() for source in feature.sources})
    made = []
    for _ in range(requests):
        rows = table[rng.integers(0, table.height, CANDIDATES)].select(fields)
        if own is None:
            made.append({"rows": rows.to_dicts()})
        else:
            made.append({"context": rows.drop(own).row(0, named=True), "candidates": rows.select(own).to_dicts()})
    return [json.dumps(one).encode() for one in made]


def measure(bundle: Path, requests: list[bytes], windows: int) -> dict[str, Any]:
    """Milliseconds per request, at the client (wall) and in the server (CPU)."""
    cores = sorted(os.sched_getaffinity(0))
    command = [str(Path(sys.executable).with_name("distilrec")), "serve", str(bundle), "--port", "0"]
    log = bundle.with_name("server.log")  # a file: it has a line per request, at which a pipe would fill up
    with log.open("w", encoding="utf-8") as stderr:
        server = subprocess.Popen(command, stderr=stderr, env=surroundings(ours=True))
    try:
        os.sched_setaffinity(server.pid, {cores[0]})
        os.sched_setaffinity(0, {cores[-1]})
        connection = connect(log)
        for body in requests[:WARM_UP]:
            ask(connection, body)
        ticks = _ticks(server.pid)
        wall, cpu, waited = (np.empty(len(requests)) for _ in range(3))
        for place, body in enumerate(requests):
            server_before, own_before, began = _scheduled(server.pid), _scheduled(os.getpid()), time.perf_counter()
            ask(connection, body)
            wall[place] = time.perf_counter() - began
            of_server, of_client = _scheduled(server.pid) - server_before, _scheduled(os.getpid()) - own_before
            cpu[place], waited[place] = of_server[0], of_server[1] + of_client[1]
        total = (_ticks(server.pid) - ticks) / len(requests)
    finally:
        os.sched_setaffinity(0, set(cores))
        server.terminate()
        server.wait(20)
    parts = [np.percentile(part, [50, 99]) for part in np.array_split(wall, windows)]
    quiet, clear = min(parts, key=lambda part: part[1]), wall - waited
    times = {
        "cpu_p50": np.percentile(cpu, 50), "cpu_p99": np.percentile(cpu, 99), "cpu_mean": cpu.mean(),
        "cpu_mean_all_threads": total, "wall_p50": np.percentile(wall, 50), "wall_p99": np.percentile(wall, 99),
        "quietest_window_p50": quiet[0], "quietest_window_p99": quiet[1],
        "wall_less_waiting_p50": np.percentile(clear, 50), "wall_less_waiting_p99": np.percentile(clear, 99),
    }
    return {**{f"{name}_ms": round(float(seconds) * 1e3, 3) for name, seconds in times.items()},
            "load": os.getloadavg()[0], "request_bytes": int(np.mean([len(body) for body in requests]))}


def connect(log: Path, seconds: float = 60.0) -> http.client.HTTPConnection:
    """A connection to the server that writes this log, once it answers."""
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        told = log.read_text(encoding="utf-8").partition("http://")[2]
        if told:
            connection = http.client.HTTPConnection(told.split()[0])
            try:
                connection.request("GET", "/health")
                connection.getresponse().read()
                return connection
            except ConnectionError:
                connection.close()
        time.sleep(0.1)
    raise TimeoutError(f"no answer after {seconds} s: {log.read_text(encoding='utf-8')}")


def ask(connection: http.client.HTTPConnection, body: bytes) -> None:
    connection.request("POST", "/predict", body, {"content-type": "application/json"})
    answer = connection.getresponse()
    text = answer.read()
    if answer.status != 200 or b"click" not in text:
        raise RuntimeError(f"{answer.status}: {text[:200]!r}")


def _scheduled(pid: int) -> np.ndarray:
    """Seconds that the process's first thread, which is the one that answers, ran and waited for a core."""
    ran, waited = Path(f"/proc/{pid}/task/{pid}/schedstat").read_text(encoding="ascii").split()[:2]
    return np.array([int(ran), int(waited)]) / 1e9


def _ticks(pid: int) -> float:
    """CPU seconds of all threads, in hundredths."""
    fields = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


if __name__ == "__main__":
    main()
