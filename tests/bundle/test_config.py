from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from distilrec.bundle.config import bundle_digest, read_config, seal, verify
from distilrec.bundle.runtime import load
from distilrec.errors import BundleError


@pytest.fixture
def copy(bundle_path: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(bundle_path, tmp_path / "copy"))


@pytest.mark.parametrize("name", ["model.onnx", "items.json", "titles.json", "config.json", "card.md"])
def test_one_changed_byte_is_refused_by_name(copy: Path, name: str) -> None:
    data = bytearray((copy / name).read_bytes())
    data[len(data) // 2] ^= 1
    (copy / name).write_bytes(data)
    with pytest.raises(BundleError, match=f"{name} has changed"):
        load(copy)


@pytest.mark.parametrize("name", ["model.onnx", "items.json", "config.json", "card.md", "digests.json"])
def test_a_missing_file_is_refused_by_name(copy: Path, name: str) -> None:
    (copy / name).unlink()
    with pytest.raises(BundleError, match=f"{name} is missing"):
        load(copy)


def test_a_folder_that_is_no_bundle(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match="no bundle at"):
        load(tmp_path / "nowhere")
    with pytest.raises(BundleError, match=r"digests\.json is missing"):
        load(tmp_path)


def rewrite(folder: Path, **changes: object) -> None:
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, **changes}))


def test_a_newer_schema_says_upgrade(copy: Path) -> None:
    rewrite(copy, schema=2, distilrec="9.0")
    with pytest.raises(BundleError, match=r"schema 2, made by distilrec 9\.0(.|\n)*upgrade"):
        load(copy, verify=False)


def test_a_config_without_its_fields_names_them(copy: Path) -> None:
    rewrite(copy, max_length="nine", graphs=None)
    with pytest.raises(BundleError, match="graphs, max_length"):
        read_config(copy)
    (copy / "config.json").write_text("{")
    with pytest.raises(BundleError, match="not JSON"):
        read_config(copy)


def test_a_cut_off_graph_and_foreign_keys_are_refused_without_hashing_too(copy: Path) -> None:
    (copy / "model.onnx").write_bytes((copy / "model.onnx").read_bytes()[:2000])
    with pytest.raises(BundleError, match=r"model\.onnx cannot be loaded"):
        load(copy, verify=False)
    (copy / "items.json").write_text('["a"]')
    with pytest.raises(BundleError, match=r"items\.json"):
        load(copy, verify=False)


def test_digests_cannot_point_out_of_the_folder(copy: Path) -> None:
    digests = json.loads((copy / "digests.json").read_text())
    (copy / "digests.json").write_text(json.dumps({**digests, "../secret": "0" * 64}))
    with pytest.raises(BundleError, match="outside"):
        verify(copy)


def test_seal_adds_files_and_renews_the_digest(copy: Path) -> None:
    before = bundle_digest(copy)
    seal(copy, {"card.md": "# New\n", "metrics.json": "{}\n"})
    assert set(verify(copy)) >= {"card.md", "metrics.json", "model.onnx"}
    assert (copy / "card.md").read_text() == "# New\n"
    assert bundle_digest(copy) != before
    assert load(copy).recommend(["item-1"], 3).items == load(copy).recommend(["item-1"], 3).items != []


def test_seal_refuses_damage_and_the_parts_that_answer(copy: Path) -> None:
    for name in ("model.onnx", "config.json", "../card.md"):
        with pytest.raises(BundleError, match="cannot seal"):
            seal(copy, {name: "x"})
    (copy / "items.json").write_text("[]")
    with pytest.raises(BundleError, match=r"items\.json has changed"):
        seal(copy, {"card.md": "x"})
    assert (copy / "card.md").read_text() == "# World\n"
