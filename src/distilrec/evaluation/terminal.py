"""A report in the terminal: one row a model, then the verdict in words, then where the files are."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from distilrec.evaluation import words
from distilrec.evaluation.verdict import is_lower_better

__all__ = ["print_report", "table_metrics"]

_FACTS = ("params", "size", "p50", "gap\nclosed")
_STYLES = {"teacher": "cyan", "student": "bold green", "control": "yellow"}
_OF_ROWS = ("auc", "gauc", "rmse", "micro_f1", "log_loss", "calibration_error", "mae", "macro_f1", "hit@1")
_VERDICT_STYLES = {"Distill": "bold green", "Do not distill": "bold red"}


def print_report(
    report: Mapping[str, Any], *, files: Mapping[str, str | Path] | None = None, console: Console | None = None
) -> None:
    """Print the table, the verdict and `files` ({"report": path, ...})."""
    console = console or Console()
    table, left_out = _fitting_table(report, console)
    console.print(table)
    if left_out:
        console.print(f"[dim]A wider terminal shows {escape(', '.join(left_out))} too.[/]")
    title, sentences = words.headline(report), words.verdict_sentences(report)
    console.print(f"[{_VERDICT_STYLES.get(title, 'bold yellow')}]{title}.[/] {escape(sentences[0])}")
    for sentence in sentences[1:]:
        console.print(escape(sentence))
    for name, path in (files or {}).items():
        console.print(f"[dim]{escape(name)}:[/] {escape(str(path))}", soft_wrap=True)


def table_metrics(report: Mapping[str, Any]) -> list[str]:
    """The metrics worth a column: the main one first, then its companions (those at the same cut, those of its head),
    then the leading ones of other heads."""
    metric = report["metric"]
    if words.is_rows(report):
        heads = words.head_metrics(report)
        own = next((names for names in heads.values() if metric in names), [])
        companions = [name for one in _OF_ROWS for name in own if name.rpartition(".")[2] == one]
        leading = [name for head in heads if (name := words.lead_metric(report, head)) is not None]
        return list(dict.fromkeys([metric, *companions, *leading]))
    cut = metric.partition("@")[2]
    companions = [f"{name}@{cut}" for name in ("ndcg", "recall", "mrr", "coverage")] if cut else []
    measured = {name for model in report["models"] for name in model["metrics"]["test"]}
    return list(dict.fromkeys([metric, *(name for name in companions if name in measured)]))


def _fitting_table(report: Mapping[str, Any], console: Console) -> tuple[Table, list[str]]:
    """(as many columns as the terminal has room for, what is left out): a number is shown whole or not at all."""
    metrics, facts = table_metrics(report), list(_FACTS)
    left_out: list[str] = []
    table = _table(report, metrics, facts)
    roomy = console.options.update(width=10_000)  # so that the measure is what the table wants, not what it gets
    while console.measure(table, options=roomy).minimum > console.width and (len(metrics) > 1 or facts):
        left_out.insert(0, words.human_metric(metrics.pop()) if len(metrics) > 1 else facts.pop().replace("\n", " "))
        table = _table(report, metrics, facts)
    return table, left_out


def _table(report: Mapping[str, Any], metrics: list[str], facts: list[str]) -> Table:
    data, protocol = report["dataset"], report["protocol"]
    seeds = len(protocol["seeds"])
    table = Table(
        title=f"{escape(data['name'])}: {', '.join(words.size_of(report)[:2])}; test part, "
              f"{seeds} seed{'s' if seeds != 1 else ''}",
        title_justify="left",
        caption="↓ lower is better" if any(map(is_lower_better, metrics)) else None, caption_justify="left",
    )
    table.add_column("model", min_width=12, overflow="fold")
    table.add_column("role", no_wrap=True)
    for metric in metrics:
        title = words.column_title(metric).replace(" ↓", "\u00a0↓")
        table.add_column(title.replace(" ", "\n") if words.is_rows(report) else title, justify="right", no_wrap=True)
    for name in facts:
        table.add_column(name, justify="right", no_wrap=True)
    for model in report["models"]:
        values = [words.mean_of(model, metric) for metric in metrics]
        latency, gap = model["latency_ms"], model["gap_closed"]
        told = (words.human_count(model["parameters"]), words.human_bytes(model["bytes"]),
                words.human_ms(latency["p50"] if latency else None), "–" if gap is None else f"{gap:.0%}")
        table.add_row(
            escape(model["name"]), model["role"], *("–" if value is None else f"{value:.4f}" for value in values),
            *told[: len(facts)], style=_STYLES.get(model["role"], ""),
        )
    return table
