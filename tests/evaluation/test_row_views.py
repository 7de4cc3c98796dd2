"""The views of a report of rows: the same page, card and table as of a ranking, with what only rows have."""

from __future__ import annotations

import copy
import io
import re
from typing import Any

import numpy as np
import pytest
from rich.console import Console

import rows_world
from distilrec.evaluation import words
from distilrec.evaluation.card import render_card
from distilrec.evaluation.html import render_html
from distilrec.evaluation.row_contest import RowContestant, row_contest
from distilrec.evaluation.schema import validate_report
from distilrec.evaluation.terminal import print_report, table_metrics
from distilrec.types_rows import RowSplit

EVIL = '<script>alert("1")</script>|`[bold]&amp;'


class Blurred:
    """The labels in logits, under noise."""

    parameters = 50

    def __init__(self, noise: float, seed: int) -> None:
        self.name, self.noise, self.seed = "blurred", noise, seed

    def predict(self, split: RowSplit, rows: np.ndarray) -> np.ndarray:
        labels = np.nan_to_num(split.label_matrix(np.arange(len(split))), nan=0.5)
        noise = np.random.default_rng(self.seed).normal(0, self.noise, labels.shape)
        return (2 * labels - 1 + noise)[rows].astype(np.float32)


def made(metric: str, heads: Any = rows_world.HEADS, slices: tuple[str, ...] = ("colors",)) -> dict[str, Any]:
    models = [RowContestant(name, role, [Blurred(noise, 0), Blurred(noise, 1)]) for name, role, noise in (
        ("big", "teacher", 0.8), ("small", "student", 1.1), ("alone", "control", 2.0))]
    models.append(RowContestant("base", "baseline", [Blurred(9.0, 3)]))
    table = rows_world.table(900, heads=heads)
    return row_contest(models, table, metric=metric, seeds=(0, 1), slices=slices, resamples=100).document


@pytest.fixture(scope="module")
def report() -> dict[str, Any]:
    return made("click.auc")


@pytest.fixture(scope="module")
def of_loss() -> dict[str, Any]:
    return made("log_loss", rows_world.HEADS[:1])


def printed(report: dict[str, Any], width: int = 160) -> str:
    stream = io.StringIO()
    print_report(report, console=Console(file=stream, width=width))
    return stream.getvalue()


def test_sentences_of_an_auc_count_from_guessing(report: dict[str, Any]) -> None:
    text = " ".join(words.verdict_sentences(report)).replace("\u00a0", " ")
    found = report["comparisons"][0]
    assert f"click AUC of the distilled student is {found['gain']:.1%} higher than" in text
    assert "counted above the .5 of guessing" in text and f"{found['n']} groups)" in text
    big, small = (words.mean_of(words.model_named(report, name), "click.auc") for name in ("big", "small"))
    assert f"keeps {(small - 0.5) / (big - 0.5):.0%} of the teacher's click AUC above guessing" in text
    student = words.main_student(report)
    mean, error = (words.mean_of(student, f"click.{name}") for name in ("mean_prediction", "calibration_error"))
    rate = report["dataset"]["heads"]["click"]["base_rate"]
    assert f"It predicts {mean:.1%} on average where {rate:.1%} happens; its calibration error is {error:.4f}" in text


def test_sentences_of_a_loss_are_turned_around(of_loss: dict[str, Any]) -> None:
    text = " ".join(words.verdict_sentences(of_loss))
    assert words.headline(of_loss) == "Distill"
    assert "lower than that of the same model" in text and "lower is better" in text
    assert re.search(r"Its log loss is 0\\.\d{4} where the teacher's is 0\\.\d{4} \(\+", text.replace(".", "\\."))
    assert "a plain baseline" not in text, "a baseline with a higher loss is not better"
    swapped = copy.deepcopy(of_loss)
    for model in swapped["models"]:
        if model["role"] == "baseline":
            model["metrics"]["test"]["log_loss"]["mean"] = 0.01
    assert any("But base, a plain baseline, is better" in one for one in words.verdict_sentences(swapped))
    words.comparison_of(swapped, words.main_student(swapped)["name"], "base", "log_loss")["interval"] = [-0.1, 0.2]
    assert any("is ahead of the student, though not surely" in one for one in words.verdict_sentences(swapped))


def test_columns_fit_the_task_and_name_the_better_direction(report: dict[str, Any], of_loss: dict[str, Any]) -> None:
    assert table_metrics(report) == ["click.auc", "click.gauc", "click.log_loss", "click.calibration_error", "buy.auc",
                                     "rating.rmse", "tags.micro_f1"]
    assert table_metrics(of_loss) == ["log_loss", "auc", "gauc", "calibration_error"]
    assert table_metrics(made("micro_f1", rows_world.HEADS[3:], ()))[:2] == ["micro_f1", "log_loss"]
    assert table_metrics(made("rmse", rows_world.HEADS[2:3], ())) == ["rmse", "mae"]
    for text in (printed(of_loss), render_card(of_loss), render_html(of_loss)):
        text = text.replace("\u00a0", " ")
        assert "loss ↓" in text and "AUC ↓" not in text and re.search("lower is\\s+better", text)


@pytest.mark.parametrize("width", [80, 100, 200])
def test_terminal_shows_numbers_whole(report: dict[str, Any], width: int) -> None:
    text = printed(report, width)
    assert "…" not in text and max(map(len, text.splitlines())) <= width
    assert f"{words.mean_of(words.main_student(report), 'click.auc'):.4f}" in text
    assert "900 rows, 21 groups" in text


def test_page_has_what_only_rows_have(report: dict[str, Any]) -> None:
    text = render_html(report)
    for expected in ("Calibration", "Slices", "colors=red", "Classes", "cheap", "900 rows · 21 groups", "gain",
                     "Measured on", "GAUC and UAUC of click leave out", "<h3>rating</h3>"):
        assert expected in text, expected
    for absent in ("Popular and rare", "full catalog", "Items of the history", ">users<"):
        assert absent not in text, absent
    drawings = "".join(re.findall(r"<svg.*?</svg>", text, flags=re.S))
    assert set(re.findall(r'(?:fill|stroke)="([^"]+)"', drawings)) <= {
        "none", "transparent", *(f"var(--{name})" for name in (
            "ink", "soft", "line", "teacher", "member", "student", "control", "baseline", "fusion", "compressed"))}
    assert all(f">{head}<" in drawings for head in ("click", "buy", "rating", "tags"))


def test_card_has_slices_and_base_rates(report: dict[str, Any]) -> None:
    text = render_card(report)
    for expected in ("## Slices", "| colors=red |", "click (binary): observed on 180 test rows, base rate 0.",
                     "rating (number)", "900 rows, 21 groups", "Thresholds: highest F1"):
        assert expected in text, expected
    assert "catalog" not in text and "users" not in text


def test_user_text_is_escaped(report: dict[str, Any]) -> None:
    document = copy.deepcopy(report)
    name = f"colors={EVIL}"
    document["dataset"]["slices"] = {name: 5}
    document["notes"] = [EVIL]
    for model in document["models"]:
        model["groups"][name] = model["groups"]["colors=red"]
        model["calibration"] = {EVIL: model["calibration"]["click"]}
    validate_report(document)
    text = render_html(document)
    assert "<script" not in text and "&lt;script&gt;" in text
    card = render_card(document)
    assert "<script" not in card.replace("\\<script", "")
    for table in re.findall(r"(?:^\|.*\n)+", card, flags=re.M):
        assert len({len(re.findall(r"(?<!\\)\|", line)) for line in table.splitlines()}) == 1


def test_views_of_an_undefined_main_metric() -> None:
    """One class only: the page, the card and the table say so, and nothing fails."""
    table = rows_world.table(300, heads=rows_world.HEADS[:1])
    table.labels["click"][table.rows("test")] = 1.0
    models = [RowContestant(role, role, [Blurred(1.0, 0)]) for role in ("student", "control")]
    document = row_contest(models, table, metric="auc", resamples=20).document
    validate_report(document)
    for text in (printed(document), render_card(document), render_html(document)):
        assert "AUC is not defined on the test part" in text and "No verdict" in text
        assert "not defined on the test part, whose" in text or text == printed(document)
