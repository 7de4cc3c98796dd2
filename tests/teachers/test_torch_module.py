"""torch modules as teachers: by Python path with safetensors, TorchScript, torch.export, or the object itself."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from distilrec.errors import DataError
from distilrec.teachers.matrix import matrix
from distilrec.teachers.torch_module import torch_teacher
from distilrec.types_rows import RowSplit

COLUMNS = ["encoded:price", "hot:colors"]  # 4 columns
CODE = '''
import torch

def net(width=3):
    torch.manual_seed(7)
    made = torch.nn.Sequential(torch.nn.Linear(4, width), torch.nn.Dropout(0.5), torch.nn.Linear(width, 1))
    torch.nn.init.constant_(made[2].bias, -0.5)
    return made

class ByName(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.items = torch.nn.Embedding(9, 1)

    def forward(self, item, price):
        return {"rating": price * 2, "click": self.items(item)[:, 0]}

def nothing():
    return 3
'''
pytestmark = [pytest.mark.req("A2"), pytest.mark.filterwarnings("ignore")]


@pytest.fixture(scope="module", autouse=True)
def shop_nets(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """A Python module `shop_nets`, importable."""
    folder = tmp_path_factory.mktemp("code")
    (folder / "shop_nets.py").write_text(CODE)
    sys.path.insert(0, str(folder))
    yield
    sys.path.remove(str(folder))
    sys.modules.pop("shop_nets", None)


@pytest.fixture
def net() -> torch.nn.Module:
    torch.manual_seed(11)
    made = torch.nn.Sequential(torch.nn.Linear(4, 3), torch.nn.Dropout(0.5), torch.nn.Linear(3, 1)).eval()
    torch.nn.init.constant_(made[2].bias, -0.5)  # type: ignore[arg-type]
    return made


def answers(net: torch.nn.Module, split: RowSplit) -> np.ndarray:
    with torch.inference_mode():
        return net(torch.from_numpy(matrix(split, np.arange(len(split)), COLUMNS)[0])).numpy()


def test_a_python_path_with_weights_in_safetensors(
    net: torch.nn.Module, clicks: RowSplit, everything: np.ndarray, tmp_path: Path
) -> None:
    save_file(net.state_dict(), tmp_path / "w.safetensors")
    teacher = torch_teacher("shop_nets:net", clicks, space="logit", inputs=COLUMNS, trust=True,
                            weights=tmp_path / "w.safetensors")
    assert teacher.name == "net"
    assert teacher.parameters == 4 * 3 + 3 + 3 + 1
    assert teacher.predict(clicks, everything) == pytest.approx(answers(net, clicks), abs=1e-6)
    plain = torch_teacher("shop_nets:net", clicks, space="logit", inputs=COLUMNS, trust=True)
    assert plain.digest != teacher.digest
    wide = torch_teacher("shop_nets:net", clicks, space="logit", inputs=COLUMNS, settings={"width": 5},
                         trust=True)
    assert wide.parameters == 4 * 5 + 5 + 5 + 1


def test_arguments_by_name_and_outputs_by_head(both: RowSplit, everything: np.ndarray) -> None:
    space = {"click": "logit", "rating": "value"}
    teacher = torch_teacher("shop_nets:ByName", both, space=space, trust=True,
                            inputs={"item": "encoded:item", "price": "encoded:price"})
    assert teacher.predict(both, everything)[:, 1] == pytest.approx(both.columns["price"] * 2, abs=1e-5)
    assert teacher.parameters == 9


def test_torchscript_and_exported_files_need_trust(
    net: torch.nn.Module, clicks: RowSplit, everything: np.ndarray, tmp_path: Path
) -> None:
    torch.jit.script(net).save(str(tmp_path / "net.pt"))
    rows = torch.export.Dim("n")
    torch.export.save(torch.export.export(net, (torch.zeros(2, 4),), dynamic_shapes=({0: rows},)), tmp_path / "net.pt2")
    for file in ("net.pt", "net.pt2"):
        with pytest.raises(DataError, match="(?s)holds pickles.*runs whatever code.*trust=True"):
            torch_teacher(tmp_path / file, clicks, space="logit", inputs=COLUMNS)
        teacher = torch_teacher(tmp_path / file, clicks, space="logit", inputs=COLUMNS, trust=True)
        assert teacher.predict(clicks, everything) == pytest.approx(answers(net, clicks), abs=1e-5)
        assert teacher.parameters == 19


def test_a_module_object_is_put_out_of_training(net: torch.nn.Module, clicks: RowSplit, everything: np.ndarray) -> None:
    teacher = torch_teacher(net.train(), clicks, space="logit", inputs=COLUMNS)
    assert teacher.predict(clicks, everything) == pytest.approx(answers(net.eval(), clicks), abs=1e-6)


def test_a_module_that_mixes_its_batch_is_refused(clicks: RowSplit) -> None:
    class Mixed(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return torch.nn.functional.layer_norm(x[:, 0], (len(x),))

    with pytest.raises(DataError, match="depends on nothing but row i"):
        torch_teacher(Mixed(), clicks, space="logit", inputs=["hot:colors"])


def test_what_cannot_be_a_teacher_is_said(net: torch.nn.Module, clicks: RowSplit, tmp_path: Path) -> None:
    save_file({"0.weight": torch.zeros(2, 2)}, tmp_path / "w.safetensors")
    torch.save(net.state_dict(), tmp_path / "state.pt")
    (tmp_path / "bad.safetensors").write_bytes(b"nothing")
    for model, given, text in [
        ("shop_nets", {}, "names no torch module"),
        ("no_such_shop:net", {}, "(?s)cannot be imported.*PYTHONPATH"),
        ("shop_nets:nett", {}, "did you mean 'net'"),
        ("shop_nets:nothing", {}, "made a int"),
        ("shop_nets:net", {"settings": {"breadth": 2}}, "cannot be called"),
        ("shop_nets:net", {"inputs": COLUMNS[:1]}, "cannot answer rows"),
        ("shop_nets:net", {"inputs": None}, "called with is not said"),
        ("shop_nets:net", {"inputs": {"input": "title"}}, "is given text"),
        ("shop_nets:net", {"weights": tmp_path / "w.safetensors"}, "does not fit the module"),
        ("shop_nets:net", {"weights": tmp_path / "bad.safetensors"}, "cannot be read"),
        ("shop_nets:net", {"weights": tmp_path / "state.pt"}, r"ends in \.pt"),
        (tmp_path / "none.pt", {"trust": True}, "does not exist"),
        (tmp_path / "state.pt", {"trust": True}, "(?s)cannot be read.*state_dict alone is no model"),
        (tmp_path / "state.pt", {"trust": True, "settings": {"a": 1}}, "holds both already"),
    ]:
        with pytest.raises(DataError, match=text):
            torch_teacher(model, clicks, **{"space": "logit", "inputs": COLUMNS, "trust": True, **given})


def test_without_trust_no_python_path_is_imported_or_called(clicks: RowSplit, tmp_path: Path) -> None:
    path, mark = "subprocess:call", tmp_path / "called"
    with pytest.raises(DataError, match="(?s)imported and called.*trust: true"):
        torch_teacher(path, clicks, space="logit", inputs=COLUMNS, settings={"args": ["touch", str(mark)]})
    assert not mark.exists()
