"""Checkpoints: safetensors and JSON, written whole or not at all; no pickle anywhere."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import nn

from distilrec.errors import TrainingError, problem
from distilrec.files import atomic_file, read_object, recover, well_formed

__all__ = ["Resumed", "finished_as", "load_checkpoint", "save_checkpoint"]

NAME = "checkpoint.safetensors"


@dataclass(frozen=True, eq=False)
class Resumed:
    state: dict[str, Any]
    best_weights: dict[str, torch.Tensor]


def save_checkpoint(
    folder: Path, model: nn.Module, optimizer: torch.optim.Optimizer, scheduler: Any,
    best: dict[str, torch.Tensor], state: dict[str, Any], identity: dict[str, Any],
) -> None:
    """Everything a later process needs to go on as if it had never stopped: one file, so it cannot be half new."""
    inner = optimizer.state_dict()
    tensors = {f"model/{name}": tensor for name, tensor in model.state_dict().items()}
    tensors |= {f"best/{name}": tensor for name, tensor in best.items()}
    for index, entries in inner["state"].items():
        for name, value in entries.items():
            tensors[f"optimizer/{index}/{name}"] = torch.as_tensor(value)
    groups = [{k: v for k, v in group.items() if _plain(v)} for group in inner["param_groups"]]
    meta = {"state": state, "identity": identity, "groups": groups,
            "scheduler": {k: v for k, v in scheduler.state_dict().items() if _plain(v)}}
    with atomic_file(folder / NAME) as temporary:
        save_file({name: tensor.detach().cpu().contiguous().clone() for name, tensor in tensors.items()},
                  temporary, metadata={"distilrec": json.dumps(meta)})


def load_checkpoint(
    folder: Path, model: nn.Module, optimizer: torch.optim.Optimizer, scheduler: Any, identity: dict[str, Any]
) -> Resumed | None:
    """Put a saved state back in place; None where there is none.

    Raises:
        TrainingError: the checkpoint is of another data set, recipe or architecture, or damaged.
    """
    path = folder / NAME
    if not path.exists():
        return None
    try:
        with well_formed(path, TrainingError), safe_open(path, framework="pt") as file:
            meta = json.loads(file.metadata()["distilrec"])
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except SafetensorError as error:
        raise TrainingError(problem(f"{path} cannot be read ({error})", "a whole checkpoint",
                                    "delete it; training then starts anew")) from error
    if meta["identity"] != json.loads(json.dumps(identity)):
        changed = [key for key in identity if meta["identity"].get(key) != json.loads(json.dumps(identity[key]))]
        raise TrainingError(problem(f"{path} is a checkpoint of another run ({', '.join(changed)} differ)",
                                    "the same data, settings and model", "choose another --out, or delete the folder"))
    model.load_state_dict(_under(tensors, "model/"))
    entries: dict[int, dict[str, torch.Tensor]] = {}
    for name, tensor in _under(tensors, "optimizer/").items():
        index, field = name.split("/")
        entries.setdefault(int(index), {})[field] = tensor
    current = optimizer.state_dict()["param_groups"]
    groups = [{**now, **saved} for now, saved in zip(current, meta["groups"], strict=True)]
    optimizer.load_state_dict({"state": entries, "param_groups": groups})
    scheduler.load_state_dict({**scheduler.state_dict(), **meta["scheduler"]})
    return Resumed(meta["state"], _under(tensors, "best/"))


def finished_as(folder: Path, identity: str) -> bool:
    """Whether a finished model of just these data, settings and knowledge stands there."""
    recover(folder)
    path = folder / "model.json"
    return path.exists() and read_object(path, {"training": dict})["training"].get("identity") == identity


def _under(tensors: dict[str, torch.Tensor], prefix: str) -> dict[str, torch.Tensor]:
    return {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}


def _plain(value: Any) -> bool:
    if isinstance(value, list | tuple):
        return all(_plain(entry) for entry in value)
    return value is None or isinstance(value, bool | int | float | str)
