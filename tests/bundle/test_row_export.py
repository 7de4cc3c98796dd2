from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from distilrec.bundle import row_export
from distilrec.bundle.config import read_config, seal, verify
from distilrec.bundle.row_export import export_rows
from distilrec.bundle.row_runtime import RowBundle
from distilrec.bundle.runtime import load, load_rank, load_rows
from distilrec.errors import BundleError
from distilrec.features import Feature
from distilrec.models import ROW_MODELS
from distilrec.models.predictor import TrainedRows
from distilrec.types_rows import Head, RowSplit
from row_bundle_world import trained


@pytest.mark.parametrize("architecture", sorted(ROW_MODELS))
def test_every_model_answers_as_in_torch(architecture: str, row_split: RowSplit, tmp_path: Path) -> None:
    """Every architecture, every kind of feature, coupled heads, calibration: the logits of torch on every row."""
    student = trained(row_split, architecture)
    bundle = load_rows(export_rows(student, row_split, tmp_path / "a.bundle", card=None, metadata={}))
    expected = student.predict(row_split, np.arange(len(row_split)))
    scores = bundle.scores(row_split.columns)
    np.testing.assert_allclose(scores, expected, atol=1e-4 * max(1.0, float(np.abs(expected).max())))
    assert bundle.scores({name: column[:1] for name, column in row_split.columns.items()}).shape == (1, 5)
    assert bundle.parameters == pytest.approx(student.parameters, abs=20)


def test_the_config_says_everything(row_bundle_path: Path, row_split: RowSplit) -> None:
    config = read_config(row_bundle_path)
    assert (config["task"], config["seen"], config["graphs"]) == ("predict", None, {"predict": "model.onnx"})
    assert [one["name"] for one in config["inputs"]] == list(row_split.features)
    by_name = {one["name"]: one for one in config["inputs"]}
    assert by_name["item"]["vocabulary"] == [f"i{n}" for n in range(8)]
    assert (by_name["item"]["required"], by_name["user"]["required"]) == (True, False)
    assert [(by_name[name]["dtype"], by_name[name]["default"]) for name in ("user", "past", "price", "picture")] == [
        ("int64", 0), ("int64", -1), ("float32", 0.0), ("float32", 0.0)]
    assert by_name["picture"]["shape"] == ["B", 3]
    assert [(one["name"], one["head"], one["kind"], one["space"], one["class"]) for one in config["outputs"]] == [
        ("click", "click", "binary", "probability", None), ("buy", "buy", "binary", "probability", None),
        ("rating", "rating", "number", "value", None), ("tags.new", "tags", "tags", "probability", "new"),
        ("tags.cheap", "tags", "tags", "probability", "cheap")]
    assert config["outputs"][1]["after"] == "click"
    assert config["thresholds"] == {"tags": [0.3, 0.7], "click": 0.4}
    assert config["metadata"] == {"seed": 3}
    assert config["dataset"] == {"name": "made", "split": row_split.digest}
    assert load_rows(row_bundle_path).heads == row_split.heads
    assert list(load_rows(row_bundle_path).features) == list(row_split.features.values())


def test_long_vocabularies_lie_in_files_that_are_sealed(row_split: RowSplit, tmp_path: Path) -> None:
    values = tuple(f"Äpfel/{n}" for n in range(100))
    item = Feature("i/t em", "category", columns=("item",), size=101, vocabulary=values)
    past = Feature("past", "sequence", size=101, vocabulary=values, of="i/t em", max_length=4)
    user = row_split.features["user"]
    columns = {"i/t em": row_split.columns["item"], "past": row_split.columns["past"],
               "user": row_split.columns["user"]}
    split = replace(row_split, features={"i/t em": item, "past": past, "user": user}, columns=columns)
    path = export_rows(trained(split, "logistic"), split, tmp_path / "b.bundle", card="# B\n", metadata={"task": "tag"})
    config = read_config(path)
    assert [one["vocabulary"] for one in config["inputs"]][:2] == ["values-i_t_em.json"] * 2
    assert "values-i_t_em.json" in verify(path)
    bundle = load_rows(path)
    assert bundle.task == "tag"
    assert bundle.features == (item, past, user)
    one, other = bundle.predict([{"item": "Äpfel/3"}, {"item": "Äpfel/4"}])["click"]
    assert one != other
    with pytest.raises(BundleError, match="cannot seal"):
        seal(path, {"values-i_t_em.json": "[]"})
    seal(path, {"card.md": "# New\n"})
    for change in (lambda file: file.write_text("[]"), lambda file: file.unlink()):
        copy = Path(shutil.copytree(path, tmp_path / "copy", dirs_exist_ok=True))
        change(copy / "values-i_t_em.json")
        with pytest.raises(BundleError, match=r"values-i_t_em\.json (has changed|is missing)"):
            load(copy)
        with pytest.raises(BundleError, match="does not fit together"):
            load(copy, verify=False)
    digests = json.loads((path / "digests.json").read_text())
    del digests["values-i_t_em.json"]
    (path / "digests.json").write_text(json.dumps(digests))
    with pytest.raises(BundleError, match=r"does not name values-i_t_em\.json"):
        load(path)


def test_what_is_only_known_in_training_is_refused_by_name(row_split: RowSplit, tmp_path: Path) -> None:
    features = {**row_split.features, "price": replace(row_split.features["price"], available="training")}
    heads = (Head("rating", "number"),)
    split = replace(row_split, features=features, heads=heads, labels={"rating": row_split.labels["rating"]})
    with pytest.raises(BundleError, match=r"reads 'price'.*training only: nobody can send it(.|\n)*leave 'price' out"):
        export_rows(trained(split, "logistic"), split, tmp_path / "c.bundle", card=None, metadata={})
    assert not (tmp_path / "c.bundle").exists()
    fine = trained(split, "logistic", [name for name in features if name != "price"])
    bundle = load_rows(export_rows(fine, split, tmp_path / "c.bundle", card=None, metadata={}))
    assert "price" not in bundle.fields
    answer = bundle.predict([{"item": "i1"}])
    assert list(answer) == ["rating"]
    np.testing.assert_array_equal(answer["rating"], bundle.scores(bundle.encode([{"item": "i1"}]))[:, 0])


def test_features_named_like_parts_of_the_graph(row_split: RowSplit, tmp_path: Path) -> None:
    """Names that the exporter gives its own values are free for features; those of the outputs are not."""
    names = {"user": "in1", "price": "in0", "item": "sigmoid"}
    features = {names[old]: replace(row_split.features[old], name=names[old], columns=()) for old in names}
    split = replace(row_split, features=features, columns={new: row_split.columns[old] for old, new in names.items()})
    student = trained(split, "fm", dim=3)
    bundle = load_rows(export_rows(student, split, tmp_path / "d.bundle", card=None, metadata={}))
    expected = student.predict(split, np.arange(50))
    np.testing.assert_allclose(bundle.scores({k: v[:50] for k, v in split.columns.items()}), expected, atol=1e-4)
    logits = {"logits": replace(row_split.features["user"], name="logits")}
    split = replace(row_split, features=logits, columns={"logits": row_split.columns["user"]})
    with pytest.raises(BundleError, match="a feature is called 'logits'"):
        export_rows(trained(split, "logistic"), split, tmp_path / "e.bundle", card=None, metadata={})


def test_a_graph_that_differs_is_told(row_student: TrainedRows, row_bundle_path: Path) -> None:
    data = (row_bundle_path / "model.onnx").read_bytes()
    row_export._compare(row_export._Body(row_student), data, row_student.features)
    off = replace(row_student, shift=np.asarray(row_student.shift) + np.float32(0.01))
    with pytest.raises(BundleError, match=r"disagree on the logits of 1 rows: they differ by up to 0\.0[01]"):
        row_export._compare(row_export._Body(off), data, row_student.features)


@pytest.mark.parametrize(("metadata", "words"), [
    ({"thresholds": {"clik": 0.5}}, "did you mean 'click'"), ({"thresholds": {"rating": 0.5}}, "binary and tags heads"),
    ({"thresholds": {"click": 1.5}}, "a probability"), ({"thresholds": {"tags": [0.1, 0.2, 0.3]}}, "or 2 of them"),
])
def test_thresholds_are_checked(
    row_student: TrainedRows, row_split: RowSplit, tmp_path: Path, metadata: dict, words: str
) -> None:
    with pytest.raises(BundleError, match=words):
        export_rows(row_student, row_split, tmp_path / "g.bundle", card=None, metadata=metadata)


def test_foreign_splits_and_broken_weights_are_refused(
    row_student: TrainedRows, row_split: RowSplit, tmp_path: Path
) -> None:
    with pytest.raises(BundleError, match="another table"):
        export_rows(replace(row_student, split_digest="0" * 64), row_split, tmp_path / "h", card=None, metadata={})
    broken = trained(row_split, "logistic")
    next(broken.model.parameters()).data[0] = torch.nan
    with pytest.raises(BundleError, match="NaN or infinite numbers in "):
        export_rows(broken, row_split, tmp_path / "h", card=None, metadata={})

    class Unwritable(nn.Module):
        def forward(self, inputs: object) -> dict[str, torch.Tensor]:
            return {"scores": torch.zeros(int(inputs.ids.sum().item()), 5)}  # type: ignore[attr-defined]

    with pytest.raises(BundleError, match="Unwritable cannot be written as ONNX"):
        export_rows(replace(row_student, model=Unwritable()), row_split, tmp_path / "h", card=None, metadata={})
    assert not list(tmp_path.iterdir())


def test_bundles_of_another_task_are_sent_where_they_belong(row_bundle_path: Path, bundle_path: Path) -> None:
    assert isinstance(load(row_bundle_path), RowBundle)
    with pytest.raises(BundleError, match=r"task predict(.|\n)*distilrec predict"):
        load_rank(row_bundle_path)
    with pytest.raises(BundleError, match=r"task rank(.|\n)*distilrec recommend"):
        load_rows(bundle_path)


@pytest.mark.parametrize("change", [
    {"inputs": []}, {"inputs": [{"name": "x"}]}, {"outputs": [5]}, {"parameters": None}, {"task": "write"},
])
def test_a_config_of_rows_is_checked_field_by_field(row_bundle_path: Path, tmp_path: Path, change: dict) -> None:
    copy = Path(shutil.copytree(row_bundle_path, tmp_path / "copy"))
    config = json.loads((copy / "config.json").read_text())
    (copy / "config.json").write_text(json.dumps({**config, **change}))
    with pytest.raises(BundleError, match="wrong or missing"):
        load(copy, verify=False)
