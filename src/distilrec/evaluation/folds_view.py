"""A cross-validation in the terminal: a table of means and spreads, then what the differences mean."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from distilrec.evaluation import words
from distilrec.evaluation.verdict import is_lower_better

__all__ = ["print_folds", "sentences"]


def print_folds(document: Mapping[str, Any], console: Console | None = None) -> None:
    """A table of means and spreads, then what they mean."""
    console = console or Console()
    metrics = [m for m in _columns(document) if all(m in model["metrics"] for model in document["models"])]
    table = Table(title=f"{escape(document['dataset']['name'])}: {document['folds']} folds, mean ± deviation over "
                        f"folds, {len(document['seeds'])} seed{'s' if len(document['seeds']) > 1 else ''} each",
                  title_justify="left")
    table.add_column("model")
    table.add_column("role")
    for metric in metrics:
        table.add_column(words.column_title(metric), justify="right", no_wrap=True)
    table.add_column("params", justify="right")
    for model in document["models"]:
        table.add_row(escape(model["name"]), model["role"], *(_shown(model["metrics"][m]) for m in metrics),
                      words.human_count(model["parameters"]))
    console.print(table)
    for sentence in sentences(document):
        console.print(escape(sentence))


def sentences(document: Mapping[str, Any]) -> list[str]:
    """What the numbers mean, for somebody who has to decide."""
    metric, folds = document["metric"], document["folds"]
    told = []
    for c in document["comparisons"]:
        if c["metric"] != metric or c["of_units"] is None:
            continue
        sign = -1 if is_lower_better(metric) else 1
        better = sum(sign * value > 0 for value in c["per_fold"])
        told.append(
            f"{words.human_metric(metric)} of {c['a']} − {c['b']} = {words.human_signed(c['difference'])}, better in "
            f"{better} of {folds} folds. With other {document['protocol']['unit']} to test these models on: "
            f"{_span(c['of_units'])}. With other data to train on: {_span(c['of_training'])}.")
    shared = (folds - 2) / (folds - 1)
    return [*told, f"Intervals are of 95 %. Any two folds share {shared:.0%} of the rows that they do not test: the "
                   "deviation over folds is no standard error, and the t test over them is widened for it."]


def _columns(document: Mapping[str, Any]) -> list[str]:
    """The main metric and up to three that stand beside it in a report."""
    metric = document["metric"]
    measured = list(document["models"][0]["metrics"])
    cut, head = metric.partition("@")[2], metric.rpartition(".")[0]
    beside = [f"{name}@{cut}" for name in ("recall", "mrr", "coverage")] if document["task"] == "rank" else [
        f"{head}.{name}" if head else name for name in ("auc", "log_loss", "rmse", "mae", "micro_f1", "macro_f1")]
    return [metric, *[name for name in beside if name in measured and name != metric][:3]]


def _shown(stats: Mapping[str, Any]) -> str:
    return "–" if stats["mean"] is None else f"{stats['mean']:.4f} ± {stats['std']:.4f}"


def _span(test: Mapping[str, Any]) -> str:
    low, high = map(words.human_signed, test["interval"])
    return f"{low} to {high} (p {words.human_p(test['p_value'])})"
