"""A trained pointwise model that can be saved, loaded and asked: teacher and student alike."""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, get_type_hints

import numpy as np
import torch
from pydantic import ConfigDict, TypeAdapter, ValidationError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from distilrec.errors import DataError, RecipeError, nearest, problem
from distilrec.features import Feature
from distilrec.files import (
    atomic_folder,
    digest_arrays,
    digest_file,
    digest_json,
    write_json,
)
from distilrec.models import row_model_class, row_model_settings
from distilrec.models.coupling import couple
from distilrec.models.fields import inputs_of
from distilrec.models.saved import read_saved
from distilrec.models.trained import parameters_read
from distilrec.types_rows import Head, Outputs, RowSplit

__all__ = ["TrainedRows", "create_rows", "features_read"]

BLOCK = 4096  # rows that are answered together


@dataclass(eq=False)
class TrainedRows:
    """A torch model with its name, its constructor's settings, what it reads and answers, and how it was made."""

    name: str
    model: Any  # nn.Module of models.ROW_MODELS
    architecture: str
    settings: dict[str, Any]  # constructor arguments, fields and heads excluded
    features: tuple[Feature, ...]  # those it reads, in the order it was made with
    heads: tuple[Head, ...]
    split_digest: str
    training: dict[str, Any] = field(default_factory=dict)  # seconds, steps, best, curve, losses, settings
    device: str = "cpu"
    # calibration: answers are scale * coupled + shift, float32 [O] each; None becomes ones and zeros
    scale: np.ndarray | None = None
    shift: np.ndarray | None = None

    def __post_init__(self) -> None:
        size = Outputs(self.heads).size
        self.scale = np.ones(size, np.float32) if self.scale is None else np.asarray(self.scale, dtype=np.float32)
        self.shift = np.zeros(size, np.float32) if self.shift is None else np.asarray(self.shift, dtype=np.float32)
        for name, array in (("scale", self.scale), ("shift", self.shift)):
            if array.shape != (size,) or not np.isfinite(array).all():
                raise DataError(problem(f"a {name} {array.tolist()} for {size} outputs", "one finite number for each"))

    @property
    def outputs(self) -> Outputs:
        return Outputs(self.heads)

    def __repr__(self) -> str:
        valid = self.training.get("valid", {})
        return f"TrainedRows({self.name!r}, {self.architecture}, {self.parameters:,} parameters, valid={valid})"

    @property
    def parameters(self) -> int:
        """Every number the model reads to answer."""
        return parameters_read(self.model)

    @property
    def digest(self) -> str:
        """Changes with any weight, with the calibration, and with what it reads and answers."""
        weights = self.model.state_dict()
        return digest_arrays(
            digest_json([self.architecture, self.settings, [one.to_json() for one in self.features],
                         [asdict(head) for head in self.heads]]),
            np.asarray(self.scale), np.asarray(self.shift),
            *(weights[name].detach().cpu().numpy() for name in sorted(weights)),
        )

    def predict(self, split: RowSplit, rows: np.ndarray) -> np.ndarray:
        """float32 [n, O]: logits (of both, for a head `after` another) and values.

        Raises:
            DataError: the features or the heads of the split are not those of the model.
        """
        self._check(split)
        out = np.empty((len(rows), len(np.asarray(self.shift))), dtype=np.float32)
        for block, answers in self._blocks(split, rows):
            out[block] = couple(answers["scores"].float(), self.heads).cpu().numpy()
        return out * np.asarray(self.scale) + np.asarray(self.shift)

    def hidden(self, split: RowSplit, rows: np.ndarray) -> np.ndarray:
        """float32 [n, H]: the last hidden layer.

        Raises:
            RecipeError: the architecture has none. DataError: as in predict.
        """
        self._check(split)
        parts = []
        for _, answers in self._blocks(split, rows):
            if "hidden" not in answers:
                raise RecipeError(problem(f"{self.architecture} has no hidden layer", "a model with one",
                                          "leave the hint out, or take another model"))
            parts.append(answers["hidden"].float().cpu().numpy())
        return np.concatenate(parts)

    @torch.inference_mode()
    def _blocks(self, split: RowSplit, rows: np.ndarray) -> Iterator[tuple[slice, dict[str, Tensor]]]:
        net = self.model.eval()
        for begin in range(0, max(1, len(rows)), BLOCK):  # no rows are one empty block, which knows its width
            block = slice(begin, min(begin + BLOCK, len(rows)))
            yield block, net(inputs_of(self.features, split.columns, rows[block], self.device))

    def _check(self, split: RowSplit) -> None:
        other = [one.name for one in self.features if split.features.get(one.name) != one]
        if other:
            raise DataError(problem(f"{', '.join(other)}: missing in this table, or fitted on other rows",
                                    "the features the model was trained on", "prepare the table with those features"))
        if split.heads != self.heads:
            raise DataError(problem(f"the table has the heads {', '.join(head.name for head in split.heads)}",
                                    ", ".join(head.name for head in self.heads), "use the split the model came from"))

    def save(self, folder: Path) -> None:
        """Write weights (safetensors) and description (JSON); the folder appears whole."""
        with atomic_folder(folder) as temporary:
            weights = {name: tensor.detach().cpu().contiguous() for name, tensor in self.model.state_dict().items()}
            save_file(weights, temporary / "model.safetensors")
            write_json(temporary / "model.json", {
                "schema": 1, "name": self.name, "architecture": self.architecture, "settings": self.settings,
                "features": [one.to_json() for one in self.features],
                "heads": [{**asdict(head), "classes": list(head.classes)} for head in self.heads],
                "scale": np.asarray(self.scale).tolist(), "shift": np.asarray(self.shift).tolist(),
                "split_digest": self.split_digest,
                "training": self.training, "parameters": self.parameters,
                "digest": digest_file(temporary / "model.safetensors"),
            })

    @classmethod
    def load(cls, folder: Path, split: RowSplit | None = None, *, device: str = "cpu") -> TrainedRows:
        """Read a saved model; with a `split`, refuse one that was trained on other data.

        Raises:
            KnowledgeError: changed weights, or another split.
        """
        return read_saved(folder, split, lambda said, weights: cls._read(said, weights, device))

    @classmethod
    def _read(cls, meta: dict[str, Any], path: Path, device: str) -> TrainedRows:
        features = tuple(Feature.from_json(one) for one in meta["features"])
        heads = tuple(Head(**{**one, "classes": tuple(one["classes"])}) for one in meta["heads"])
        model = row_model_class(meta["architecture"])(features, Outputs(heads).sizes, **meta["settings"])
        model.load_state_dict(load_file(path))
        return cls(meta["name"], model.to(device).eval(), meta["architecture"], meta["settings"], features, heads,
                   meta["split_digest"], meta["training"], device, np.array(meta["scale"], dtype=np.float32),
                   np.array(meta["shift"], dtype=np.float32))


def features_read(split: RowSplit, features: Sequence[str] | None = None) -> tuple[Feature, ...]:
    """The features a model may read, in the order of the split; None means all.

    Raises:
        RecipeError: a name that the split does not have, or no name at all.
    """
    if features is None:
        return tuple(split.features.values())
    for name in features:
        if name not in split.features:
            raise RecipeError(problem(f"feature {name!r} is unknown{nearest(name, split.features)}",
                                      ", ".join(split.features)))
    if not features:
        raise RecipeError(problem("a model that reads no feature", ", ".join(split.features)))
    return tuple(one for name, one in split.features.items() if name in features)


def create_rows(
    architecture: str, split: RowSplit, settings: dict[str, Any], features: Sequence[str] | None = None, seed: int = 0,
) -> tuple[nn.Module, dict[str, Any]]:
    """(a fresh model, its complete settings as JSON has them), drawn from `seed`; it reads
    `features_read(split, features)`.

    Raises:
        RecipeError: a setting that the architecture does not have or that has a wrong type, or an unknown feature.
    """
    cls = row_model_class(architecture)
    known = row_model_settings(architecture)
    types = get_type_hints(cls.__init__)
    for name, value in settings.items():
        if name not in known:
            raise RecipeError(problem(f"{architecture} has no setting {name!r}{nearest(name, known)}",
                                      ", ".join(known)))
        try:
            TypeAdapter(types[name], config=ConfigDict(strict=True)).validate_python(value)
        except ValidationError as error:
            raise RecipeError(problem(f"{architecture}: {name} = {value!r}", error.errors()[0]["msg"])) from None
    defaults = inspect.signature(cls.__init__).parameters
    full = {name: settings.get(name, defaults[name].default) for name in known}
    full = {name: list(value) if isinstance(value, tuple) else value for name, value in full.items()}
    torch.manual_seed(seed)
    return cls(features_read(split, features), split.outputs.sizes, **full), full
