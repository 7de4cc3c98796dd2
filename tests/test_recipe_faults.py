"""What is wrong with a recipe is found before anything is trained: everything wrong at once, then one by one."""

from __future__ import annotations

from pathlib import Path

import pytest

from distilrec.errors import RecipeError
from distilrec.models import BASELINES, MODELS, model_class
from distilrec.recipe import ModelSection, Recipe
from distilrec.recipe_models import answers_by_user, small
from distilrec.recipe_yaml import dump_recipe, load_recipe, parse_recipe

PLAIN = "name: x\nteacher: {model: sasrec}\n"


def faults(text: str, *overrides: str) -> str:
    with pytest.raises(RecipeError) as caught:
        parse_recipe(text, overrides)
    return str(caught.value)


@pytest.mark.req("G1")
def test_faults_of_schema_tables_and_constructors_come_together() -> None:
    message = faults(
        "name: x\n"
        "evalute: {k: [10]}\n"  # line 2: the schema
        "teacher:\n"
        "  model: sasrek\n"  # 4: a name of a table
        "  train: {epochs: 1.5, optimizer: adamm}\n"  # 5: types
        "student:\n"
        "  settings:\n"
        "    dmi: 32\n"  # 8: the constructor of the model
        "  losses: {kll: 1.0}\n"  # 9
        "control: {train: {epochs: many}}\n"  # 10: settings on top of others
        "data: {clean: {user_core: some}, columns: {usr: u}}\n"  # 11
        "seeds: [1, 1]\n"  # 12
        "device: gpu\n"  # 13
    )
    assert message.splitlines()[0] == "recipe has 11 faults:"
    for line in (
        "line 2: evalute: unknown key, did you mean 'evaluate'?",
        "line 4: teacher.model: 'sasrek', did you mean 'sasrec'?",
        "line 5: teacher.train.epochs: 1.5\n  expected: a valid integer",
        "line 5: teacher.train.optimizer: 'adamm'\n"
        "  expected: 'adamw', 'adam', 'sgd', 'adagrad' or 'lazy_adam', did you mean 'adam",
        "line 8: student.settings.dmi: 'dmi', did you mean 'dim'?",
        "line 9: student.losses.kll: 'kll', did you mean 'kl'?",
        "line 10: control.train.epochs: 'many'\n  expected: a valid integer",
        "line 11: data.clean.user_core: ",
        "line 11: data.columns.usr: 'usr', did you mean 'user_id'?",
        "line 12: seeds: [1, 1]\n  expected: each seed once",
        "line 13: device: 'gpu'\n  expected: cpu, cuda, cuda:N or mps",
    ):
        assert line in message
    assert message.count("\n  expected: ") == 11


@pytest.mark.parametrize(
    ("text", "seen"),
    [
        ("data: 3", "data: 3"),
        ("seeds: []", "seeds: []"),
        ("evaluate: {k: []}", "evaluate.k: []"),
        ("evaluate: {candidates: some}", "evaluate.candidates: 'some'\n  expected: 'full' or a valid dictionary"),
        ("evaluate: {metric: ndgc@10}", "evaluate.metric: 'ndgc', did you mean 'ndcg'?"),
        ("evaluate: {metric: ndcg@50}", "expected: metric@k with k among [10, 20]"),
        ("split: {method: [time]}", "split.method: ['time']"),
        ("split: {method: time, fold: 1}", "split.fold: 'fold'"),
        ("knowledge: {top_k: true}", "knowledge.top_k: True"),
        ("student: {losses: {}}", "student.losses: {}"),
        ("control: {losses: {cross_entropy: 0.0}}", "at least one loss with a weight above 0"),
        ("control: {losses: {kl: 1.0}}", "control.losses.kl: 'kl'"),
        ("student: {start: text}", "student.start: 'text' in a recipe without the section text"),
        ("student: {settings: {dim: 33, heads: 2}}", "student.settings: 2 heads for a width of 33"),
        ("student: {settings: {dim: abc}}", "student.settings.dim: 'abc'"),
        ("student: {settings: {layers: -1}}", "student.settings.layers: -1\n  expected: at least 1"),
        ("student: {settings: {dropout: 1.5}}", "student.settings: dropout probability"),
        ("student: {settings: {content_use: starts}}", "did you mean 'start'?"),
        ("student: {train: {seed: 4}}", "student.train.seed: 4\n  expected: `seeds` of the whole recipe"),
        ("tune: {student: [{drop: 0.1}], control: [{epochs: x}]}", "tune.control.0.epochs: 'x'"),
        ("data: {path: a, shop: {}}", "data: both path and shop"),
        ("1: 2", "line 3: 1: unknown key"),
        ("train: {epochs: 3}", "train: unknown key, write student.train, control.train or teacher.train\n"),
        ("data: {path: &here [*here]}", "*here is a YAML alias"),
        ("data: !!python/name:os.system x", "this is not YAML"),
        ("data: " + "[" * 600 + "]" * 600, "nested too deeply"),
    ],
)
def test_one_fault(text: str, seen: str) -> None:
    assert seen in faults(PLAIN + text + "\n")


@pytest.mark.parametrize(
    ("override", "seen"),
    [
        ("student.train.epochs=0", "student.train.epochs: 0\n  expected: greater than or equal to 1"),
        ("name.first=x", "'name' is no section"),
        ("train.teacher=peer", "train: unknown key, write student.train, control.train or teacher.train\n"),
        ("student.trust=agreement", "student.trust: 'agreement'\n  expected: a list, e.g. [agreement]"),
        ("seeds=[1", "the value is not YAML"),
    ],
)
def test_faults_of_set(override: str, seen: str) -> None:
    message = faults(PLAIN, override)
    assert "--set" in message
    assert seen in message


def test_paths_of_data_and_of_a_teacher_file_count_from_the_recipe(tmp_path: Path) -> None:
    path = tmp_path / "r.yaml"
    path.write_text("name: x\ndata: {path: logs, items: /abs/items.csv}\nteacher: {model: file, path: t.parquet}\n")
    recipe = load_recipe(path)
    assert recipe.data.path == str(tmp_path / "logs")
    assert recipe.data.items == "/abs/items.csv"
    assert recipe.teacher.path == str(tmp_path / "t.parquet")


@pytest.mark.parametrize("data", ["", "data:\n", "data: {shop: {}}\n", "data: {path: other}\n"])
def test_data_takes_the_place_of_whatever_the_recipe_names(data: str) -> None:
    recipe = parse_recipe(PLAIN + data, data="folder")
    assert recipe.data.path == "folder"
    assert recipe.data.shop is None


@pytest.mark.parametrize("name", ["1e3", "12", "yes", "null", "=", "a: b", "é\n\t'\"", "0x1f", "1_000", "\u2028"])
def test_names_that_look_like_something_else_survive_the_round_trip(name: str) -> None:
    recipe = Recipe.model_validate({"name": name, "teacher": {"model": "sasrec"}})
    assert parse_recipe(dump_recipe(recipe)) == recipe


@pytest.mark.parametrize(("text", "expected"), [
    ("name: x\nteacher: {model: text_sasrec}\n",
     "line 2: teacher.model: 'text_sasrec' in a recipe without the section text"),
    ("name: x\nteacher: {model: sasrec}\nevaluate: {metric: map@10}\n", "line 3: evaluate.metric: 'map'"),
    ("name: x\nteacher: {model: file, path: a.parquet, settings: {temprature: 1.0}}\nstudent: {start: none}\n",
     "line 2: teacher.settings.temprature: 'temprature', did you mean 'temperature'?"),
    ("name: x\nteacher: {model: file, path: a.parquet, copies: 2}\nstudent: {start: none}\n",
     "line 2: teacher.copies: 2\n  expected: 1"),
    ("name: x\nteacher: {model: sasrec}\ncontrol: {train: {seed: 3}}\n",
     "line 3: control.train.seed: 3\n  expected: `seeds` of the whole recipe"),
])
def test_what_would_fail_or_be_ignored_later_is_a_fault_now(text: str, expected: str) -> None:
    assert expected in faults(text)


FILE = "name: x\nstudent: {start: none}\nteacher: {model: file, path: a.parquet, "


@pytest.mark.parametrize(("text", "expected"), [
    (FILE + "settings: {temperature: warm}}", "line 3: teacher.settings.temperature: 'warm'"),
    (FILE + "settings: {temperature: 0.0}}", "line 3: teacher.settings.temperature: 0.0\n  expected: greater than 0"),
    (FILE + "train: {epochs: 3}}", "line 3: teacher.train: settings of training\n  expected: none, for a file"),
    (PLAIN + "student: {start: none, settings: {content_use: add}}",
     "line 3: student.settings.content_use: 'add' in a recipe without the section text"),
    (PLAIN + "text: {}\nstudent: {settings: {content_use: only}}",
     "line 4: student.settings.content_use: 'only' with start: teacher\n  expected: start: none"),
    (PLAIN + "student: {dim: 64}", "line 3: student.dim: unknown key, did you mean 'student.settings.dim'?"),
    (PLAIN + "student: {epochs: 3}", "line 3: student.epochs: unknown key, did you mean 'student.train.epochs'?"),
    (PLAIN + "control: {dropout: 0.1}", "line 3: control.dropout: unknown key, did you mean 'control.settings.dropout"),
    (PLAIN + "tune: {student: [{seed: 1}], control: [{device: cpu}]}", "tune.control.0.device: 'cpu'"),
])
def test_what_is_said_of_settings_in_the_wrong_place(text: str, expected: str) -> None:
    assert expected in faults(text + "\n")


def test_set_in_the_wrong_section_says_where_it_belongs() -> None:
    assert "did you mean 'student.settings.dim'?" in faults(PLAIN, "student.dim=64")


def test_relative_paths_count_from_where_they_were_given(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "log").mkdir()
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    path = tmp_path / "r.yaml"
    path.write_text("name: x\ndata: {path: own, items: items.csv}\nteacher: {model: file, path: t.parquet}\n"
                    "student: {start: none}\n")
    plain = load_recipe(path)
    assert (plain.data.path, plain.data.items) == (str(tmp_path / "own"), str(tmp_path / "items.csv"))
    other = load_recipe(path, data=tmp_path / "log")
    assert other.data.items == str(tmp_path / "log" / "items.csv")
    assert other.teacher.path == str(tmp_path / "t.parquet")
    beside = load_recipe(path, data=tmp_path / "log.csv")
    assert beside.data.items == str(tmp_path / "items.csv")
    typed = load_recipe(path, ["teacher.path=mine.parquet", "data.users=users.csv"], data=tmp_path / "log")
    assert typed.teacher.path == str(tmp_path / "here" / "mine.parquet")
    assert typed.data.users == str(tmp_path / "here" / "users.csv")


@pytest.mark.parametrize(("text", "place"), [
    ("data: {joins: [{path: a, on: b}]}", "data.joins"), ("teacher: {model: sasrec, space: logit}", "teacher.space"),
    ("knowledge: {folds: 3}", "knowledge.folds"), ("student: {auxiliary: true}", "student.auxiliary"),
    ("evaluate: {slices: [day]}", "evaluate.slices"), ("group: user", "group"),
    ("student: {train: {task_weights: gradient}}", "student.train.task_weights"),
])
def test_keys_of_rows_mean_nothing_to_ranking(text: str, place: str) -> None:
    own = text if text.startswith("teacher") else f"teacher: {{model: sasrec}}\n{text}"
    assert f"{place}: given in a recipe of the task rank\n  expected: task: predict" in faults(f"name: x\n{own}\n")


@pytest.mark.parametrize(("text", "place", "instead"), [
    ("text: {encoder: a}", "text", "a feature {kind: vector"), ("data: {items: a}", "data.items", "data.joins"),
    ("data: {clean: {user_core: 5}}", "data.clean", "a table that is clean"),
    ("knowledge: {top_k: 10}", "knowledge.top_k", "task: rank"), ("evaluate: {k: [5]}", "evaluate.k", "task: rank"),
    ("control: {scratch: true}", "control.scratch", "task: rank"),
    ("student: {train: {negatives: 5}}", "student.train.negatives", "task: rank"),
    ("teacher: {model: mlp, train: {balance: soft-then-hard}}", "teacher.train.balance", "task: rank"),
])
def test_keys_of_ranking_mean_nothing_to_rows(text: str, place: str, instead: str) -> None:
    rows = "name: x\ntask: predict\nfeatures: {item: category}\nlabels: {click: click}\n"
    assert f"{place}: given in a recipe of the task predict\n  expected: {instead}" in faults(f"{rows}{text}\n")


def test_layers_of_the_teacher_must_fit_the_student() -> None:
    text = ("name: x\nteacher: {model: sasrec, settings: {dim: 16, hidden: 8, layers: 2}}\n"
            "student: {layers: teacher, settings: {dim: 4, hidden: 8, layers: 1}}\n")
    assert parse_recipe(text).student.layers == "teacher"
    message = faults(text, "student.settings.hidden=4")
    assert "line 3: student.layers: teacher layer 1 does not fit" in message
    assert "equal inner width and feedforward" in message
    assert "teacher layer 1 has 2 heads, the student's has 4" in faults(text, "student.settings.heads=4")
    assert "GRU4Rec has no layers to copy" in faults(text, "student.model=gru4rec")
    assert "more than the 2 of its teacher" in faults(text, "student.settings.layers=5")
    assert "there are 2 copies" in faults(text, "teacher.copies=2")
    assert "of the model 'file'" in faults(text, "teacher={model: file, path: scores.parquet}")
    trial = "tune={student: [{}, {hidden: 16}], control: [{}, {}]}"
    assert "does not fit" in faults(text, trial), "trials shape the student too"


@pytest.mark.parametrize("classes", ["10", "[drama, comedy]", "null"])
def test_classes_of_tags_are_names_or_how_many(classes: str) -> None:
    recipe = parse_recipe("name: x\ntask: tag\nfeatures: {title: text}\n"
                          f"labels: {{tags: {{column: tags, kind: tags, classes: {classes}}}}}\n")
    assert recipe.evaluate.metric == "micro_f1"


@pytest.mark.req("C3", "C5", "C7", "C8")
@pytest.mark.parametrize(("teacher", "student", "place", "seen", "expected"), [
    ("model: als", "losses: {attention_transfer: 1.0}", "student.losses.attention_transfer",
     "'attention_transfer', of which the teacher als can tell nothing", "a transformer"),
    ("model: item_knn", "losses: {hint: 1.0}", "student.losses.hint", "the teacher item_knn", "vectors"),
    ("{model: sasrec, copies: 2}", "losses: {hint: 1.0}", "student.losses.hint",
     "an ensemble of 2 copies", "one teacher"),
    ("members: [{model: sasrec}, {model: mf}]", "losses: {layer_hint: 1.0}", "student.losses.layer_hint",
     "an ensemble of 2 teachers", "one teacher"),
    ("{model: file, path: x.parquet}", "losses: {hint: 1.0}", "student.losses.hint",
     "the teacher file", "trained here"),
    ("model: sasrec", "{model: mf, losses: {attention_transfer: 1.0}}", "student.losses.attention_transfer",
     "'attention_transfer' with the student mf", "a transformer"),
    ("model: sasrec", "{model: gru4rec, losses: {layer_hint: 1.0}}", "student.losses.layer_hint",
     "with the student gru4rec", "a transformer"),
    ("model: sasrec", "{model: mf, losses: {sobolev: 1.0}}", "student.losses.sobolev",
     "with the student mf", "history"),
    ("model: mf", "losses: {sobolev: 1.0}", "student.losses.sobolev", "the teacher mf", "sequence model"),
    ("model: sasrec", "{model: mf, losses: {kl: 1.0}, trust: [label_gate]}", "student.trust",
     "the student mf", "sasrec"),
    ("model: sasrec", "{losses: {hint: 1.0}, train: {teacher: average}}", "student.losses.hint",
     "'hint' with student.train.teacher: average", "losses of answers"),
    ("{model: sasrec, settings: {heads: 0}}", "losses: {hint: 1.0}", "teacher.settings.heads", "0", "at least 1"),
    ("model: als", "{losses: {kl: 1.0}, trust: [label_gate]}", "student.trust", "'label_gate' with the teacher als",
     "a teacher that answers after each event"),
])
def test_what_cannot_be_told_or_learned_is_found_before_the_teacher_is_trained(
    teacher: str, student: str, place: str, seen: str, expected: str
) -> None:
    block = lambda text: text if text.startswith("{") else "{" + text + "}"  # noqa: E731
    message = faults(f"name: x\nteacher: {block(teacher)}\nstudent: {block(student)}\n")
    assert f"{place}: " in message
    assert seen in message
    assert expected in message


@pytest.mark.parametrize("recipe", [
    "teacher: {model: als}\nstudent: {model: mf, losses: {hint: 1.0, full_topology: 1.0}}\n",
    "teacher: {model: sasrec}\nstudent: {losses: {layer_hint: 1.0, attention_transfer: 1.0, sobolev: 1.0}}\n",
    "teacher: {members: [{model: sasrec}]}\nstudent: {model: mf, losses: {hint: 1.0}}\n",
    "teacher: {model: sasrec}\nstudent: {losses: {kl: 1.0}, trust: [label_gate]}\n",
    "teacher: {model: als, settings: {fold_in: always}}\nstudent: {losses: {kl: 1.0}, trust: [label_gate]}\n",
    "teacher: {model: sasrec}\nstudent: {losses: {kl: 1.0, hint: 1.0}, train: {teacher: average}}\n"
    "tune: {student: [{teacher: store}], control: [{}]}\n",
])
def test_what_can_be_told_and_learned_passes(recipe: str) -> None:
    assert isinstance(parse_recipe("name: x\n" + recipe), Recipe)


def test_who_answers_once_for_each_user_is_said_by_name_and_true_of_the_models() -> None:
    for name in MODELS:
        model = small(name, {})
        once = not model.needs_history and bool(getattr(model, "uses_users", False))
        assert answers_by_user(ModelSection(model=name)) is once, name
    for name in BASELINES:
        assert answers_by_user(ModelSection(model=name)) is hasattr(model_class(name), "per_user"), name


def test_a_trial_with_a_teacher_that_only_answers_is_found() -> None:
    message = faults("name: x\nteacher: {model: sasrec}\nstudent: {losses: {kl: 1.0, hint: 1.0}}\n"
                     "tune: {student: [{}, {teacher: average}], control: [{}, {}]}\n")
    assert "'hint' with student.train.teacher: average" in message
