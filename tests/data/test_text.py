from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from distilrec.data.text import encode_texts, encoder_digest, find_encoder, reduce_dimension
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


def test_pca_by_hand():
    rows = np.array([[3, 4, 0], [-3, -4, 0], [0, 0, 0], [0, 0, 1], [0, 0, -1]], dtype=np.float32)
    reduced, kept = reduce_dimension(rows, 1)
    np.testing.assert_allclose(reduced[:, 0], [5, -5, 0, 0, 0], atol=1e-5)
    assert kept == pytest.approx(50 / 52)


def test_uncentered_keeps_dot_products():
    rows = (
        np.random.default_rng(0).normal(size=(50, 3)).astype(np.float32)
        @ np.random.default_rng(1).normal(size=(3, 9)).astype(np.float32)
        + 2
    )
    reduced, kept = reduce_dimension(rows, 4, center=False)
    np.testing.assert_allclose(reduced @ reduced.T, rows @ rows.T, rtol=1e-4, atol=1e-3)
    assert kept == pytest.approx(1)


@settings(max_examples=50)
@given(arrays(np.float32, (7, 4), elements=st.floats(-5, 5, width=16)), st.integers(1, 4))
def test_pca_agrees_with_svd(rows, dim):
    reduced, kept = reduce_dimension(rows, dim)
    filled = rows.any(axis=1)
    assert not reduced[~filled].any()
    assert 0 <= kept <= 1 + 1e-9
    if filled.any():
        centered = rows[filled].astype(np.float64) - rows[filled].mean(axis=0, dtype=np.float64)
        singular = np.linalg.svd(centered, compute_uv=False)
        expected = np.zeros(dim)
        expected[: min(dim, len(singular))] = singular[:dim]
        np.testing.assert_allclose(np.linalg.norm(reduced, axis=0), expected, atol=1e-3)


def test_pca_refuses_what_it_cannot_do():
    with pytest.raises(DataError, match="dim 5"):
        reduce_dimension(np.ones((2, 4)), 5)
    with pytest.raises(DataError, match="NaN or infinity"):
        reduce_dimension(np.full((2, 4), np.nan), 2)
    assert reduce_dimension(np.zeros((2, 4)), 2)[0].shape == (2, 2)
