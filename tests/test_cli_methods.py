"""What `distilrec methods` lists: every name with a sentence of its own, whole at any width."""

from __future__ import annotations

import io
import re
from typing import get_args

import pytest
from rich.console import Console

from distilrec.cli_methods import Method, methods, print_methods
from distilrec.errors import RecipeError
from distilrec.knowledge.trust import RULES
from distilrec.losses import HARD, LOSSES, ROW_LOSSES, SOFT
from distilrec.models import BASELINES, MODELS, ROW_BASELINES, ROW_MODELS
from distilrec.recipe import KnowledgeSettings, StudentSection
from distilrec.teachers import ROW_TEACHERS, TEACHERS
from distilrec.training.settings import TrainSettings


def shown(width: int, name: str | None = None, *, terminal: bool = True) -> str:
    stream = io.StringIO()
    print_methods(name, Console(file=stream, width=width, force_terminal=terminal, no_color=True, color_system=None))
    return re.sub(r"\x1b\[[0-9;]*m", "", stream.getvalue())


def test_every_registered_name_is_listed_once_for_its_task() -> None:
    found = [(one.task, one.kind.split(" ")[0], one.name) for one in methods()]
    assert len(set(found)) == len(found)
    for task, tables in (("rank", (MODELS, BASELINES, TEACHERS, LOSSES)),
                         ("predict, tag", (ROW_MODELS, ROW_BASELINES, ROW_TEACHERS, ROW_LOSSES))):
        for kind, table in zip(("model", "baseline", "teacher", "loss"), tables, strict=True):
            assert [name for *where, name in found if where == [task, kind]] == list(table)


def test_every_rule_and_start_has_a_meaning_and_what_it_needs() -> None:
    rows = {(one.kind, one.name): one for one in methods() if one.task == "rank"}
    (weightings,) = (get_args(one) for one in get_args(TrainSettings.model_fields["weighting"].annotation))
    wanted = {
        "student.trust": list(RULES), "student.train.weighting": weightings,
        "student.train.teacher": [n for n in get_args(TrainSettings.model_fields["teacher"].annotation)
                                  if n != "store"],
        "knowledge.weights": [n for n in get_args(KnowledgeSettings.model_fields["weights"].annotation)
                              if n != "learned"],
        "student.start": [n for n in get_args(StudentSection.model_fields["start"].annotation)
                          if n not in ("none", "importance")],
        "student": ["own_temperature", "audit", "generations", "interpolation"], "student.layers": ["teacher"],
        "loss on labels": list(HARD), "loss on knowledge": list(SOFT),
    }
    for key, names in wanted.items():
        assert all(rows[key, name].needs for name in names), key
    assert all(rows["loss on knowledge", name].needs == signal for name, signal in SOFT.items())
    assert rows["student.trust", "confidence"].meaning.startswith("1 - H(p) / log K")


def test_no_two_meanings_are_equal_and_none_is_a_shape() -> None:
    every = list(methods())
    meanings = [one.meaning for one in every]
    assert len(set(meanings)) == len(meanings), [m for m in meanings if meanings.count(m) > 1]
    shape = re.compile(r"^(float32 )?\[\w+(, \w+)*\]:|:? \[B(, C)?\]\.$|one value per output")
    assert not [one for one in every if shape.search(one.meaning) or len(one.meaning) < 16]


@pytest.mark.parametrize("width", [50, 80, 100, 150, 250])
def test_nothing_is_cut_in_a_terminal_of_any_width(width: int) -> None:
    text = shown(width)
    assert "…" not in text
    assert max(map(len, text.splitlines())) <= width
    words = set(re.sub("[│┃]", " ", text).split())
    for one in methods():
        assert set(f"{one.name} {one.meaning} {one.needs}".split()) <= words, one.name


def test_a_pipe_gets_a_line_for_each_with_tabs() -> None:
    lines = shown(80, terminal=False).splitlines()
    assert [Method(*line.split("\t")) for line in lines] == list(methods())


def test_a_part_of_a_name_is_enough_and_an_unknown_one_names_the_nearest() -> None:
    assert {line.split("\t")[2] for line in shown(80, "Hint", terminal=False).splitlines()} == {"hint", "layer_hint"}
    with pytest.raises(RecipeError, match="no method has 'sasrek' in its name, did you mean 'sasrec'"):
        print_methods("sasrek")
