"""A trained torch model as a ranker that can be saved, loaded and asked: teacher and student alike."""

from __future__ import annotations

import inspect
import itertools
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from distilrec.errors import RecipeError, nearest, problem
from distilrec.files import atomic_folder, digest_arrays, digest_file, write_json
from distilrec.models import model_class
from distilrec.models.histories import pad
from distilrec.models.layer_states import layer_shape, layer_states
from distilrec.models.saved import read_saved
from distilrec.models.sensitivity import sensitivity
from distilrec.types import Histories, Split

__all__ = ["Trained", "create", "parameters_read"]




@dataclass(eq=False)
class Trained:
    """A torch model with its name, its constructor's settings, and how it was made."""

    name: str
    model: Any  # nn.Module with the sequence-model contract
    architecture: str
    settings: dict[str, Any]  # constructor arguments, content excluded
    split_digest: str
    training: dict[str, Any] = field(default_factory=dict)  # seconds, steps, best, curve, losses, settings
    device: str = "cpu"
    content: np.ndarray | None = None  # float32 [I, C], the item content it was given; not saved with it

    def __repr__(self) -> str:
        valid = self.training.get("valid", {})
        return f"Trained({self.name!r}, {self.architecture}, {self.parameters:,} parameters, valid={valid})"

    @property
    def parameters(self) -> int:
        """Every number the model reads to answer, frozen tables included."""
        return parameters_read(self.model)

    @property
    def digest(self) -> str:
        """Changes with any weight."""
        weights = self.model.state_dict()
        return digest_arrays(*(weights[name].detach().cpu().numpy() for name in sorted(weights)))

    @property
    def score_scale(self) -> float:
        """What training multiplied the dot product with: only so scaled are the scores logits."""
        return float(self.training.get("settings", {}).get("score_scale", 1.0))

    @torch.inference_mode()
    def vectors(self, histories: Histories) -> np.ndarray:
        """float32 [B, D], the query vectors after the given histories."""
        net = self.model.eval()
        items, lengths = pad(histories, net.max_length, net.n_items)
        users = histories.users if net.uses_users else None
        arrays = [torch.as_tensor(a, device=self.device) for a in (items, lengths)]
        known = None if users is None else torch.as_tensor(users, device=self.device)
        return net.last(*arrays, known).float().cpu().numpy()

    @torch.inference_mode()
    def scores(self, histories: Histories) -> np.ndarray:
        """float32 [B, I], the logits of the softmax that training fitted; rows of like length are computed together."""
        table = self.model.eval().item_vectors().float()
        bias = self.model.item_bias()
        out = np.empty((len(histories), self.model.n_items), dtype=np.float32)
        order = np.argsort(histories.lengths, kind="stable")
        for begin in range(0, len(order), 256):
            rows = order[begin : begin + 256]
            part = Histories.of([histories.items[histories.offsets[r] : histories.offsets[r + 1]] for r in rows],
                                histories.users[rows])
            scores = torch.as_tensor(self.vectors(part), device=self.device) @ table.T
            out[rows] = (scores if bias is None else scores + bias).mul(self.score_scale).cpu().numpy()
        return out

    @torch.inference_mode()
    def pair_scorer(self) -> Callable[[Histories, np.ndarray], np.ndarray]:
        """(Histories, items int [B, n], -1 for none) -> float32 [B, n], as `scores` but of these items only; the item
        table is computed here, once."""
        table, bias = self.item_vectors(), self.model.item_bias()
        of_item = np.zeros(len(table), np.float32) if bias is None else bias.detach().float().cpu().numpy()

        def scored(histories: Histories, items: np.ndarray) -> np.ndarray:
            rows = np.maximum(items, 0)
            scores = np.einsum("bd,bnd->bn", self.vectors(histories), table[rows])
            return (scores + of_item[rows]) * np.float32(self.score_scale)

        return scored

    @property
    def per_user(self) -> bool:
        """Whether all decisions of a user get one answer."""
        return not self.model.needs_history and self.model.uses_users

    @property
    def cloze(self) -> bool:
        """Whether the model fills gaps: it answers at a mask behind a whole history, not along it."""
        return bool(getattr(self.model, "cloze", False))

    @property
    def step_scores(self) -> Any:
        """Histories -> float32 [sum of lengths, I]: the answer after each event of each history, in one pass over the
        history; None for a model that fills gaps.

        A history longer than the model's is read in windows that overlap by half, so that every answer beyond the
        first window still sees at least half of `max_length` events.
        """
        return None if self.cloze else self._step_scores

    @property
    def step_vectors(self) -> Any:
        """Histories -> float32 [sum of lengths, D]: as `step_scores`, the query vectors themselves."""
        return None if self.cloze else self._step_vectors

    @torch.inference_mode()
    def _step_scores(self, histories: Histories) -> np.ndarray:
        if self.per_user:
            return np.repeat(self.scores(histories), histories.lengths, axis=0)
        if not self.model.needs_history:
            return self.scores(_prefixes(histories))
        table, bias = self.model.eval().item_vectors().float(), self.model.item_bias()

        def scored(queries: torch.Tensor) -> torch.Tensor:
            scores = queries @ table.T
            return (scores if bias is None else scores + bias).mul(self.score_scale)

        return self._in_steps(histories, (self.model.n_items,), scored)

    @torch.inference_mode()
    def _step_vectors(self, histories: Histories) -> np.ndarray:
        if self.per_user:
            return np.repeat(self.vectors(histories), histories.lengths, axis=0)
        if not self.model.needs_history:
            return self.vectors(_prefixes(histories))
        return self._in_steps(histories, (self.model.item_vectors().shape[1],), lambda queries: queries)

    def _in_steps(self, histories: Histories, shape: tuple[int, ...], answer: Any, ask: Any = None) -> np.ndarray:
        """float32 [sum of lengths, *shape]: what `answer` makes of what `ask`, by default the query, gives after each
        event."""
        net = self.model.eval()
        ask = ask or net.query
        starts, sizes, kept = _windows(histories, net.max_length)
        out = np.empty((len(histories.items), *shape), dtype=np.float32)
        order = np.argsort(sizes, kind="stable")
        for begin in range(0, len(order), 64):
            rows = order[begin : begin + 64]
            column = np.arange(sizes[rows].max())
            valid = column < sizes[rows][:, None]
            source = np.where(valid, starts[rows][:, None] + column, 0)
            items = np.where(valid, histories.items[source], net.n_items).astype(np.int64)
            said = ask(torch.as_tensor(items, device=self.device), torch.as_tensor(sizes[rows], device=self.device))
            wanted = valid & (column >= kept[rows][:, None])
            out[source[wanted]] = answer(said[torch.as_tensor(wanted, device=self.device)].float()).cpu().numpy()
        return out

    @property
    def layers(self) -> Any:
        """Histories of one event or more -> float32 [B, S, H]: the state after each layer at the position that answers,
        lowest first; None where the model has no layers (see models.layer_states)."""
        return self._layers if layer_shape(self.model) else None

    @property
    def step_layers(self) -> Any:
        """Histories -> float32 [sum of lengths, S, H]: as `step_scores`, the states after each layer."""
        return None if self.cloze or not layer_shape(self.model) else self._step_layers

    @torch.inference_mode()
    def _layers(self, histories: Histories) -> np.ndarray:
        items, lengths, at, _ = self._asked(histories)
        states = layer_states(self.model.eval(), items, lengths)
        return states[torch.arange(len(at), device=at.device), at].float().cpu().numpy()

    @torch.inference_mode()
    def _step_layers(self, histories: Histories) -> np.ndarray:
        return self._in_steps(histories, layer_shape(self.model) or (), lambda states: states,
                              lambda items, lengths: layer_states(self.model, items, lengths))

    @property
    def attention(self) -> Any:
        """Histories -> float32 [B, max_length]: where the last layer looks after the latest event, heads averaged, by
        steps back from it; None where the model has no attention."""
        return self._attention if hasattr(self.model, "attention") else None

    @torch.inference_mode()
    def _attention(self, histories: Histories) -> np.ndarray:
        items, lengths, at, events = self._asked(histories)
        return self._back(self.model.eval().attention(items, lengths, at), events)

    @property
    def sensitivity(self) -> Any:
        """(Histories, items int [B]) -> float32 [B, max_length]: how the score of each item depends on each past event,
        by steps back from the latest (see models.sensitivity); None where events do not enter one by one."""
        return self._sensitivity if self.model.needs_history else None

    def _sensitivity(self, histories: Histories, best: np.ndarray) -> np.ndarray:
        items, lengths, at, events = self._asked(histories)
        target = torch.as_tensor(best, device=self.device).long()
        return self._back(sensitivity(self.model.eval(), items, lengths, at, target), events)

    def _asked(self, histories: Histories) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
        """(items [B, L], their numbers [B], the position that answers [B], numbers of events [B])."""
        items, lengths = (torch.as_tensor(a, device=self.device)
                          for a in pad(histories, self.model.max_length, self.model.n_items))
        if self.cloze:
            return self.model.masked(items, lengths), lengths + 1, lengths, lengths
        return items, lengths, (lengths - 1).clamp(min=0), lengths

    def _back(self, values: torch.Tensor, lengths: torch.Tensor) -> np.ndarray:
        """[B, L] by position -> [B, max_length] by steps back from the last of `lengths` events."""
        place = lengths[:, None] - 1 - torch.arange(self.model.max_length, device=values.device)
        back = torch.where(place >= 0, values.gather(1, place.clamp(min=0)), 0.0)
        return back.detach().float().cpu().numpy()

    @torch.inference_mode()
    def item_vectors(self) -> np.ndarray:
        """float32 [I, D], the table that scores are taken against."""
        return self.model.eval().item_vectors().float().cpu().numpy()

    def save(self, folder: Path) -> None:
        """Write weights (safetensors) and description (JSON); the folder appears whole."""
        with atomic_folder(folder) as temporary:
            weights = {name: tensor.detach().cpu().contiguous() for name, tensor in self.model.state_dict().items()}
            save_file(weights, temporary / "model.safetensors")
            write_json(temporary / "model.json", {
                "schema": 1, "name": self.name, "architecture": self.architecture, "settings": self.settings,
                "split_digest": self.split_digest, "training": self.training, "parameters": self.parameters,
                "digest": digest_file(temporary / "model.safetensors"),
            })

    @classmethod
    def load(cls, folder: Path, split: Split | None = None, *, device: str = "cpu") -> Trained:
        """Read a saved model; with a `split`, refuse one that was trained on other data.

        Raises:
            KnowledgeError: changed weights, or another split.
        """
        return read_saved(folder, split, lambda said, weights: cls._read(said, weights, device))

    @classmethod
    def _read(cls, meta: dict[str, Any], path: Path, device: str) -> Trained:
        weights = load_file(path)
        settings = dict(meta["settings"])
        if "table.content" in weights:
            settings["content"] = np.zeros(tuple(weights["table.content"].shape), dtype=np.float32)
        if "graph" in weights:
            settings["graph"] = weights["graph"].numpy()
        model = model_class(meta["architecture"])(**settings)
        model.load_state_dict(weights)
        return cls(meta["name"], model.to(device).eval(), meta["architecture"], meta["settings"],
                   meta["split_digest"], meta["training"], device)


def _prefixes(histories: Histories) -> Histories:
    """The history up to and with each event, in turn: what a model of bags, which has no positions, is asked."""
    return Histories.of([histories.items[a:stop] for a, b in itertools.pairwise(histories.offsets.tolist())
                         for stop in range(a + 1, b + 1)], np.repeat(histories.users, histories.lengths))


def _windows(histories: Histories, longest: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(start in the flat items, size, first position to keep) of windows that cover every history once."""
    windows = []
    for start, stop in zip(histories.offsets[:-1], histories.offsets[1:], strict=True):
        done = start
        while done < stop:
            begin = max(start, min(done - longest // 2, stop - longest)) if done > start else start
            end = min(begin + longest, stop)
            windows.append((begin, end - begin, done - begin))
            done = end
    return tuple(np.array(windows, dtype=np.int64).reshape(-1, 3).T)  # type: ignore[return-value]


def create(
    architecture: str, split: Split, settings: dict[str, Any], *, content: np.ndarray | None = None, seed: int = 0
) -> tuple[nn.Module, dict[str, Any]]:
    """(a fresh model, its complete constructor settings), drawn from `seed`.

    Raises:
        RecipeError: a setting that the architecture does not have.
    """
    cls = model_class(architecture)
    parameters = inspect.signature(cls.__init__).parameters
    known = [name for name in parameters if name not in ("self", "n_items", "n_users", "content", "graph")]
    for name in settings:
        if name not in known:
            raise RecipeError(problem(f"{architecture} has no setting {name!r}{nearest(name, known)}",
                                      ", ".join(known)))
    full = {"n_items": split.n_items, **settings}
    if "n_users" in parameters:
        full["n_users"] = split.n_users
    data: dict[str, Any] = {} if content is None else {"content": content}
    if "graph" in parameters:  # what the data decide, and not kept among the settings: it is saved with the weights
        data["graph"] = np.stack(split.events("train")[:2])
    torch.manual_seed(seed)
    return cls(**full, **data), full


def parameters_read(model: nn.Module) -> int:
    """Numbers in parameters and buffers, less what a part of the model says no answer needs (`unread`)."""
    unread = sum(int(getattr(part, "unread", 0)) for part in model.modules())
    return sum(t.numel() for t in model.state_dict().values()) - unread
