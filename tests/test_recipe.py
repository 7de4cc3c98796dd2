"""The recipe: round trip, and every fault of a document at once, with its line."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from distilrec.errors import RecipeError
from distilrec.recipe import Recipe
from distilrec.recipe_yaml import dump_recipe, load_recipe, parse_recipe

GOOD = """\
name: mine
data: {path: log.csv}
student:
  model: sasrec
  settings: {dim: 16}
  train: {epochs: 3, learning_rate: 1e-3}
teacher: {model: sasrec}
"""
PLAIN = "teacher: {model: sasrec}\n"  # the default teacher needs item texts

sections = st.fixed_dictionaries({
    "name": st.text("abcäöü -_0123456789:#'\"", min_size=1, max_size=20).map(lambda s: f"n{s}"),
    "teacher": st.just({"model": "sasrec"}),
    "seeds": st.lists(st.integers(0, 2**40), min_size=1, max_size=4, unique=True),
    "threads": st.integers(1, 64),
    "device": st.sampled_from(["cpu", "cuda", "cuda:1"]),
    "knowledge": st.fixed_dictionaries({
        "top_k": st.integers(1, 10_000), "temperature": st.floats(0.001, 1000, allow_nan=False),
    }),
    "student": st.fixed_dictionaries({
        "start": st.sampled_from(["teacher", "none"]),
        "losses": st.dictionaries(st.sampled_from(["cross_entropy", "bpr", "kl"]), st.floats(0.001, 10), min_size=1),
        "train": st.fixed_dictionaries({
            "learning_rate": st.floats(1e-12, 10), "negatives": st.one_of(st.just("full"), st.integers(1, 9999)),
        }),
    }),
})


def faults(text: str, overrides: tuple[str, ...] = ()) -> str:
    with pytest.raises(RecipeError) as caught:
        parse_recipe(text, overrides)
    return str(caught.value)


@given(sections)
@settings(max_examples=30, deadline=None)
def test_what_is_dumped_reads_back_equal(document: dict) -> None:
    recipe = Recipe.model_validate(document)
    assert parse_recipe(dump_recipe(recipe)) == recipe


def test_defaults_are_written_out() -> None:
    text = dump_recipe(parse_recipe(f"name: mine\n{PLAIN}"))
    assert "learning_rate: 0.001" in text
    assert "baselines:" in text


def test_scientific_numbers_are_numbers() -> None:
    recipe = parse_recipe(GOOD, ["student.train.weight_decay=5e-2"])
    assert recipe.student.train.learning_rate == 0.001
    assert recipe.student.train.weight_decay == 0.05


def test_quoted_numbers_stay_text() -> None:
    assert parse_recipe(f"name: '1e-3'\n{PLAIN}").name == "1e-3"


def test_every_fault_is_reported_at_once_with_its_line() -> None:
    text = faults("name: mine\nstudnet: {}\nstudent:\n  model: sasrec\n  train:\n    epochs: many\n    pateince: 3\n"
                  f"seeds: []\n{PLAIN}")
    assert "4 faults" in text
    assert "line 2: studnet: unknown key, did you mean 'student'?" in text
    assert "line 6: student.train.epochs: 'many'" in text
    assert "line 7: student.train.pateince: unknown key, did you mean 'patience'?" in text
    assert "line 8: seeds" in text


def test_names_that_only_tables_know_are_checked_at_once() -> None:
    text = faults("name: mine\nteacher: {model: sasrek}\nstudent:\n  settings: {dimm: 3}\n  losses: {cross_entrpy: 1}\n"
                  "evaluate:\n  metric: ndgc@10\n  baselines: [populrity]\nsplit:\n  method: leave-lst-out\n")
    for line, seen, meant in (
        (2, "sasrek", "sasrec"), (4, "dimm", "dim"), (5, "cross_entrpy", "cross_entropy"), (7, "ndgc", "ndcg"),
        (8, "populrity", "popularity"), (10, "leave-lst-out", "leave-last-out"),
    ):
        assert any(row.startswith(f"line {line}: ") and repr(seen) in row and f"did you mean {meant!r}" in row
                   for row in text.splitlines()), (line, text)


def test_a_missing_name() -> None:
    assert "name: is missing" in faults("data: {}")


@pytest.mark.parametrize(("override", "expected"), [
    ("studnet.model=mf", "did you mean 'student'"),
    ("student.settings.dmi=3", "did you mean 'dim'"),
    ("student.train.epochs=ten", "'ten'"),
    ("student.train.epochs", "expected section.key=value"),
    ("name.more=1", "'name' is no section"),
    ("seeds=[1, 2", "the value is not YAML"),
])
def test_faults_of_set_name_the_override(override: str, expected: str) -> None:
    text = faults(GOOD, (override,))
    assert f"--set {override}" in text or f"--set {override!r}" in text
    assert expected in text


def test_set_and_data_take_the_place_of_what_is_written(tmp_path: Path) -> None:
    file = tmp_path / "r.yaml"
    file.write_text(GOOD)
    recipe = load_recipe(file, ["student.settings.dim=8", "seeds=[3, 4]"], data=tmp_path / "other")
    assert recipe.student.settings == {"dim": 8}
    assert recipe.seeds == [3, 4]
    assert recipe.data.path == str(tmp_path / "other")


def test_relative_paths_count_from_the_recipe(tmp_path: Path) -> None:
    file = tmp_path / "r.yaml"
    file.write_text(GOOD)
    assert load_recipe(file).data.path == str((tmp_path / "log.csv").resolve())


def test_joined_tables_lie_beside_the_data(tmp_path: Path) -> None:
    from distilrec.runfolder import inputs

    (tmp_path / "log").mkdir()
    (tmp_path / "log" / "rows.csv").write_text("item_id,click\n1,0\n")
    (tmp_path / "log" / "items.csv").write_text("item_id,genre\n1,drama\n")
    file = tmp_path / "r.yaml"
    file.write_text("name: a\ntask: predict\nfeatures: {item_id: category, genre: category}\nlabels: {click: click}\n"
                    "data: {joins: [{path: items.csv, on: item_id}]}\n")
    recipe = load_recipe(file, data=tmp_path / "log" / "rows.csv")
    assert recipe.data.joins[0].path == str((tmp_path / "log" / "items.csv").resolve())
    before = inputs(recipe)
    (tmp_path / "log" / "items.csv").write_text("item_id,genre\n1,comedy\n")
    assert inputs(recipe) != before


@pytest.mark.parametrize(("model", "path", "kept"), [
    ("torch", "shop.nets:click_net", True), ("torch", "nets/click.pt", False), ("onnx", "shop.nets:click_net", False),
])
def test_what_lies_in_a_python_module_has_no_folder(tmp_path: Path, model: str, path: str, kept: bool) -> None:
    file = tmp_path / "a.yaml"
    file.write_text(f"""
        name: a
        task: predict
        features: {{item: category}}
        labels: {{click: click}}
        teacher:
            {{model: {model}, path: "{path}", space: logit, settings: {{inputs: [item]}}}}""")
    recipe = load_recipe(file)
    assert recipe.teacher.path == (path if kept else str((tmp_path / path).resolve()))
    dump_recipe(recipe, tmp_path / "run" / "recipe.yaml")
    assert load_recipe(tmp_path / "run" / "recipe.yaml") == recipe


def test_weights_of_a_torch_teacher_lie_beside_the_recipe(tmp_path: Path) -> None:
    file = tmp_path / "a.yaml"
    file.write_text("{name: a, task: predict, features: {item: category}, labels: {click: click}, teacher: {model: "
                    "torch, path: 'shop:net', space: logit, settings: {inputs: [item], weights: net.safetensors}}}")
    assert load_recipe(file).teacher.settings["weights"] == str((tmp_path / "net.safetensors").resolve())


def test_a_doubled_key_is_a_fault() -> None:
    assert "line 3: seeds stands twice" in faults("name: mine\nseeds: [0]\nseeds: [1]\n")


@pytest.mark.parametrize("text", ["name: [unclosed", "name: mine\n\tdata: {}", "a: b: c"])
def test_what_is_not_yaml(text: str) -> None:
    assert "line " in faults(text)
    assert "not YAML" in faults(text)


def test_a_list_is_no_recipe() -> None:
    assert "mapping" in faults("- a\n- b\n")


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="there is no recipe"):
        load_recipe(tmp_path / "none.yaml")


def test_trials_must_be_as_many_for_both_sides() -> None:
    assert "equally many" in faults("name: mine\ntune: {student: [{dim: 8}], control: []}\n")


def test_a_loss_that_is_set_joins_those_of_the_recipe_or_the_default_ones() -> None:
    plain = "name: x\nteacher: {model: sasrec}\n"
    assert parse_recipe(plain, ["student.losses.hint=0.5"]).student.losses == {
        "cross_entropy": 0.2, "kl": 0.8, "hint": 0.5}
    assert parse_recipe(plain, ["student.losses.kl=0.0"]).student.losses == {"cross_entropy": 0.2, "kl": 0.0}
    assert parse_recipe(plain, ["student.losses={hint: 0.5}"]).student.losses == {"hint": 0.5}
    own = plain + "student: {losses: {kl: 1.0}}\n"
    assert parse_recipe(own, ["student.losses.hint=0.5"]).student.losses == {"kl": 1.0, "hint": 0.5}
    assert parse_recipe(plain, ["control.losses.bpr=1.0"]).control.losses == {"bpr": 1.0}
