"""The command line as a user meets it."""

from __future__ import annotations

import os
import resource
import signal
import subprocess
import sys
from pathlib import Path

import polars as pl
import pytest
from typer.testing import CliRunner

from distilrec import __version__, pipeline
from distilrec.cli import app
from distilrec.cli_guard import explain, shipped_recipes
from distilrec.errors import RecipeError
from distilrec.recipe_yaml import load_recipe

COMMAND = [sys.executable, "-c", "from distilrec.cli import main; main()"]
VERBS = ["demo", "new", "run", "prepare", "teach", "extract", "distill", "export", "evaluate", "serve", "recommend",
         "inspect", "compare", "methods", "recipes"]
TINY = """\
name: tiny
data: {shop: {users: 60, items: 50, events_per_user: 6.0}}
teacher: {model: mf, settings: {dim: 8}, train: {epochs: 1}}
student: {model: mf, settings: {dim: 4}, train: {epochs: 1}}
"""


def call(*arguments: str | Path) -> tuple[int, str, str]:
    """(exit code, what went to standard output, what went to standard error), in this process."""
    result = CliRunner().invoke(app, [str(a) for a in arguments])
    return result.exit_code, result.stdout, result.stderr


def start(*arguments: str | Path, cwd: Path | None = None, **settings: object) -> subprocess.CompletedProcess[str]:
    """The real thing, in a process of its own."""
    command = [*COMMAND, *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False, cwd=cwd, **settings)  # type: ignore


@pytest.fixture
def recipe(tmp_path: Path) -> Path:
    file = tmp_path / "tiny.yaml"
    file.write_text(TINY)
    return file


@pytest.fixture
def log(tmp_path: Path) -> Path:
    file = tmp_path / "log.csv"
    pl.DataFrame({"user": [f"u{i % 9}" for i in range(90)], "sku": [f"s{i * 7 % 20}" for i in range(90)],
                  "when": list(range(90))}).write_csv(file)
    return file


def test_help_names_every_verb_and_is_quick() -> None:
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = start("--help")
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert done.returncode == 0
    assert all(f"\n  {verb} " in done.stdout for verb in VERBS)
    assert after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime < 0.4


def test_help_does_not_load_torch() -> None:
    code = ("import sys, atexit; atexit.register(lambda: print('torch' in sys.modules))\n"
            "from distilrec.cli import main; main()")
    done = subprocess.run([sys.executable, "-c", code, "--help"], capture_output=True, text=True, check=True)
    assert done.stdout.endswith("False\n")


def test_version() -> None:
    assert call("--version") == (0, f"distilrec {__version__}\n", "")


def test_a_typo_in_a_recipe_exits_2_without_a_traceback(tmp_path: Path) -> None:
    (tmp_path / "r.yaml").write_text("name: r\nstudnet: {}\nseeds: none\n")
    done = start("run", "r.yaml", cwd=tmp_path)
    assert done.returncode == 2
    assert "line 2: studnet: unknown key, did you mean 'student'?" in done.stderr
    assert "line 3: seeds" in done.stderr
    assert "Traceback" not in done.stderr
    assert [file.name for file in tmp_path.iterdir()] == ["r.yaml"]


def test_debug_shows_the_traceback(tmp_path: Path) -> None:
    for arguments in (["--debug", "inspect", tmp_path], ["inspect", tmp_path, "--debug"]):
        done = start(*arguments)
        assert done.returncode == 2
        assert "Traceback" in done.stderr


def test_a_typo_in_set(recipe: Path) -> None:
    code, _, error = call("run", recipe, "--set", "student.setings.dim=3")
    assert code == 2
    assert "did you mean 'settings'?" in error


def test_an_unknown_recipe_name() -> None:
    code, _, error = call("run", "movielens-100")
    assert code == 2
    assert "did you mean 'movielens-100k'?" in error


def test_data_that_are_not_there(recipe: Path, tmp_path: Path) -> None:
    code, _, error = call("prepare", recipe, "--data", tmp_path / "none")
    assert code == 2
    assert f"there is nothing at {tmp_path / 'none'}" in error


def test_a_stage_before_its_time(recipe: Path, tmp_path: Path) -> None:
    code, _, error = call("teach", recipe, "--out", tmp_path / "out")
    assert code == 2
    assert "distilrec prepare" in error


def test_a_file_in_the_way_of_the_run_folder(recipe: Path, tmp_path: Path) -> None:
    (tmp_path / "taken").write_text("mine")
    code, _, error = call("prepare", recipe, "--out", tmp_path / "taken" / "run")
    assert code == 2
    assert "a file is in the way" in error
    assert (tmp_path / "taken").read_text() == "mine"


def test_a_file_in_the_place_of_the_run_folder(recipe: Path, tmp_path: Path) -> None:
    (tmp_path / "run").write_text("mine")
    code, _, error = call("prepare", recipe, "--out", tmp_path / "run")
    assert code == 2
    assert "a file is in the way" in error
    assert (tmp_path / "run").read_text() == "mine"


@pytest.mark.parametrize(("code", "words"), [(13, "not allowed"), (30, "not allowed"), (28, "no space left")])
def test_what_the_system_refuses_is_explained(code: int, words: str) -> None:
    assert words in str(explain(OSError(code, os.strerror(code), "/somewhere")))
    assert "/somewhere" in str(explain(OSError(code, os.strerror(code), "/somewhere")))


def test_other_faults_of_the_system_keep_their_traceback() -> None:
    assert explain(OSError(5, "Input/output error")) is None
    assert explain(ModuleNotFoundError("no", name="polars")) is None


def test_a_missing_extra_is_named_with_its_install_line() -> None:
    assert "pip install 'distilrec[train]'" in str(explain(ModuleNotFoundError("no", name="torch.nn")))


def test_a_disk_that_fills_up_leaves_nothing_half_written(recipe: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"

    def small() -> None:  # a file may not grow past 2 kB: the kernel refuses as a full disk does
        resource.setrlimit(resource.RLIMIT_FSIZE, (2048, 2048))

    done = start("prepare", recipe, "--out", out, preexec_fn=small, env={**os.environ, "PYTHONDONTWRITEBYTECODE": "1"})
    assert done.returncode == 2, done.stderr
    assert "no space left" in done.stderr
    assert not (out / "data").exists()
    assert call("prepare", recipe, "--out", out)[0] == 0


def test_prepare_says_what_it_did_and_what_comes_next(recipe: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    code, text, error = call("prepare", recipe, "--out", out)
    assert code == 0, error
    assert "50 items" in text
    assert f"next: distilrec teach {recipe} --out {out}" in text
    assert "nothing to do" in call("prepare", recipe, "--out", out)[1]
    chosen = ["--set", "data.shop.seed=1", "--set", "tune={student: [], control: []}", "--threads", "1"]
    text = call("prepare", recipe, "--out", out, *chosen)[1]
    assert (f"next: distilrec teach {recipe} --out {out} --threads 1 --set data.shop.seed=1 "
            "--set 'tune={student: [], control: []}'") in text
    code, text, _ = call("inspect", out / "data")
    assert code == 0
    assert "leave-last-out" in text


def test_what_comes_next_keeps_the_data(recipe: Path, log: Path, tmp_path: Path) -> None:
    columns = "data.columns={user_id: user, item_id: sku, timestamp: when}"
    code, text, error = call("prepare", recipe, "--data", log, "--out", tmp_path / "out", "--set", columns)
    assert code == 0, error
    assert f"next: distilrec teach {recipe} --data {log} --out {tmp_path / 'out'} --set '{columns}'" in text


def test_a_killed_command_says_that_it_goes_on(recipe: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def stop(*_: object, **__: object) -> None:
        os.kill(os.getpid(), signal.SIGINT)

    monkeypatch.setattr(pipeline, "run_stage", stop)
    # tests that run in the background of a shell inherit a signal that is ignored
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        code, _, error = call("prepare", recipe)
    finally:
        signal.signal(signal.SIGINT, before)
    assert code == 130
    assert "the same command goes on from here" in error


def test_new_writes_a_recipe_that_is_good(log: Path, tmp_path: Path) -> None:
    target = tmp_path / "mine.yaml"
    code, text, error = call("new", log, "--out", target)
    assert code == 0, error
    assert f"distilrec run {target}" in text
    recipe = load_recipe(target)
    assert recipe.data.path == str(log)
    assert recipe.data.columns == {"user_id": "user", "item_id": "sku", "timestamp": "when"}
    code, _, error = call("new", log, "--out", target)
    assert code == 2
    assert "--force" in error


def test_recipes_are_listed_copied_and_checked(tmp_path: Path) -> None:
    names = [file.stem for file in shipped_recipes()]
    listed = call("recipes", "ls")[1].splitlines()
    assert [line.split()[0] for line in listed] == names
    target = tmp_path / "copy.yaml"
    assert call("recipes", "copy", "demo", target)[0] == 0
    assert load_recipe(target).name == "demo"
    assert call("recipes", "copy", "demo", target)[0] == 2
    assert call("recipes", "check")[0] == 0
    target.write_text("name: x\nseed: 3\n")
    code, _, error = call("recipes", "check", target, "demo")
    assert code == 2
    assert "did you mean 'seeds'" in error


def test_methods_names_all_of_them_without_torch() -> None:
    from distilrec.losses import LOSSES
    from distilrec.models import BASELINES, MODELS
    from distilrec.teachers import TEACHERS

    code, text, _ = call("methods")
    assert code == 0
    assert all(name in text for name in [*LOSSES, *MODELS, *BASELINES, *TEACHERS])
    (line,) = call("methods", "topology")[1].splitlines()[:-1]
    assert line.startswith("rank\tloss on knowledge\tfull_topology\tMean over")
    code, _, error = call("methods", "topologie")
    assert code == 2
    assert "no method has 'topologie' in its name" in error


def test_inspect_refuses_what_it_does_not_know(tmp_path: Path) -> None:
    assert "nothing that distilrec made" in call("inspect", tmp_path)[2]
    assert "there is nothing at" in call("inspect", tmp_path / "none")[2]


def test_compare_needs_reports(tmp_path: Path) -> None:
    code, _, error = call("compare", tmp_path, tmp_path)
    assert code == 2
    assert "there is no report" in error


def test_recommend_from_a_folder_that_is_no_bundle(log: Path, tmp_path: Path) -> None:
    code, _, error = call("recommend", tmp_path, "--users", log, "--out", tmp_path / "r.csv")
    assert code == 2
    assert "a folder made by `distilrec export`" in error


def test_a_recipe_error_is_one_for_the_library_too() -> None:
    with pytest.raises(RecipeError):
        load_recipe("none.yaml")
