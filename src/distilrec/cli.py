"""The command line: verbs only, and the one reader of argv. What a verb needs is imported inside it."""

from __future__ import annotations

import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer

from distilrec import __version__
from distilrec.cli_guard import Guarded, recipe_file, shipped_recipes, teacher_settings, unknown_recipe, use_threads
from distilrec.cli_new import guessed
from distilrec.errors import DataError, RecipeError, problem

__all__ = ["app", "main"]

_STAGES = {
    "prepare": "Read, clean and split the data.",
    "teach": "Train the teachers, or adopt them.",
    "extract": "Write down what the teachers know.",
    "distill": "Train students and controls.",
    "export": "Write the bundles that are served.",
    "evaluate": "Measure everything on the test part and write the report.",
}


app = typer.Typer(
    cls=Guarded, add_completion=False, no_args_is_help=True, rich_markup_mode=None, pretty_exceptions_enable=False,
    help="Distill a large recommender into a small one that a CPU core serves, and prove what was kept.",
)
recipes_app = typer.Typer(no_args_is_help=True, rich_markup_mode=None, help="The recipes that come with distilrec.")
app.add_typer(recipes_app, name="recipes")

RecipeArgument = Annotated[str, typer.Argument(metavar="RECIPE", help="A recipe file, or a name of `recipes ls`.")]
DataOption = Annotated[Path | None, typer.Option("--data", help="A log (file or folder), in place of the recipe's.")]
OutOption = Annotated[Path | None, typer.Option("--out", help="The run folder.  [default: runs/NAME]")]
DeviceOption = Annotated[str | None, typer.Option("--device", help="cpu, cuda, cuda:1, ...")]
ThreadsOption = Annotated[int | None, typer.Option("--threads", min=1, help="CPU threads.  [default: the recipe's, 1]")]
SetOption = Annotated[
    list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Override, e.g. student.settings.dim=64.")
]
TeacherOption = Annotated[str | None, typer.Option("--teacher", metavar="KIND:PATH", help="An outside teacher in place "
                                                   "of the recipe's, e.g. onnx:click.onnx.")]
SpaceOption = Annotated[str | None, typer.Option("--space", help="What its output is: probability, logit or value.")]
TrustOption = Annotated[bool, typer.Option("--trust", help="Open its file even if that runs the code in it.")]
ForceOption = Annotated[bool, typer.Option("--force", help="Overwrite an existing file.")]


@app.callback(invoke_without_command=True)
def root(
    debug: Annotated[
        bool, typer.Option("--debug", envvar="DISTILREC_DEBUG", help="Show where an error came from.")
    ] = False,
    version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False,
) -> None:
    """Distill a large recommender into a small one that a CPU core serves, and prove what was kept."""
    del debug  # read by Guarded
    use_threads(1)
    if version:
        typer.echo(f"distilrec {__version__}")
        raise typer.Exit


@app.command()
def demo(out: OutOption = None, threads: ThreadsOption = None, settings: SetOption = None) -> None:
    """The whole job on the built-in data set."""
    _run("demo", None, out, None, threads, settings)


@app.command()
def new(
    data: Annotated[Path, typer.Argument(help="A file or folder of interactions, or a table of examples.")],
    out: Annotated[Path, typer.Option("--out", help="The recipe to write.")] = Path("recipe.yaml"),
    force: ForceOption = False,
    task: Annotated[str | None, typer.Option(help="rank, predict or tag.  [default: by what the columns hold]")] = None,
    label: Annotated[list[str] | None, typer.Option(metavar="COLUMN", help="What to predict (predict, tag).")] = None,
) -> None:
    """Guess what the columns of DATA mean and write a recipe to edit."""
    from distilrec.files import atomic_file
    from distilrec.recipe_yaml import parse_recipe

    _refuse_existing(out, force)
    if not data.exists():
        raise DataError(problem(f"there is nothing at {data}", "a log or a table of rows", "check the path"))
    text, notes = guessed(data, task, label or [])
    parse_recipe(text, name=str(out))
    with atomic_file(out) as temporary:
        temporary.write_text(text, encoding="utf-8")
    for note in notes:
        typer.echo(note)
    typer.echo(f"recipe: {out}\nnext: look it over, then\n  distilrec run {out}")


@app.command()
def run(
    recipe: RecipeArgument, data: DataOption = None, out: OutOption = None, device: DeviceOption = None,
    threads: ThreadsOption = None, settings: SetOption = None, teacher: TeacherOption = None,
    space: SpaceOption = None, trust: TrustOption = False,
) -> None:
    """The whole job: every stage in turn. Finished stages are recognized and have nothing to do."""
    _run(recipe, data, out, device, threads, [*teacher_settings(teacher, space, trust), *(settings or [])])


def _run(
    name: str, data: Path | None, out: Path | None, device: str | None, threads: int | None, settings: list[str] | None,
) -> None:
    from distilrec.cli_views import print_next, print_plan

    recipe, folder = _recipe(name, data, out, device, threads, settings)
    print_plan(recipe, folder)
    from distilrec import pipeline

    pipeline.run(recipe, folder, say=typer.echo)
    print_next(recipe, folder)


@app.command("cross-validate")
def cross_validate(
    recipe: RecipeArgument, data: DataOption = None,
    out: Annotated[Path | None, typer.Option("--out", help="DIR/fold-0, ...  [default: runs/NAME.folds]")] = None,
    folds: Annotated[int | None, typer.Option("--folds", min=2, help="How many.  [default: the recipe's, 5]")] = None,
    device: DeviceOption = None, threads: ThreadsOption = None, settings: SetOption = None,
) -> None:
    """The whole job once for each fold, then means, spreads and tests over the folds."""
    loaded, folder = _recipe(recipe, data, out, device, threads, settings)
    from distilrec import crossval

    folder = folder if out is not None else folder.with_name(f"{folder.name}.folds")
    crossval.print_folds(crossval.cross_validate(loaded, folder, folds, say=typer.echo))


def _stage_command(stage: str) -> Callable[..., None]:
    def command(
        recipe: RecipeArgument, data: DataOption = None, out: OutOption = None, device: DeviceOption = None,
        threads: ThreadsOption = None, settings: SetOption = None, teacher: TeacherOption = None,
        space: SpaceOption = None, trust: TrustOption = False,
    ) -> None:
        outside = teacher_settings(teacher, space, trust)
        loaded, folder = _recipe(recipe, data, out, device, threads, [*outside, *(settings or [])])
        from distilrec import pipeline

        pipeline.run_stage(stage, loaded, folder, say=typer.echo)
        order = list(_STAGES)
        if stage != order[-1]:
            given: list[tuple[str, object]] = [
                ("--data", data), ("--out", folder), ("--device", device), ("--threads", threads),
                ("--teacher", teacher), ("--space", space), *(("--set", one) for one in settings or [])]
            words = [recipe, *(str(word) for pair in given if pair[1] is not None for word in pair)]
            words += ["--trust"] if trust else []
            typer.echo(f"next: distilrec {order[order.index(stage) + 1]} {shlex.join(words)}")

    return command


for _stage, _help in _STAGES.items():
    app.command(_stage, help=_help)(_stage_command(_stage))


@app.command()
def serve(
    bundle: Annotated[Path, typer.Argument(help="A bundle folder, or a run folder that holds one.")],
    host: Annotated[str, typer.Option(help="The address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="0 takes a free one.")] = 8000,
) -> None:
    """Answer over HTTP: /recommend and /items/KEY/similar, or /predict; /health, /metrics, /docs."""
    from distilrec.serving.app import serve as start

    start(_bundle_folder(bundle), host, port)


@app.command()
def recommend(
    bundle: Annotated[Path, typer.Argument(help="A bundle folder, or a run folder that holds one.")],
    users: Annotated[Path, typer.Option(help="Parquet, CSV or JSON Lines: user_id and history, or one event per row.")],
    out: Annotated[Path, typer.Option(help=".parquet, .csv or .jsonl: user_id, rank, item_id, score.")],
    k: Annotated[int, typer.Option("-k", "--k", min=1, help="Items per user.")] = 10,
) -> None:
    """Recommend for every user of a file."""
    from distilrec.bundle.offline import recommend_file
    from distilrec.bundle.runtime import load_rank

    counts = recommend_file(load_rank(_bundle_folder(bundle)), users, out, k)
    typer.echo(f"{counts['users']:,} users, {counts['rows']:,} rows -> {out}")
    if counts["unknown_events"]:
        typer.echo(f"  {counts['unknown_events']:,} events of items that the bundle does not know were skipped")
    if counts["users_without_known_items"]:
        typer.echo(f"  {counts['users_without_known_items']:,} users without any known item got the list for newcomers")


@app.command()
def predict(
    bundle: Annotated[Path, typer.Argument(help="A bundle folder, or a run folder that holds one.")],
    rows: Annotated[Path, typer.Option(help="Parquet, CSV or JSON Lines: the raw fields as columns.")],
    out: Annotated[Path, typer.Option(help=".parquet, .csv or .jsonl: row, prediction.HEAD, ...")],
    keep: Annotated[list[str] | None, typer.Option(metavar="COLUMN", help="A column to copy, such as a key.")] = None,
    delimiter: Annotated[str, typer.Option(help="Between the values of a list in CSV.")] = "|",
) -> None:
    """Predict every row of a file."""
    from distilrec.bundle.row_offline import predict_file, told
    from distilrec.bundle.runtime import load_rows

    counts = predict_file(load_rows(_bundle_folder(bundle)), rows, out, keep=keep or (), delimiter=delimiter)
    typer.echo(f"{counts['rows']:,} rows -> {out}")
    for line in told(counts):
        typer.echo(f"  {line}")


@app.command()
def inspect(
    path: Annotated[Path, typer.Argument(help="A run, bundle, knowledge, data or model folder, a report, a recipe.")],
) -> None:
    """Show what something that distilrec made holds, and whether it is whole."""
    from distilrec.cli_inspect import print_anything

    print_anything(path)


@app.command()
def compare(
    a: Annotated[Path, typer.Argument(help="A report.json or a run folder.")],
    b: Annotated[Path, typer.Argument(help="Another one.")],
) -> None:
    """Two runs side by side."""
    from distilrec.cli_inspect import print_comparison

    print_comparison(a, b)


@app.command()
def methods(
    name: Annotated[str | None, typer.Argument(metavar="NAME", help="Only those whose name contains this.")] = None,
) -> None:
    """The models, teachers, losses, rules and starts that a recipe can name."""
    from distilrec.cli_methods import print_methods

    print_methods(name)


@recipes_app.command("ls")
def recipes_ls() -> None:
    """List them."""
    for file in shipped_recipes():
        first = file.read_text(encoding="utf-8").splitlines()[0]
        typer.echo(f"{file.stem:<18} {first.removeprefix('#').strip() if first.startswith('#') else ''}".rstrip())


@recipes_app.command("copy")
def recipes_copy(
    name: Annotated[str, typer.Argument(help="A name of `recipes ls`.")],
    to: Annotated[Path | None, typer.Argument(help="Where to.  [default: NAME.yaml]")] = None,
    force: ForceOption = False,
) -> None:
    """Copy one here, to edit."""
    from distilrec.files import atomic_file

    source = next((file for file in shipped_recipes() if file.stem == name.removesuffix(".yaml")), None)
    if source is None:
        raise unknown_recipe(name)
    target = to or Path(source.name)
    _refuse_existing(target, force)
    with atomic_file(target) as temporary:
        temporary.write_bytes(source.read_bytes())
    typer.echo(f"{target}\nnext: distilrec run {target}")


@recipes_app.command("check")
def recipes_check(
    recipes: Annotated[list[str] | None, typer.Argument(help="Files or names.  [default: all of `ls`]")] = None,
) -> None:
    """Check recipes without running them; every fault is shown."""
    from distilrec.recipe_yaml import load_recipe

    bad = 0
    for name in recipes or [file.stem for file in shipped_recipes()]:
        try:
            load_recipe(recipe_file(name))
            typer.echo(f"{name}: good")
        except RecipeError as error:
            bad += 1
            typer.secho(str(error), fg="red", err=True)
    if bad:
        raise typer.Exit(2)


def main() -> None:
    """The entry point of the `distilrec` command."""
    app(prog_name="distilrec")


def _recipe(
    name: str, data: Path | None, out: Path | None, device: str | None, threads: int | None, settings: list[str] | None,
) -> tuple[Any, Path]:
    """The checked recipe and the run folder; threads are set before anything heavy starts."""
    from distilrec.recipe_yaml import load_recipe

    use_threads(threads or 1)
    overrides = list(settings or [])
    overrides += [f"{key}={value}" for key, value in (("device", device), ("threads", threads)) if value is not None]
    if data is not None and not data.exists():
        raise DataError(problem(f"there is nothing at {data}", "a log or a table of rows", "check --data"))
    recipe = load_recipe(recipe_file(name), overrides, data=None if data is None else data.resolve())
    use_threads(recipe.threads)
    return recipe, out or Path("runs") / recipe.name


def _bundle_folder(path: Path) -> Path:
    from distilrec.files import recover

    recover(path / "bundle")
    return path / "bundle" if (path / "bundle" / "config.json").is_file() else path


def _refuse_existing(path: Path, force: bool) -> None:
    if path.exists() and not force:
        raise DataError(problem(f"{path} is there already", "a new file", "choose another name, or add --force"))
