from __future__ import annotations

import functools
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from torch import nn

from bundle_world import ITEMS, build_split, shuffle_weights
from distilrec.bundle.export import export
from distilrec.bundle.runtime import load
from distilrec.errors import BundleError
from distilrec.evaluation.cost import bundle_parameters
from distilrec.models.bert4rec import BERT4Rec
from distilrec.models.gru4rec import GRU4Rec
from distilrec.models.histories import pad
from distilrec.models.hstu import HSTU
from distilrec.models.lightgcn import LightGCN
from distilrec.models.mf import MatrixFactorization
from distilrec.models.mult_vae import MultVAE
from distilrec.models.popularity import Popularity
from distilrec.models.sasrec import SASRec
from distilrec.models.trained import parameters_read
from distilrec.types import Histories, Split

GRAPH = np.random.default_rng(8).integers(0, [[11], [ITEMS]], (2, 40))  # user 11 has no edge
CONTENT = np.random.default_rng(7).normal(size=(ITEMS, 20)).astype(np.float32)

STUDENTS = {
    "sasrec": lambda: SASRec(ITEMS, dim=8, max_length=9),
    "sasrec, bias, one layer, wider inside": lambda: SASRec(ITEMS, dim=8, hidden=12, layers=1, bias=True, max_length=9),
    "sasrec, no layers, one event": lambda: SASRec(ITEMS, dim=4, layers=0, max_length=1),
    "sasrec, id + content": lambda: SASRec(ITEMS, dim=8, content=CONTENT, content_use="add", max_length=9),
    "sasrec, content only": lambda: SASRec(ITEMS, dim=8, content=CONTENT, content_use="only", max_length=9),
    "gru4rec": lambda: GRU4Rec(ITEMS, dim=8, hidden=10, layers=2, max_length=9),
    "hstu, wider inside": lambda: HSTU(ITEMS, dim=8, hidden=12, layers=2, max_length=9),
    "hstu, one event": lambda: HSTU(ITEMS, dim=4, layers=1, max_length=1, bias=True),
    "bert4rec, wider inside": lambda: BERT4Rec(ITEMS, dim=8, hidden=12, layers=2, max_length=9),
    "bert4rec, id + content": lambda: BERT4Rec(ITEMS, dim=8, layers=1, content=CONTENT, content_use="add", max_length=9,
                                               bias=True),
    "bert4rec, one event": lambda: BERT4Rec(ITEMS, dim=4, layers=1, max_length=1),
    "mf": lambda: MatrixFactorization(ITEMS, n_users=12, dim=8, max_length=9, bias=True),
    "lightgcn": lambda: LightGCN(ITEMS, n_users=12, graph=GRAPH, dim=8, max_length=9, bias=True),
    "lightgcn, id + content": lambda: LightGCN(ITEMS, n_users=12, graph=GRAPH, dim=8, max_length=9, content=CONTENT,
                                               content_use="add"),
    "mult_vae": lambda: MultVAE(ITEMS, dim=8, hidden=10, latent=6, max_length=9, bias=True),
}


def naive_lists(model: nn.Module, histories: Histories, exclude: Histories, k: int) -> list[list[int]]:
    """torch's own lists, sorted in plain Python: score descending, then the smaller id."""
    items, lengths = pad(histories, model.max_length, model.n_items)
    with torch.inference_mode():
        users = torch.as_tensor(histories.users) if model.uses_users else None
        scores = model.last(torch.as_tensor(items), torch.as_tensor(lengths), users) @ model.item_vectors().T
        if model.item_bias() is not None:
            scores = scores + model.item_bias()
    lists = []
    for row, values in enumerate(scores.tolist()):
        banned = set(exclude.items[exclude.offsets[row]:exclude.offsets[row + 1]].tolist())
        ranked = sorted((-value, item) for item, value in enumerate(values) if item not in banned)
        lists.append([item for _, item in ranked[:k]])
    return lists


@pytest.fixture(scope="module")
def exported(split: Split, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], tuple[nn.Module, Path]]:
    """kind -> (model, bundle); each kind is exported once."""
    folder = tmp_path_factory.mktemp("students")

    @functools.cache
    def one(kind: str) -> tuple[nn.Module, Path]:
        model = shuffle_weights(STUDENTS[kind]())
        return model, export(model, split, folder / kind, card=None, metadata={})

    return one


@pytest.mark.parametrize("kind", STUDENTS)
def test_graph_gives_the_lists_of_the_torch_model(kind: str, exported: Callable) -> None:
    model, path = exported(kind)
    bundle = load(path)
    rng = np.random.default_rng(1)
    sequences = [rng.integers(0, ITEMS, n) for n in (0, 1, 2, 5, 9, 9, 14, 40)]
    users = rng.integers(-1, 12, len(sequences))
    histories = Histories.of(sequences, users)
    found = bundle.recommend_ids(histories, histories, 10)
    assert [row.tolist() for row in found.items] == naive_lists(model, histories, histories, 10)


@pytest.mark.parametrize("kind", [kind for kind in STUDENTS if "content" not in kind])
def test_every_weight_is_stored_once(kind: str, exported: Callable) -> None:
    model, path = exported(kind)
    numbers = parameters_read(model)
    assert load(path).parameters == pytest.approx(numbers, abs=16)  # the bias is padded by two; nothing else
    assert (path / "model.onnx").stat().st_size < 4 * numbers + 25_000


def test_content_is_folded_into_one_table(exported: Callable) -> None:
    model, path = exported("sasrec, id + content")
    shapes = [tuple(t.dims) for t in onnx.load(path / "model.onnx").graph.initializer]
    assert (ITEMS + 2, 8) in shapes
    assert not any(shape == (ITEMS, 20) for shape in shapes)
    assert model.table.project is not None  # the model that was handed in is left as it was


def test_equal_scores_come_in_the_order_of_their_ids(split: Split, tmp_path: Path) -> None:
    model = shuffle_weights(GRU4Rec(ITEMS, dim=4, max_length=9))
    with torch.no_grad():
        model.table.weight[:] = model.table.weight[0]
    bundle = load(export(model, split, tmp_path / "b", card=None, metadata={}, seen="keep"))
    for k in (1, 10, 60, ITEMS):  # ONNX Runtime changes its algorithm with k
        found = bundle.recommend_ids(Histories.of([[5, 3], []]), Histories.of([[2, 0], []]), k)
        assert found.items[0, :k].tolist() == ([i for i in range(ITEMS) if i not in (0, 2)] + [-1, -1])[:k]
        assert found.items[1].tolist() == list(range(k))


def test_scores_keep_their_precision_under_ties_in_part(split: Split, tmp_path: Path) -> None:
    model = shuffle_weights(GRU4Rec(ITEMS, dim=4, max_length=9))
    with torch.no_grad():
        model.table.weight[40:60] = model.table.weight[40]
    bundle = load(export(model, split, tmp_path / "b", card=None, metadata={}))
    items = bundle.recommend_ids(Histories.of([[1, 2]]), Histories.of([[]]), ITEMS).items[0].tolist()
    place = items.index(40)
    assert items[place:place + 20] == list(range(40, 60))


def test_the_raw_graph_keeps_its_contract(bundle_path: Path, student: nn.Module) -> None:
    """What the page will call: names, kinds, -1 padding, dynamic batch and length."""
    session = onnxruntime.InferenceSession(str(bundle_path / "model.onnx"), providers=["CPUExecutionProvider"])
    assert [(i.name, i.type) for i in session.get_inputs()] == [
        ("history", "tensor(int64)"), ("exclude", "tensor(int64)"), ("k", "tensor(int64)")]
    assert [o.name for o in session.get_outputs()] == ["items", "scores", "vector"]
    history = np.array([[4, 9, -1], [7, -1, -1], [-1, -1, -1]])
    feed = {"history": history, "exclude": np.array([[82, -1], [-1, -1], [0, 1]]), "k": np.array([ITEMS])}
    items, scores, vector = (np.asarray(out) for out in session.run(None, feed))
    assert items.dtype == np.int64
    assert scores.dtype == vector.dtype == np.float32
    assert vector.shape == (3, 8)
    assert items[0, -1] == -1
    assert np.isneginf(scores[0, -1])
    assert 82 not in items[0]
    assert sorted(items[1]) == list(range(ITEMS))  # padding of `exclude` bans nothing, the last item least of all
    assert sorted(items[2])[:2] == [-1, -1]
    assert not {0, 1} & set(items[2].tolist())
    np.testing.assert_allclose(vector[2], student.table.start.numpy(), atol=1e-6)


def test_config_says_what_goes_in_and_out(bundle_path: Path, split: Split) -> None:
    config = json.loads((bundle_path / "config.json").read_text())
    assert [i["name"] for i in config["inputs"]] == ["history", "exclude", "k"]
    assert config["inputs"][0] == {"name": "history", "kind": "items", "dtype": "int64", "shape": ["B", "L"],
                                   "vocabulary": "items.json", "default": -1, "required": True}
    assert [o["name"] for o in config["outputs"]] == ["items", "scores", "vector"]
    assert (config["schema"], config["task"], config["student"], config["seen"]) == (1, "rank", "small", "drop")
    assert config["dataset"]["digest"] == split.dataset.digest
    assert config["metadata"] == {"seed": 3}
    assert json.loads((bundle_path / "items.json").read_text()) == list(split.dataset.item_keys)
    assert json.loads((bundle_path / "titles.json").read_text())[:2] == [None, "Title <1>"]
    assert (bundle_path / "card.md").read_text() == "# World\n"


def test_graph_names_no_file_of_the_exporting_machine(bundle_path: Path) -> None:
    data = (bundle_path / "model.onnx").read_bytes()
    assert str(Path(torch.__file__).parent).encode() not in data
    assert str(Path(export.__code__.co_filename).parent).encode() not in data


class Drifting(GRU4Rec):
    """Answers something else at each call, so its graph cannot be what torch says."""

    calls = 0

    def last(self, items: torch.Tensor, lengths: torch.Tensor, users: torch.Tensor | None = None) -> torch.Tensor:
        Drifting.calls += 1
        return super().last(items, lengths, users) + float(Drifting.calls)


def test_a_graph_that_disagrees_with_torch_is_never_published(split: Split, tmp_path: Path) -> None:
    old = export(Popularity.fit(split), split, tmp_path / "b", card=None, metadata={})
    before = (old / "digests.json").read_bytes()
    with pytest.raises(BundleError, match="disagree"):
        export(shuffle_weights(Drifting(ITEMS, dim=4, max_length=9)), split, tmp_path / "b", card=None, metadata={})
    assert (old / "digests.json").read_bytes() == before
    assert [file.name for file in tmp_path.iterdir()] == ["b"]


def test_nan_and_foreign_splits_are_refused(split: Split, tmp_path: Path) -> None:
    broken = shuffle_weights(SASRec(ITEMS, dim=4))
    with torch.no_grad():
        broken.table.weight[3, 1] = float("nan")
    with pytest.raises(BundleError, match="NaN"):
        export(broken, split, tmp_path / "b", card=None, metadata={})
    inside = shuffle_weights(GRU4Rec(ITEMS, dim=4))
    with torch.no_grad():
        inside.leave.weight[0, 0] = float("nan")
    with pytest.raises(BundleError, match="NaN"):
        export(inside, split, tmp_path / "b", card=None, metadata={})
    with pytest.raises(BundleError, match="50 items"):
        export(shuffle_weights(SASRec(50, dim=4)), split, tmp_path / "b", card=None, metadata={})
    with pytest.raises(BundleError, match="'drop' or 'keep'"):
        export(shuffle_weights(SASRec(ITEMS, dim=4)), split, tmp_path / "b", card=None, metadata={}, seen="maybe")
    assert not (tmp_path / "b").exists()


def test_popularity_is_a_bundle_too(split: Split, tmp_path: Path) -> None:
    bundle = load(export(Popularity.fit(split), split, tmp_path / "b", card=None, metadata={}))
    ranked = sorted(range(ITEMS), key=lambda item: (-split.train_counts[item], item))
    keys = [f"item-{item}" for item in ranked]
    assert bundle.recommend([], 5).items == keys[:5]
    assert bundle.recommend([keys[0], "?"], 5).items == keys[1:6]
    assert bundle.parameters == ITEMS + 2  # the padding row, and the -inf that masks
    assert bundle.name == "popularity"
    with pytest.raises(BundleError, match="no item vectors"):
        bundle.similar("item-1")


def test_one_item_and_one_user(tmp_path: Path) -> None:
    split = build_split(1, 1)
    model = shuffle_weights(GRU4Rec(1, dim=2, max_length=3))
    bundle = load(export(model, split, tmp_path / "b", card=None, metadata={}))
    assert bundle.recommend([], 10).items == ["item-0"]
    assert bundle.recommend(["item-0"], 10).items == []
    assert bundle.similar("item-0", 3).items == []


def test_config_and_report_count_the_same_numbers(bundle_path: Path) -> None:
    assert load(bundle_path).parameters == bundle_parameters(bundle_path)
