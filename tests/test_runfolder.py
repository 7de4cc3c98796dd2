"""The run folder: one process at a time, and every input file is looked at."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

import distilrec
from distilrec.errors import DataError
from distilrec.recipe import Data, Join, Recipe
from distilrec.runfolder import inputs, lock

HOLDER = """
import sys, time
from distilrec.runfolder import lock
with lock(sys.argv[1]):
    print("held", flush=True)
    sys.stdin.readline()
"""


def holder(out: Path) -> subprocess.Popen[str]:
    """Another process that holds the folder until it is told to go."""
    environment = {**os.environ, "PYTHONPATH": str(Path(distilrec.__file__).parents[1])}
    other = subprocess.Popen([sys.executable, "-c", HOLDER, str(out)], env=environment, text=True,
                             stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert other.stdout is not None and other.stdout.readline() == "held\n"
    return other


@pytest.mark.parametrize("end", ["leave", "kill"])
def test_one_run_at_a_time_in_a_folder(tmp_path: Path, end: str) -> None:
    out = tmp_path / "run"
    other = holder(out)
    with pytest.raises(DataError) as refused, lock(out):
        pytest.fail("two processes hold one folder")
    assert f"process {other.pid} is at work in {out}" in str(refused.value)
    assert f"kill {other.pid}" in str(refused.value)
    with lock(tmp_path / "elsewhere"):
        pass  # another folder is free
    if end == "kill":
        other.send_signal(signal.SIGKILL)
    other.communicate("go\n" if end == "leave" else None)
    assert (out / ".lock").read_text() == f"{other.pid}\n", "what a dead process leaves is no obstacle"
    with lock(out):
        assert (out / ".lock").read_text() == f"{os.getpid()}\n"


def test_the_lock_is_given_back_after_an_error_and_not_shared_within_a_process(tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError), lock(tmp_path):
        _ = 1 / 0
    with lock(tmp_path), pytest.raises(DataError, match=f"process {os.getpid()} is at work"), lock(tmp_path):
        pytest.fail("held twice")
    with lock(tmp_path):
        pass


REVIEW = '{"reviewerID": "A", "asin": "P1", "overall": 5.0, "unixReviewTime": 1252800000}\n'


def test_inputs_are_the_files_that_are_read(tmp_path: Path) -> None:
    log, meta = tmp_path / "reviews_Home_5.json", tmp_path / "meta_Home.json"
    log.write_text(REVIEW)
    meta.write_text('{"asin": "P1", "title": "Lamp"}\n')
    (tmp_path / "users.csv").write_text("user_id\nA\n")
    for path in (log, tmp_path):
        recipe = Recipe(name="r", data=Data(path=str(path), users=str(tmp_path / "users.csv")))
        before = inputs(recipe)
        assert [one.partition(":")[0] for one in before] == [log.name, meta.name, "users.csv"]
        (tmp_path / "run").mkdir(exist_ok=True)
        (tmp_path / "run" / "report.json").write_text(str(path))
        (tmp_path / "notes.txt").write_text(str(path))
        assert inputs(recipe) == before
        meta.write_text(f'{{"asin": "P1", "title": "Lamp of {path.name}"}}\n')
        after = inputs(recipe)
        assert [a == b for a, b in zip(before, after, strict=True)] == [True, False, True]
    assert inputs(Recipe(name="r", data=Data())) == []
    with pytest.raises(DataError, match="there is no"):
        inputs(Recipe(name="r", data=Data(path=str(tmp_path / "nowhere"))))


def test_joined_tables_are_inputs_of_a_table(tmp_path: Path) -> None:
    table, items = tmp_path / "ads.csv", tmp_path / "items.csv"
    table.write_text("item,click\na,1\n")
    items.write_text("item,price\na,2\n")
    for path, names in ((table, ["ads.csv", "items.csv"]), (tmp_path, ["ads.csv", "items.csv"])):
        data = Data(path=str(path), joins=[Join(path="items.csv", on="item"), Join(path="gone.csv", on="item")])
        recipe = Recipe(name="r", task="predict", data=data)
        before = inputs(recipe)
        assert [one.partition(":")[0] for one in before] == names
        items.write_text(f"item,price\na,{len(path.name)}\n")
        assert inputs(recipe) != before
