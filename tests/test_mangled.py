"""Documents that are JSON and yet of another shape: every reader says so in an error of its own, or reads them."""

from __future__ import annotations

import contextlib
import copy
import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import rows_world
from bundle_world import build_split, shuffle_weights
from core_world import quick, walk_split
from distilrec.bundle import config
from distilrec.bundle.export import export
from distilrec.bundle.row_export import export_rows
from distilrec.bundle.runtime import load
from distilrec.data import load_rows, load_split, save_rows, save_split
from distilrec.errors import DataError, DistilrecError, KnowledgeError
from distilrec.evaluation.contest import Contestant, contest
from distilrec.evaluation.schema import read_report, write_report
from distilrec.files import read_object, well_formed
from distilrec.knowledge.extract import extract
from distilrec.knowledge.store import KnowledgeStore
from distilrec.models.popularity import Popularity
from distilrec.models.predictor import TrainedRows
from distilrec.models.sasrec import SASRec
from distilrec.models.trained import Trained
from distilrec.stages_shared import same_weights
from distilrec.teachers.trees import Trees, fit_trees
from distilrec.training.checkpoint import finished_as
from distilrec.training.train import train
from row_bundle_world import trained


@dataclass
class Document:
    path: Path
    read: Callable[[], Any]
    whole: Any


def _documents(folder: Path) -> dict[str, Document]:
    split, rows = walk_split(users=20), rows_world.table(60)
    save_split(split, folder / "data")
    save_rows(rows, folder / "rows")
    extract(Popularity.fit(split), split, folder / "knowledge", top_k=3)
    train("sasrec", split, {"dim": 4, "layers": 1, "max_length": 6}, quick(epochs=1), folder=folder / "model")
    trained(rows, dim=4).save(folder / "row-model")
    fit_trees(rows, {"rounds": 2}).save(folder / "trees")
    world = build_split(20)
    export(shuffle_weights(SASRec(20, dim=4, max_length=5)), world, folder / "a.bundle", card="# A\n", metadata={})
    export_rows(trained(rows, dim=4), rows, folder / "b.bundle", card="# B\n", metadata={})
    write_report(contest([Contestant("popularity", "baseline", [Popularity.fit(split)])], split).document,
                 folder / "report.json")
    (folder / "student.json").write_text(json.dumps({"weights": "0"}))

    def opened(name: str) -> Callable[[], Any]:
        def read() -> Any:
            config._write_digests(folder / name)  # the digests are right, and the document all the same is not
            return load(folder / name)

        return read

    readers: dict[str, Callable[[], Any]] = {
        "data/manifest.json": lambda: load_split(folder / "data"),
        "rows/manifest.json": lambda: load_rows(folder / "rows"),
        "rows/features.json": lambda: load_rows(folder / "rows"),
        "knowledge/manifest.json": lambda: KnowledgeStore(folder / "knowledge", split),
        "model/model.json": lambda: (finished_as(folder / "model", "x"), Trained.load(folder / "model", split)),
        "row-model/model.json": lambda: TrainedRows.load(folder / "row-model", rows),
        "trees/trees.json": lambda: Trees.load(folder / "trees"),
        "a.bundle/config.json": opened("a.bundle"), "a.bundle/items.json": opened("a.bundle"),
        "a.bundle/titles.json": opened("a.bundle"), "b.bundle/config.json": opened("b.bundle"),
        "a.bundle/digests.json": lambda: load(folder / "a.bundle"),
        "report.json": lambda: read_report(folder / "report.json"),
        "student.json": lambda: same_weights([Trained.load(folder / "model")], [folder], "student"),
    }
    found = {}
    for name, read in readers.items():
        path = folder / name
        assert path.exists(), name
        found[name] = Document(path, read, json.loads(path.read_text()))
    return found


@pytest.fixture(scope="module")
def documents(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Document]:
    return _documents(tmp_path_factory.mktemp("documents"))


NAMES = ["data/manifest.json", "rows/manifest.json", "rows/features.json", "knowledge/manifest.json",
         "model/model.json", "row-model/model.json", "trees/trees.json", "a.bundle/config.json", "a.bundle/items.json",
         "a.bundle/titles.json", "b.bundle/config.json", "a.bundle/digests.json", "report.json", "student.json"]
OTHER = st.sampled_from([None, True, 0, -1, 3, 2.5, "", "x", "sasrec", "../x", [], [1], [None], ["a", "b"], {},
                         {"a": 1}, [[]], [{}]])


def mangle(document: Any, draw: Callable[[Any], Any]) -> Any:
    """The document with one place taken away, replaced, or moved under another name."""
    document = copy.deepcopy(document)
    parent, key, here = None, None, document
    while isinstance(here, dict | list) and len(here) and (parent is None or draw(st.booleans())):
        parent, key = here, draw(st.sampled_from(list(here) if isinstance(here, dict) else list(range(len(here)))))
        here = parent[key]
    if parent is None or draw(st.integers(0, 9)) == 0:
        return draw(OTHER)
    if draw(st.integers(0, 2)) == 0:
        del parent[key]
    else:
        parent[key] = draw(OTHER)
    return document


@pytest.mark.parametrize("name", NAMES)
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_another_shape_is_told_or_read(name: str, documents: dict[str, Document], data: st.DataObject) -> None:
    one = documents[name]
    before = one.path.with_suffix(".whole")
    shutil.copyfile(one.path, before)
    try:
        one.path.write_text(json.dumps(mangle(one.whole, data.draw)))
        with contextlib.suppress(DistilrecError):
            one.read()
    finally:
        before.replace(one.path)


def test_the_message_names_file_and_field(documents: dict[str, Document]) -> None:
    one = documents["model/model.json"]
    one.path.write_text(json.dumps({**one.whole, "training": []}))
    with pytest.raises(DataError, match=r"model\.json: training is missing or of another type"):
        one.read()
    one.path.write_text(json.dumps({**one.whole, "settings": {"n_items": "many"}}))
    with pytest.raises(KnowledgeError, match=r"model\.json is not of the form in which it was written"):
        one.read()
    one.path.write_text(json.dumps(one.whole))


def test_what_is_told_already_stays_and_a_full_disk_is_no_shape(tmp_path: Path) -> None:
    with pytest.raises(KnowledgeError, match="other data"), well_formed(tmp_path):
        raise KnowledgeError("other data")
    with pytest.raises(OSError, match="full"), well_formed(tmp_path):
        raise OSError("full")
    (tmp_path / "x.json").write_text("[]")
    with pytest.raises(DataError, match=r"x\.json: all of it is missing or of another type"):
        read_object(tmp_path / "x.json", {})
