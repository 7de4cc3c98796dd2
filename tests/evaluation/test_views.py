"""Terminal, page and card: the same numbers in words, and nothing of a user's text gets out of its place."""

from __future__ import annotations

import builtins
import dataclasses
import io
import re
from html.parser import HTMLParser
from pathlib import Path

import pytest
from rich.console import Console

from distilrec.errors import MissingExtraError
from distilrec.evaluation import words
from distilrec.evaluation.card import render_card, write_card
from distilrec.evaluation.html import render_html, write_html
from distilrec.evaluation.terminal import print_report

EVIL = '<script>alert("1")</script>|`[bold]&amp;'


def printed(report: dict, **more: object) -> str:
    stream = io.StringIO()
    print_report(report, console=Console(file=stream, width=160), **more)
    return stream.getvalue()


class Page(HTMLParser):
    """Collects tags, attributes and text; complains about tags that do not close."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict]] = []
        self.text: list[str] = []
        self.open: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in ("meta", "br"):
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text.append(data)


def test_sentences_say_what_the_numbers_say(make_report) -> None:
    report = make_report()
    found = report["comparisons"][0]
    text = " ".join(words.verdict_sentences(report)).replace("\u00a0", " ")
    assert words.headline(report) == "Distill"
    # 500 resamples cannot say less than 2 / 501
    assert f"{found['relative']:.1%} higher than" in text and "p = .004, 400 users" in text
    assert f"interval {words.human_percent(found['relative_interval'][0])} to" in text
    assert "400 k parameters, 10.0 times fewer, and answers a request in 0.050 ms" in text
    assert f"closes {report['models'][1]['gap_closed']:.0%} of the gap" in text


def test_a_student_larger_than_its_teacher_is_not_called_smaller(make_report) -> None:
    report = make_report()
    report["models"][1]["compression_ratio"] = 0.025
    assert "400 k parameters, 40.0 times more, and" in " ".join(words.verdict_sentences(report))


def test_sentences_of_the_other_outcomes(make_report, make_models) -> None:
    models = make_models()
    same = dataclasses.replace(models[1], test=models[2].test)
    worse = make_report([models[0], same, models[2]])
    assert words.headline(worse) == "Do not distill"
    assert "equal to that of the same model" in words.verdict_sentences(worse)[0]
    lone = make_report([models[1]])
    assert words.headline(lone) == "No verdict"
    assert "No control was trained" in words.verdict_sentences(lone)[0]
    weak_teacher = make_report([dataclasses.replace(models[0], test=models[2].test), *models[1:]])
    assert "not surely better than the control" in words.verdict_sentences(weak_teacher)[-1]
    bad_teacher = make_report([dataclasses.replace(models[0], test=models[3].test), *models[1:]])
    assert any("The teacher is worse than the control" in line for line in words.verdict_sentences(bad_teacher))
    alone = words.verdict_sentences(make_report([models[3]]))
    assert alone == ["This run has no student, so there is nothing to decide."]
    swapped = [dataclasses.replace(models[1], test=models[3].test), *models[::2]]
    assert "lower than" in words.verdict_sentences(make_report(swapped))[0]
    assert "below its control" in words.verdict_sentences(make_report(swapped))[-1]


def test_terminal(make_report) -> None:
    report = make_report()
    text = printed(report, files={"report": "out/report.html"})
    rows = {line.split("│")[1].strip(): line for line in text.splitlines() if line.startswith("│")}
    assert set(rows) == {"big", "small", "alone", "popular"}
    assert f"{words.mean_of(report['models'][1], 'ndcg@10'):.4f}" in rows["small"]
    assert "400 k" in rows["small"] and "1.6 MB" in rows["small"] and "0.050 ms" in rows["small"]
    assert "Distill. The teacher pays off" in text and "report: out/report.html" in text


@pytest.mark.parametrize("width", [80, 100, 200])
def test_terminal_shows_numbers_whole(make_report, width: int) -> None:
    """A narrow terminal has fewer columns, never half a number."""
    report = make_report()
    stream = io.StringIO()
    print_report(report, console=Console(file=stream, width=width))
    text = stream.getvalue()
    assert "…" not in text and max(map(len, text.splitlines())) <= width
    assert f"{words.mean_of(report['models'][1], 'ndcg@10'):.4f}" in text
    assert ("A wider terminal shows recall@10, coverage@10 too." in text) == (width == 80)
    assert ("│ coverage@10 │" in text.replace("┃", "│")) == (width > 80)


def test_page_is_whole_and_closed(make_report) -> None:
    page = Page(render_html(make_report()))
    assert page.open == []
    text = " ".join(page.text)
    for expected in ("Distill", "Quality against cost", "Popular and rare items", "Differences", "Learning curves",
                     "How it was measured", "Where it comes from", "leave-last-out", "ab12", "cd34"):
        assert expected in text
    assert sum(tag == "svg" for tag, _ in page.tags) == 5


def test_page_needs_no_network_and_no_script(make_report) -> None:
    text = render_html(make_report())
    page = Page(text)
    assert not {tag for tag, _ in page.tags} & {"script", "link", "img", "iframe", "object", "image", "use"}
    attributes = {name for _, attrs in page.tags for name in attrs}
    assert not attributes & {"src", "href", "xlink:href"} and not any(name.startswith("on") for name in attributes)
    assert "default-src 'none'" in text and not re.search(r"url\((?!#)|@import", text)
    # what is left of addresses are names of XML vocabularies, which nobody fetches
    assert set(re.findall(r"https?://[^\"'\s<]+", text)) <= {"http://www.w3.org/2000/svg", "http://www.w3.org/1999/xlink"}


def test_page_has_no_color_that_dark_mode_cannot_change(make_report) -> None:
    text = render_html(make_report())
    drawings = "".join(re.findall(r"<svg.*?</svg>", text, flags=re.S))
    assert set(re.findall(r'(?:fill|stroke)="([^"]+)"', drawings)) <= {
        "none", "transparent", *(f"var(--{name})" for name in (
            "ink", "soft", "line", "teacher", "member", "student", "control", "baseline", "fusion", "compressed"))}


def test_user_text_is_escaped_everywhere(make_report, make_models) -> None:
    models = make_models()
    models[0] = dataclasses.replace(models[0], name=EVIL)
    models[1] = dataclasses.replace(models[1], name=f"s {EVIL}")
    report = make_report(
        models, lineage={EVIL: EVIL, "deep": {EVIL: 1}}, recipe=EVIL,
        dataset={"name": EVIL, "digest": EVIL, "users": 4, "items": 5, "interactions": 6},
        protocol={"split": EVIL, "candidates": {EVIL: 3}, "selection": "validation", "seeds": [0], "k": [10],
                  "seen": "keep", "note": EVIL},
    )
    text = render_html(report)
    page = Page(text)
    assert page.open == [] and "script" not in {tag for tag, _ in page.tags}
    assert "<script" not in text and "&lt;script&gt;" in text
    card = render_card(report)
    assert "<script" not in card.replace("\\<script", "")
    for table in re.findall(r"(?:^\|.*\n)+", card, flags=re.M):
        bars = {len(re.findall(r"(?<!\\)\|", line)) for line in table.splitlines()}
        assert len(bars) == 1, "a name added a column to a table"
    models[0] = dataclasses.replace(models[0], name="x[red]y")
    assert "│ x[red]y " in printed(make_report(models)), "rich would have eaten the brackets"


def test_page_of_a_bare_report(make_report, make_models) -> None:
    """No latency, no curves, no groups, one model: the sections go, the page stays."""
    bare = dataclasses.replace(make_models()[1], latency_ms=None, curves=(), groups={}, parameters=None, bytes=None)
    text = render_html(make_report([bare]))
    assert "Learning curves" not in text and "Quality against cost" not in text and "Popular and rare" not in text
    assert "No verdict" in text and "How it was measured" in text
    assert "| small | student |" in render_card(make_report([bare]))


def test_card_tells_provenance_and_limits(make_report, tmp_path: Path) -> None:
    report = make_report()
    text = write_card(report, tmp_path / "card.md").read_text(encoding="utf-8")
    for expected in ("# small", "**Distill.**", "ab12", "Teacher: big", "Control: alone", "Only 2 seed(s)", "the tail",
                     "the full catalog", "cd34"):
        assert expected in text
    sampled = {**report["protocol"], "candidates": {"sampled": 99}}
    assert "Sampled candidates make" in render_card({**report, "protocol": sampled})


def test_missing_extra_is_named_and_nothing_is_written(make_report, tmp_path: Path, monkeypatch) -> None:
    report, real = make_report(), builtins.__import__

    def without(name: str, *rest: object, **more: object):
        if name == "altair":
            raise ImportError(name)
        return real(name, *rest, **more)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(MissingExtraError, match=r"distilrec\[report\]"):
        write_html(report, tmp_path / "report.html")
    assert list(tmp_path.iterdir()) == []


def test_page_is_written(make_report, tmp_path: Path) -> None:
    path = write_html(make_report(), tmp_path / "report" / "report.html")
    assert path.read_text(encoding="utf-8").startswith("<!doctype html>")
    assert path.stat().st_size < 200_000


def test_a_baseline_above_the_student_is_not_passed_over(make_report, make_models) -> None:
    assert not any("needs no training" in one for one in words.verdict_sentences(make_report()))
    models = make_models()
    strong = dataclasses.replace(models[3], test={**models[3].test, "ndcg@10": models[0].test["ndcg@10"]})
    weak = dataclasses.replace(models[3], name="weak")
    report = make_report([*models[:3], weak, strong])
    student, best = (words.mean_of(words.model_named(report, name), "ndcg@10") for name in ("small", "popular"))
    expected = f"But popular, which needs no training, is better than the student: {best:.4f} against {student:.4f}."
    assert words.verdict_sentences(report)[-1] == expected
    assert "But popular" in render_card(report)


@pytest.mark.parametrize(("valid", "said"), [
    ([0.1, 0.15, 0.19, 0.2, 0.22], "by 10% on validation at the end"),
    ([0.1, 0.15, 0.19, 0.2, 0.209], None),  # what a falling rate brings in its last steps
    ([0.1, 0.15, 0.19, 0.2, 0.1], None),
    ([0.1, 0.12, 0.14, 0.15, 0.16, 0.17, 0.18, 0.2, 0.23, 0.22], None),  # it stopped early by itself
    ([0.1, 0.2], "by 100% on validation at the end"),
    ([0.1], None),
])
def test_a_control_that_was_cut_short_is_told_of(
    make_report, make_models, valid: list[float], said: str | None
) -> None:
    models = make_models()
    control = next(i for i, one in enumerate(models) if one.role == "control")
    models[control] = dataclasses.replace(models[control], curves=[
        {"seed": 1000, "step": 100 * (i + 1) // len(valid), "seconds": 1.0, "loss": 1.0, "valid": value}
        for i, value in enumerate(valid)])
    sentences = " ".join(words.verdict_sentences(make_report(models)))
    assert ("still getting better" in sentences) is (said is not None)
    assert (said or "") in sentences


def test_a_curve_is_read_by_the_metric_that_it_holds(make_report, make_models) -> None:
    models = make_models()
    control = next(i for i, one in enumerate(models) if one.role == "control")
    rising = [0.40, 0.39, 0.45, 0.55, 0.70]
    for metric, told in (("log_loss", False), ("ndcg@5", True)):
        models[control] = dataclasses.replace(models[control], curves=[
            {"seed": 0, "step": i + 1, "seconds": 1.0, "loss": 1.0, "valid": value, "metric": metric}
            for i, value in enumerate(rising)])
        assert ("still getting better" in " ".join(words.verdict_sentences(make_report(models)))) is told


def test_a_control_below_popularity_is_told_of(make_report, make_models) -> None:
    models = make_models()
    popular = dataclasses.replace(models[3], name="popularity")
    told = "worse than popularity"
    assert told not in " ".join(words.verdict_sentences(make_report([*models[:3], popular])))
    control = next(one for one in models if one.role == "control")
    strong = dataclasses.replace(popular, test={name: values + 0.01 for name, values in control.test.items()})
    assert told in " ".join(words.verdict_sentences(make_report([*models[:3], strong])))
    weak = make_report([*models[:3], strong])
    assert words.headline(weak) == "Undecided"
    assert "hence no verdict" in words.verdict_sentences(weak)[-1]


def test_a_member_that_beats_the_whole_is_told_of(make_report, make_models) -> None:
    models = make_models()
    worse, better = (dataclasses.replace(models[0], name=f"member {i}: x", role="member", test={
        name: values * factor for name, values in models[0].test.items()}) for i, factor in ((1, 0.5), (2, 1.2)))
    said = " ".join(words.verdict_sentences(make_report([models[0], worse, better, *models[1:]])))
    assert "But member 2: x alone is better than the whole teacher" in said
    assert "member 1" not in said
