from __future__ import annotations

import numpy as np
import pytest

from distilrec.data.text import encode_texts, encoder_digest, find_encoder
from distilrec.errors import DataError

TEXTS = [
    "red nail polish",
    None,
    "blue nail polish",
    "garden hose, 15 m, with three brass nozzles",
    " ",
    "red nail polish",
]
MINILM = "all-MiniLM-L6-v2"


@pytest.fixture(scope="module")
def vectors(tmp_path_factory):
    cache = tmp_path_factory.mktemp("cache")
    return encode_texts(TEXTS, MINILM, cache, precision="float32", batch_size=2), cache


def test_meaning_order_and_null_texts(vectors):
    found, _ = vectors
    assert found.shape == (6, 384)
    assert found.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(found, axis=1), [1, 0, 1, 1, 0, 1], atol=1e-5)
    np.testing.assert_array_equal(found[0], found[5])
    assert found[0] @ found[2] > 0.6 > 0.4 > found[0] @ found[3]


def test_agrees_with_a_plain_second_implementation(vectors):
    import torch
    from transformers import AutoModel, AutoTokenizer

    folder = find_encoder(MINILM)
    tokenizer, model = AutoTokenizer.from_pretrained(folder), AutoModel.from_pretrained(folder).eval()
    for row in (0, 3):
        with torch.no_grad():
            hidden = model(**tokenizer(TEXTS[row], return_tensors="pt")).last_hidden_state[0]
        mean = hidden.mean(dim=0)
        np.testing.assert_allclose(vectors[0][row], (mean / mean.norm()).numpy(), atol=1e-5)


def test_half_precision_is_close(vectors):
    half = encode_texts(TEXTS, MINILM, precision="bfloat16")
    assert ((half * vectors[0]).sum(axis=1)[[0, 2, 3, 5]] > 0.999).all()


def test_the_cache_is_by_content(vectors):
    found, cache = vectors
    (file,) = cache.iterdir()
    marked = np.zeros_like(found)
    with file.open("wb") as handle:
        np.save(handle, marked)
    np.testing.assert_array_equal(encode_texts(TEXTS, MINILM, cache, precision="float32"), marked)  # read, not computed
    file.write_bytes(b"damaged")
    np.testing.assert_allclose(encode_texts(TEXTS, MINILM, cache, precision="float32"), found, atol=1e-5)
    encode_texts(TEXTS[:1], MINILM, cache, precision="float32")
    assert len(list(cache.iterdir())) == 2


def test_the_digest_of_an_encoder_sees_every_file(tmp_path):
    (tmp_path / "config.json").write_text("{}")
    before = encoder_digest(tmp_path)
    (tmp_path / "model.safetensors").write_bytes(b"1")
    assert encoder_digest(tmp_path) != before


def test_missing_encoders(tmp_path, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(DataError, match="'no-such/encoder' is not here and could not be fetched"):
        encode_texts(["x"], "no-such/encoder")
    with pytest.raises(DataError, match=r"has no config.json"):
        encode_texts(["x"], tmp_path)
    (tmp_path / "config.json").write_text('{"model_type": "bert"}')
    with pytest.raises(DataError, match="cannot be loaded"):
        encode_texts(["x"], tmp_path)
    with pytest.raises(DataError, match="precision 'int4'"):
        encode_texts(["x"], MINILM, precision="int4")
