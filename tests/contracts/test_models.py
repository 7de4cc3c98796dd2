"""One suite for every model: a new row of MODELS or BASELINES is tested by standing there."""

from __future__ import annotations

import inspect
import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from core_world import checkerboard, quick, split_of, walk_split
from distilrec.errors import DistilrecError, KnowledgeError, RecipeError, TrainingError
from distilrec.models import BASELINES, MODELS, item_knn, model_class
from distilrec.models.histories import pad
from distilrec.models.item_knn import ItemKNN
from distilrec.models.items import CONTENT_USES, ItemTable
from distilrec.models.layer_states import layer_shape, layer_states
from distilrec.models.trained import Trained, create
from distilrec.training.train import train
from distilrec.training.validate import validate_ranker
from distilrec.types import Histories, Ranker, Split

SMALL = {"dim": 16, "dropout": 0.1, "max_length": 8}
SEQUENCE = [name for name in MODELS if model_class(name).needs_history]
CLOZE = [name for name in SEQUENCE if getattr(model_class(name), "cloze", False)]
ALONG = [name for name in SEQUENCE if name not in CLOZE]  # an answer after each event
LAYERED = [name for name in MODELS if hasattr(model_class(name), "attention")]  # blocks that refine one state
BY_USER = [name for name in MODELS if model_class(name).uses_users]


@pytest.fixture(scope="module")
def board() -> Split:
    return checkerboard()


@pytest.fixture(scope="module")
def trained(board: Split) -> dict[str, Ranker]:
    """Every model, trained on the checkerboard."""
    rankers: dict[str, Ranker] = {name: model_class(name).fit(board) for name in BASELINES}
    for name in MODELS:
        epochs = 25 if model_class(name).needs_history else 60
        rankers[name] = train(name, board, SMALL, quick(epochs=epochs, learning_rate=2e-2), metric="ndcg@10")
    return rankers


def fresh(name: str, split: Split, seed: int = 0, **settings: Any) -> Any:
    """An untrained model whose weights are large enough that every difference shows."""
    model, _ = create(name, split, {**SMALL, **settings}, seed=seed)
    with torch.no_grad():
        for weight in model.parameters():
            weight.add_(0.2 * torch.randn(weight.shape, generator=torch.Generator().manual_seed(seed)))
    return model.eval()


def padded(split: Split, sequences: list[list[int]], width: int | None = None) -> tuple[torch.Tensor, torch.Tensor]:
    items, lengths = pad(Histories.of(sequences), 8, split.n_items)
    if width is not None:
        items = np.pad(items, ((0, 0), (0, width - items.shape[1])), constant_values=split.n_items)
    return torch.as_tensor(items), torch.as_tensor(lengths)


def asked(name: str, users: list[int]) -> torch.Tensor | None:
    return torch.tensor(users, dtype=torch.int32) if name in BY_USER else None


@pytest.mark.req("B4")
@pytest.mark.parametrize("name", [*MODELS, *(name for name in BASELINES if name != "popularity")])
def test_the_withheld_diagonal_of_the_checkerboard_comes_first(
    name: str, board: Split, trained: dict[str, Ranker]
) -> None:
    queries = board.queries("test")
    histories = board.histories(queries)
    scores = trained[name].scores(histories)
    scores[np.repeat(np.arange(len(queries)), histories.lengths), histories.items] = -np.inf
    first = (scores.argmax(1) == board.targets(queries)[0]).mean()
    # GRU and transformer may be tempted by an item of the other parity now and then; half right by chance is 1 of 11
    assert first >= (0.95 if name in SEQUENCE else 0.99)


def test_popularity_knows_nothing_of_parity(board: Split, trained: dict[str, Ranker]) -> None:
    scores = trained["popularity"].scores(board.histories(board.queries("test")))
    assert (scores == board.train_counts).all()


@pytest.mark.parametrize("name", [*MODELS, *BASELINES])
def test_a_batch_scores_like_its_rows_one_by_one(name: str, board: Split, trained: dict[str, Ranker]) -> None:
    ranker = trained[name]
    histories = Histories.of([[1, 3, 5], [], [2], list(range(20)), [4, 4]], np.array([1, 7, -1, 3, 2]))
    together = ranker.scores(histories)
    assert together.dtype == np.float32
    assert together.shape == (5, board.n_items)
    for row in range(5):
        part = histories.items[histories.offsets[row] : histories.offsets[row + 1]]
        alone = ranker.scores(Histories.of([part], histories.users[row : row + 1]))
        np.testing.assert_allclose(together[row], alone[0], atol=1e-5)


@pytest.mark.parametrize("name", [*MODELS, *BASELINES])
def test_strange_histories_give_finite_scores(name: str, board: Split, trained: dict[str, Ranker]) -> None:
    nothing, nobody = Histories.of([[]]), Histories.of([])
    assert np.isfinite(trained[name].scores(nothing)).all()
    assert np.isfinite(trained[name].scores(Histories.of([[5] * 40]))).all()
    assert trained[name].scores(nobody).shape == (0, board.n_items)


@pytest.mark.parametrize("name", list(MODELS))
def test_an_item_id_beyond_the_catalog_is_refused(name: str, board: Split, trained: dict[str, Ranker]) -> None:
    with pytest.raises((IndexError, RuntimeError)):
        trained[name].scores(Histories.of([[board.n_items + 2]]))


@pytest.mark.parametrize("name", list(MODELS))
@pytest.mark.parametrize("content_use", [None, *CONTENT_USES])
@pytest.mark.req("B7")
def test_saved_and_loaded_scores_the_same(name: str, content_use: str | None, board: Split, tmp_path: Path) -> None:
    content = np.random.default_rng(1).normal(size=(board.n_items, 24)).astype(np.float32)
    more = {} if content_use is None else {"content_use": content_use}
    model = train(
        name,
        board,
        {**SMALL, **more, "bias": True},
        quick(epochs=1),
        content=None if content_use is None else content,
        folder=tmp_path / "m",
    )
    histories = board.histories(board.queries("test"))
    found = Trained.load(tmp_path / "m", board)
    assert np.array_equal(found.scores(histories), model.scores(histories))
    assert found.parameters == model.parameters
    assert found.digest == model.digest
    assert found.training == model.training
    assert found.settings == model.settings


@pytest.mark.parametrize("name", list(MODELS))
def test_a_saved_model_with_a_changed_byte_or_of_another_split_is_refused(
    name: str, board: Split, tmp_path: Path
) -> None:
    model, settings = create(name, board, SMALL)
    Trained("x", model, name, settings, board.digest).save(tmp_path)
    with pytest.raises(KnowledgeError, match="another data set or split"):
        Trained.load(tmp_path, walk_split())
    path = tmp_path / "model.safetensors"
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    with pytest.raises(KnowledgeError, match="has changed"):
        Trained.load(tmp_path, board)


def test_a_description_that_is_cut_off_is_named(board: Split, tmp_path: Path) -> None:
    model, settings = create("mf", board, SMALL)
    Trained("x", model, "mf", settings, board.digest).save(tmp_path)
    whole = (tmp_path / "model.json").read_text()
    for kept in (0, len(whole) // 2):
        (tmp_path / "model.json").write_text(whole[:kept])
        with pytest.raises(DistilrecError, match=r"model\.json is not JSON"):
            Trained.load(tmp_path, board)


@pytest.mark.parametrize("name", ALONG)
def test_last_is_query_at_the_last_position_for_every_length(name: str, board: Split) -> None:
    model = fresh(name, board)
    for length in range(1, 9):
        sequences = [np.random.default_rng(length).integers(0, board.n_items, length).tolist(), [3]]
        items, lengths = padded(board, sequences)
        query = model.query(items, lengths)
        assert query.shape == (2, length, 16)
        expected = query[torch.arange(2), lengths - 1]
        torch.testing.assert_close(model.last(items, lengths), expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("name", SEQUENCE)
@pytest.mark.parametrize("layers", [0, 1, 3])
def test_last_agrees_for_other_depths_and_a_wider_inside(name: str, layers: int, board: Split) -> None:
    if name == "gru4rec" and layers == 0:
        layers = 2
    model = fresh(name, board, layers=layers, hidden=24)
    items, lengths = padded(board, [[1, 2, 3, 4], [7], [5, 6]])
    if name in CLOZE:
        expected = model.query(model.masked(items, lengths), lengths + 1)[torch.arange(3), lengths]
    else:
        expected = model.query(items, lengths)[torch.arange(3), lengths - 1]
    torch.testing.assert_close(model.last(items, lengths), expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("name", list(MODELS))
def test_more_padding_on_the_right_changes_nothing(name: str, board: Split) -> None:
    model = fresh(name, board)
    sequences, users = [[1, 2, 3], [], [9]], asked(name, [0, -1, -1])
    short, lengths = padded(board, sequences)
    wide, _ = padded(board, sequences, width=8)
    torch.testing.assert_close(
        model.last(short, lengths, users), model.last(wide, lengths, users), atol=1e-6, rtol=1e-5
    )
    if model.needs_history:
        torch.testing.assert_close(model.query(short, lengths), model.query(wide, lengths)[:, :3], atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("name", ALONG)
def test_a_later_item_never_changes_an_earlier_query(name: str, board: Split) -> None:
    model = fresh(name, board)
    one, lengths = padded(board, [[1, 2, 3, 4, 5, 6]])
    two, _ = padded(board, [[1, 2, 3, 4, 9, 6]])
    before, after = model.query(one, lengths)[0], model.query(two, lengths)[0]
    torch.testing.assert_close(before[:4], after[:4], atol=1e-6, rtol=1e-5)
    assert (before[4] - after[4]).abs().max() > 1e-3
    assert (before[5] - after[5]).abs().max() > 1e-4


@pytest.mark.parametrize("name", CLOZE)
def test_last_is_query_at_a_mask_behind_the_history_for_every_length(name: str, board: Split) -> None:
    model = fresh(name, board)
    for length in range(1, 9):
        sequence = np.random.default_rng(length).integers(0, board.n_items, length).tolist()
        items, lengths = padded(board, [sequence, [3]])
        by_hand = torch.full((2, length + 1), board.n_items)
        by_hand[0] = torch.tensor([*sequence, board.n_items + 1])
        by_hand[1, :2] = torch.tensor([3, board.n_items + 1])
        assert torch.equal(model.masked(items, lengths), by_hand)
        expected = model.query(by_hand, lengths + 1)[torch.arange(2), lengths]
        torch.testing.assert_close(model.last(items, lengths), expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("name", CLOZE)
def test_a_gap_is_filled_from_both_sides(name: str, board: Split) -> None:
    model, gap = fresh(name, board), board.n_items + 1
    one, lengths = torch.tensor([[1, 2, gap, 4, 5, 6]]), torch.tensor([6])
    for changed in (0, 1, 3, 5):
        other = one.clone()
        other[0, changed] = 9
        assert (model.query(one, lengths) - model.query(other, lengths))[0, 2].abs().max() > 1e-3


@pytest.mark.parametrize("name", CLOZE)
def test_a_model_that_fills_gaps_has_no_answers_along_a_history(name: str, trained: dict[str, Ranker]) -> None:
    model: Any = trained[name]
    assert model.step_scores is None
    assert model.step_vectors is None


@pytest.mark.parametrize("name", [name for name in SEQUENCE if hasattr(model_class(name), "attention")])
def test_attention_is_a_share_of_what_stands_in_the_history(name: str, board: Split) -> None:
    model = Trained("x", fresh(name, board), name, {}, board.digest)
    looks = model.attention(Histories.of([[1, 2, 3], [4], [], list(range(12))]))
    assert looks.shape == (4, 8)
    assert (looks >= 0).all()
    np.testing.assert_allclose(looks[[0, 1, 3]].sum(1), 1.0, atol=1e-5)
    assert (looks[0, 3:] == 0).all()
    assert looks[1, 0] == pytest.approx(1.0, abs=1e-6)
    assert np.ptp(looks[3]) > 1e-3


@pytest.mark.req("C3")
@pytest.mark.parametrize("name", LAYERED)
@pytest.mark.parametrize("layers", [1, 3])
def test_the_states_of_the_layers_lead_to_the_answer(name: str, layers: int, board: Split) -> None:
    net = fresh(name, board, layers=layers, hidden=24)
    model = Trained("x", net, name, {}, board.digest)
    histories = Histories.of([[1, 2, 3], [4], [6, 7], list(range(12))])
    found = model.layers(histories)
    assert layer_shape(net) == (layers, 24)
    assert found.shape == (4, layers, 24)
    assert found.dtype == np.float32
    with torch.no_grad():  # what stands above the last layer is all that is missing
        answers = net.leave(net.norm(torch.as_tensor(found[:, -1]))).numpy()
    np.testing.assert_allclose(answers, model.vectors(histories), atol=1e-5, rtol=1e-4)
    for row in range(4):
        part = histories.items[histories.offsets[row] : histories.offsets[row + 1]]
        np.testing.assert_allclose(model.layers(Histories.of([part]))[0], found[row], atol=1e-5, rtol=1e-4)
    assert layers == 1 or np.abs(np.diff(found, axis=1)).max() > 1e-2, "every layer does something"


@pytest.mark.req("C3")
@pytest.mark.parametrize("name", LAYERED)
def test_the_states_after_each_event_are_those_of_each_prefix(name: str, board: Split) -> None:
    model = Trained("x", fresh(name, board), name, {}, board.digest)
    if name in CLOZE:
        assert model.step_layers is None
        return
    histories = Histories.of([[1, 2, 3, 9], [4]])
    prefixes = model.layers(Histories.of([[1], [1, 2], [1, 2, 3], [1, 2, 3, 9], [4]]))
    np.testing.assert_allclose(model.step_layers(histories), prefixes, atol=1e-5, rtol=1e-4)
    long = Histories.of([list(range(20))])  # in windows, of which the first is the whole past
    np.testing.assert_allclose(model.step_layers(long)[7], model.layers(Histories.of([list(range(8))]))[0], atol=1e-5)


@pytest.mark.req("C3")
@pytest.mark.parametrize("name", list(MODELS))
def test_only_a_model_with_layers_offers_their_states(name: str, board: Split) -> None:
    model = Trained("x", fresh(name, board), name, {}, board.digest)
    assert (model.layers is not None) == (layer_shape(model.model) is not None) == (name in LAYERED)
    if name in LAYERED:
        none = Trained("x", fresh(name, board, layers=0), name, {}, board.digest)
        assert none.layers is None
        assert none.step_layers is None
        with pytest.raises(IndexError):
            layer_states(model.model, torch.tensor([[board.n_items + 9]]), torch.tensor([1]))
        assert not any(block._forward_hooks for block in model.model.blocks), "no hook is left behind"


@pytest.mark.parametrize("name", SEQUENCE)
def test_sensitivity_is_the_change_of_the_score_with_the_weight_of_an_event(name: str, board: Split) -> None:
    net = fresh(name, board)
    found = Trained("x", net, name, {}, board.digest).sensitivity(Histories.of([[1, 2, 3]]), np.array([7]))
    items, lengths = padded(board, [[1, 2, 3]])
    for back in range(3):
        scores = []
        for factor in (1.01, 0.99):
            scale = torch.ones(1, 4 if name in CLOZE else 3, 1)
            scale[0, 2 - back] = factor
            handle = net.table.register_forward_hook(lambda _m, _i, out, scale=scale: out * scale)
            with torch.no_grad():
                scores.append(float((net.last(items, lengths) * net.item_vectors()[7]).sum()))
            handle.remove()
        assert found[0, back] == pytest.approx((scores[0] - scores[1]) / 0.02, rel=0.02, abs=2e-3)
    assert (found[0, 3:] == 0).all()


@pytest.mark.parametrize("name", SEQUENCE)
def test_a_short_training_beats_popularity(name: str) -> None:
    split = walk_split()
    done = train(name, split, SMALL, quick(epochs=40 if name in CLOZE else 12))
    popular = validate_ranker(model_class("popularity").fit(split), split, "ndcg@10")
    assert popular is not None
    assert done.training["valid"]["ndcg@10"] > 2 * popular


@pytest.mark.parametrize("name", SEQUENCE)
def test_only_the_latest_events_are_looked_at(name: str, trained: dict[str, Ranker]) -> None:
    history = list(range(20))
    all_of_it, latest = (
        trained[name].scores(Histories.of([history])),
        trained[name].scores(Histories.of([history[-8:]])),
    )
    assert np.array_equal(all_of_it, latest)
    assert not np.allclose(latest, trained[name].scores(Histories.of([history[-7:]])), atol=1e-3)


@pytest.mark.parametrize("name", list(MODELS))
def test_content_start_add_and_only(name: str, board: Split) -> None:
    rng = np.random.default_rng(0)
    content = rng.normal(size=(board.n_items, 24)).astype(np.float32)
    content[4] = content[6]  # two items that say the same; what a graph makes of them is another matter
    tables = {}
    for use in CONTENT_USES:
        model, _ = create(name, board, {**SMALL, "content_use": use}, content=content)
        tables[use] = model.eval().table.vectors().detach()
        assert model.item_vectors().shape == tables[use].shape == (board.n_items, 16)
        frozen = [key for key in model.state_dict() if key.endswith("content")]
        assert bool(frozen) == (use != "start"), "frozen content is part of what the model reads, a start is not"
    torch.testing.assert_close(tables["start"][4], tables["start"][6])
    torch.testing.assert_close(tables["only"][4], tables["only"][6])
    assert not torch.allclose(tables["add"][4], tables["add"][6])
    with pytest.raises(TrainingError, match="did you mean 'start'"):
        create(name, board, {"content_use": "stat"}, content=content)
    with pytest.raises(TrainingError, match="one row for each"):
        create(name, board, {}, content=content[:-1])


def test_the_content_start_holds_the_principal_components() -> None:
    rng = np.random.default_rng(0)
    content = rng.normal(size=(50, 12)).astype(np.float32) * np.linspace(3, 0.1, 12, dtype=np.float32)
    content[7] = 0.0  # an item without text keeps its random start
    torch.manual_seed(0)
    vectors = ItemTable(50, 4, content=content).vectors().detach().numpy()
    known = np.arange(50) != 7
    left, values, _ = np.linalg.svd(content[known].astype(np.float64), full_matrices=False)
    best = left[:, :4] * values[:4]
    gram = vectors[known] @ vectors[known].T
    expected = best @ best.T
    np.testing.assert_allclose(gram / np.trace(gram), expected / np.trace(expected), atol=1e-5)
    assert np.sqrt((vectors[known] ** 2).mean()) == pytest.approx(0.02, rel=1e-3)
    assert np.abs(vectors[7]).max() > 0
    narrow = ItemTable(50, 16, content=content).vectors().detach().numpy()
    assert (narrow[known, 12:] == 0).all()


def test_start_vectors_of_a_wrong_size_or_with_holes_are_refused() -> None:
    table = ItemTable(5, 4)
    with pytest.raises(TrainingError, match="each of 5 items"):
        table.set_vectors(np.zeros((4, 4)))
    with pytest.raises(TrainingError, match="1 numbers NaN"):
        table.set_vectors(np.r_[np.ones(19), np.nan].reshape(5, 4))
    with pytest.raises(TrainingError, match="holds no id vectors"):
        ItemTable(5, 4, content=np.ones((5, 3)), content_use="only").set_vectors(np.ones((5, 4)))


@pytest.mark.parametrize("name", list(MODELS))
def test_item_bias_is_added_to_the_scores(name: str, board: Split) -> None:
    model, settings = create(name, board, {**SMALL, "bias": True})
    ranker = Trained("x", model, name, settings, board.digest)
    histories = Histories.of([[1, 2], []])
    before = ranker.scores(histories)
    with torch.no_grad():
        model.item_bias().copy_(torch.arange(board.n_items, dtype=torch.float32))
    np.testing.assert_allclose(ranker.scores(histories) - before, np.arange(board.n_items) * np.ones((2, 1)), atol=1e-5)
    plain, _ = create(name, board, SMALL)
    assert plain.item_bias() is None


@pytest.mark.parametrize("name", list(MODELS))
def test_scores_are_the_products_that_training_fitted(name: str, board: Split) -> None:
    model = fresh(name, board)
    ranker = Trained("x", model, name, {}, board.digest, {"settings": {"score_scale": 3.0}})
    histories = Histories.of([[1, 2], [5]])
    expected = 3.0 * ranker.vectors(histories) @ ranker.item_vectors().T
    np.testing.assert_allclose(ranker.scores(histories), expected, rtol=1e-4, atol=1e-5)


def test_parameters_count_every_number_that_is_read(board: Split) -> None:
    I, U, D = board.n_items, board.n_users, 16
    gru = create("gru4rec", board, SMALL)[0]
    assert Trained("x", gru, "gru4rec", {}, "").parameters == (I + 2) * D + D + 2 * (3 * D * D + 3 * D) + D * D + D
    mf = create("mf", board, {**SMALL, "bias": True})[0]
    assert Trained("x", mf, "mf", {}, "").parameters == (I + 2) * D + I + D + U * D + D * D
    sasrec = create("sasrec", board, {**SMALL, "layers": 1, "feedforward": 2.0})[0]
    block = 4 * D + (3 * D * D + 3 * D) + (D * D + D) + (2 * D * D + 2 * D) + (2 * D * D + D)
    assert Trained("x", sasrec, "sasrec", {}, "").parameters == (I + 2) * D + D + 8 * D + block + 2 * D
    content = np.ones((I, 24), dtype=np.float32)
    with_text = create("sasrec", board, {**SMALL, "content_use": "add"}, content=content)[0]
    without = create("sasrec", board, SMALL)[0]
    extra = I * 24 + (24 * 2 * D + 2 * D) + (2 * D * D + D) + 2 * D
    assert Trained("x", with_text, "", {}, "").parameters == Trained("x", without, "", {}, "").parameters + extra


@pytest.mark.parametrize("name", list(MODELS))
def test_the_seed_decides_everything(name: str, board: Split) -> None:
    first, again, other = (train(name, board, SMALL, quick(epochs=2, seed=seed, negatives=7)) for seed in (3, 3, 4))
    assert first.digest == again.digest
    assert first.digest != other.digest


@pytest.mark.parametrize("name", list(MODELS))
def test_unknown_settings_name_the_nearest(name: str, board: Split) -> None:
    with pytest.raises(RecipeError, match="did you mean 'dropout'"):
        create(name, board, {"dropuot": 0.1})
    with pytest.raises(RecipeError, match="no setting 'n_items'"):
        create(name, board, {"n_items": 3})
    known = inspect.signature(model_class(name).__init__).parameters
    assert not any(p.kind is inspect.Parameter.VAR_KEYWORD for p in known.values())


def test_an_unknown_model_names_the_nearest() -> None:
    with pytest.raises(RecipeError, match="did you mean 'sasrec'"):
        model_class("sasrecc")


def test_heads_that_do_not_divide_the_width_are_refused(board: Split) -> None:
    with pytest.raises(TrainingError, match="3 heads for a width of 16"):
        create("sasrec", board, {"dim": 16, "heads": 3})


@pytest.mark.parametrize("name", list(BASELINES))
def test_a_baseline_has_a_digest_that_follows_the_data(name: str, board: Split) -> None:
    digest = model_class(name).fit(board).digest
    assert digest == model_class(name).fit(board).digest
    assert digest != model_class(name).fit(checkerboard(seed=1, users=50)).digest


def test_item_knn_against_a_naive_second_way() -> None:
    split = walk_split(users=30, items=12, length=6)
    users, items, _ = split.events("train")
    seen = [set(items[users == u].tolist()) for u in range(split.n_users)]
    count = [sum(i in s for s in seen) for i in range(12)]
    similarity = np.zeros((12, 12))
    for i in range(12):
        row = {}
        for j in range(12):
            both = sum(i in s and j in s for s in seen)
            if i != j and both:
                row[j] = both / (np.sqrt(count[i] * count[j]) + 2.0)
        for j in sorted(row, key=lambda j: (-np.float32(row[j]), j))[:4]:
            similarity[i, j] = row[j]
    ranker = model_class("item_knn").fit(split, neighbors=4, shrink=2.0, decay=0.5)
    expected = 0.25 * similarity[3] + 0.5 * similarity[7] + similarity[1]
    np.testing.assert_allclose(ranker.scores(Histories.of([[3, 7, 1]]))[0], expected, atol=1e-6)
    assert ranker.parameters == (similarity > 0).sum()


def test_item_knn_finds_the_same_neighbors_in_steps_of_any_size(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(3)
    split = split_of([((rng.zipf(1.5, 12) % 40).tolist(), [1], [2]) for _ in range(50)], 40)
    for neighbors in (1, 3, 100):
        whole = ItemKNN.fit(split, neighbors=neighbors)
        with monkeypatch.context() as patch:
            patch.setattr(item_knn, "_PAIRS", 60)
            assert ItemKNN.fit(split, neighbors=neighbors).digest == whole.digest


def test_item_knn_of_a_million_items_takes_memory_for_what_occurs_together() -> None:
    """Rows of a million numbers, 1024 at a time, would be 4 GB; one item here is in every history."""
    n_items, rng = 1_000_000, np.random.default_rng(0)
    histories = 1 + rng.permutation(n_items - 1)[:90_000].reshape(10_000, 9)
    split = split_of([([0, *row.tolist()], [], []) for row in histories], n_items)
    tracemalloc.start()
    try:
        ranker = ItemKNN.fit(split, neighbors=5)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 120 * 2**20
    scores = ranker.scores(Histories.of([[int(histories[7, 0])]]))[0]
    # its companions are far more like it than the item that everybody has; of equals the smaller ids are kept
    assert np.flatnonzero(scores).tolist() == sorted(histories[7, 1:].tolist())[:5]


def test_a_known_user_of_factorization_needs_no_history(board: Split, trained: dict[str, Ranker]) -> None:
    known = trained["mf"].scores(Histories.of([[], [1, 3]], np.array([5, 5])))
    assert np.array_equal(known[0], known[1])
