"""A torch module as teacher: named by a Python path, or as a TorchScript or torch.export file."""

from __future__ import annotations

import importlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file

from distilrec.errors import DataError, nearest, problem
from distilrec.files import digest_arrays, digest_json
from distilrec.teachers.matrix import Source, named_or_matrix
from distilrec.teachers.outside import RISK, OutsidePredictor, digest_of, found
from distilrec.types_rows import RowSplit

__all__ = ["torch_teacher"]

SUFFIXES = (".pt", ".pt2", ".ts")


def torch_teacher(
    model: str | Path | torch.nn.Module, split: RowSplit, *, space: str | Mapping[str, str] | None = None,
    inputs: Sequence[Source] | Mapping[str, Source | Sequence[Source]] | None = None,
    weights: str | Path | None = None, settings: Mapping[str, Any] | None = None, trust: bool = False, name: str = "",
    device: str = "cpu", narrow_logits: bool = False, block: int = 4096,
) -> OutsidePredictor:
    """A teacher that is a torch module.

    Args:
        model: `package.module:function`, where `function(**settings)` makes the module (a class will do, and a module
            object needs no call); a TorchScript file (.pt, .ts); a torch.export file (.pt2); or the module itself.
            A Python path is imported and called, so it is code that you run: only with trust=True.
        weights: a safetensors file for the module's state; every name must fit. Without it the module is as `function`
            left it.
        inputs: a list of sources (see teachers.matrix): the module is called with one float32 matrix. A mapping: it is
            called with its names as keywords: ids int64, numbers and lists of sources float32.
        trust: a Python path runs code, and so do .pt and .pt2 files, which hold pickles: only with trust=True. A recipe
            that somebody else wrote could name any function of any package.
    Raises:
        DataError: no such module, function or file; weights that do not fit; an untrusted file; everything that
            OutsidePredictor refuses.
    """
    if inputs is None:
        raise DataError(problem("what the module is called with is not said", "inputs",
                                "give a list of columns, or a mapping of its arguments to columns"))
    path = Path(model) if isinstance(model, str | Path) and Path(model).suffix in SUFFIXES else None
    if path is not None:
        if weights is not None or settings:
            raise DataError(problem(f"weights or settings beside {path.name}", "a file holds both already"))
        module = _load(path, trust)
    else:
        module = model if isinstance(model, torch.nn.Module) else _made(str(model), dict(settings or {}), trust)
        if weights is not None:
            _fill(module, found(weights, "weights as safetensors", (".safetensors",)))
    module = module.to(device)
    if path is None or path.suffix != ".pt2":
        module = module.eval()

    def score(batch: Any) -> np.ndarray:
        try:
            with torch.inference_mode():
                if isinstance(batch, dict):
                    answer = module(**{key: _tensor(key, one, device) for key, one in batch.items()})
                else:
                    answer = module(_tensor("matrix", batch, device))
        except (RuntimeError, TypeError, IndexError, AssertionError) as error:
            raise DataError(problem(f"the module cannot answer rows ({' '.join(str(error).split())[:200]})",
                                    "a module that takes what inputs gives, for any number of rows",
                                    "see that the columns, their order and their number fit")) from error
        return _numbers(answer, split)

    state = {key: one for key, one in module.state_dict().items() if isinstance(one, torch.Tensor)}
    own = digest_of(path, inputs) if path is not None else digest_json([
        str(model) if isinstance(model, str | Path) else str(module), dict(settings or {}), inputs,
        digest_arrays(*[text for key in sorted(state) for text in (key, _array(state[key]))]),
    ])
    label = path.stem if path is not None else str(model).partition(":")[2] if isinstance(model, str) else "torch"
    return OutsidePredictor(
        score, split, space=space, rows=named_or_matrix(inputs), name=name or label, digest=own, block=block,
        parameters=sum(one.numel() for one in state.values()), narrow_logits=narrow_logits,
    )


def _made(path: str, settings: dict[str, Any], trust: bool) -> torch.nn.Module:
    """The module behind `package.module:function`."""
    place, colon, attribute = path.partition(":")
    if not colon or not all(part.isidentifier() for part in [*place.split("."), attribute]):
        raise DataError(problem(f"{path!r} names no torch module", "package.module:function, or a .pt or .pt2 file"))
    if not trust:
        raise DataError(problem(f"{path} is imported and called, whatever it does, with your rights on this machine",
                                "a function that you wrote yourself or whose author you trust",
                                "trust=True (--trust, or trust: true under teacher) runs it"))
    try:
        package = importlib.import_module(place)
    except ImportError as error:
        raise DataError(problem(f"{place!r} cannot be imported ({error})", "a module that Python finds",
                                "install it, or name its folder in PYTHONPATH")) from error
    if not hasattr(package, attribute):
        raise DataError(problem(f"{place} has no {attribute!r}{nearest(attribute, vars(package))}",
                                "a function or class that makes a torch module"))
    made = getattr(package, attribute)
    if not isinstance(made, torch.nn.Module):
        try:
            made = made(**settings)
        except TypeError as error:
            raise DataError(problem(f"{path} cannot be called with {settings} ({error})", "settings that it takes")) \
                from error
    if not isinstance(made, torch.nn.Module):
        raise DataError(problem(f"{path} made a {type(made).__name__}", "a torch.nn.Module"))
    return made


def _fill(module: torch.nn.Module, path: Path) -> None:
    try:
        state = load_file(path)
    except SafetensorError as error:
        raise DataError(problem(f"{path.name} cannot be read ({error})", "a safetensors file")) from error
    try:
        module.load_state_dict(state)
    except RuntimeError as error:
        raise DataError(problem(f"{path.name} does not fit the module ({' '.join(str(error).split())[:300]})",
                                "every weight of the module, with its shape")) from error


def _load(path: Path, trust: bool) -> Any:
    found(path, "a TorchScript or torch.export file")
    if not trust:
        raise DataError(problem(f"{path.name} holds pickles, and {RISK}",
                                "a file that you made yourself or whose maker you trust",
                                "trust=True reads it all the same; better: give package.module:function with "
                                "weights in safetensors, or ONNX"))
    try:
        if path.suffix == ".pt2":
            return torch.export.load(path).module()
        return torch.jit.load(str(path), map_location="cpu")
    except Exception as error:  # both readers raise their own, Python's and zip's errors
        raise DataError(problem(f"{path.name} cannot be read ({' '.join(str(error).split())[:200]})",
                                "torch.jit.save writes .pt, torch.export.save writes .pt2",
                                "a state_dict alone is no model: save it as safetensors beside its Python path")) \
            from error


def _tensor(name: str, values: np.ndarray, device: str) -> torch.Tensor:
    if values.dtype == object:
        raise DataError(problem(f"argument {name!r} is given text", "numbers", f"write {name}: encoded:FEATURE"))
    whole = values.dtype.kind in "iu"
    return torch.from_numpy(np.ascontiguousarray(values, dtype=np.int64 if whole else np.float32)).to(device)


def _array(tensor: torch.Tensor) -> np.ndarray:
    tensor = tensor.detach().cpu()
    return (tensor.float() if tensor.dtype == torch.bfloat16 else tensor).numpy()


def _numbers(answer: Any, split: RowSplit) -> np.ndarray:
    """[n, O] from one tensor, a tuple of them in the order of the heads, or {head: tensor}."""
    if isinstance(answer, dict):
        names = [head.name for head in split.heads]
        if sorted(answer) != sorted(names):
            raise DataError(problem(f"the module answers {', '.join(map(str, answer))}", f"heads {', '.join(names)}"))
        answer = [answer[one] for one in names]
    parts = answer if isinstance(answer, list | tuple) else [answer]
    if not all(isinstance(one, torch.Tensor) for one in parts):
        raise DataError(problem(f"the module answers {type(answer).__name__}", "a tensor [n, O] or one per head"))
    if len(parts) == 1:
        return _array(parts[0])
    return np.concatenate([_array(one).reshape(len(one), -1) for one in parts], axis=1)
