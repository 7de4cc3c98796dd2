"""All models of a run under one protocol: rank the test part once, with costs, and write the report."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from distilrec.errors import DataError, problem
from distilrec.evaluation.card import write_card
from distilrec.evaluation.cost import bundle_bytes, bundle_parameters, latency
from distilrec.evaluation.fusion import Fusion, cascade, fuse, learn_weights
from distilrec.evaluation.html import write_html
from distilrec.evaluation.metrics import evaluate_lists
from distilrec.evaluation.rank import recommend, recommend_bundle
from distilrec.evaluation.report import (
    ModelResult,
    build_report,
    dataset_facts,
    measure,
)
from distilrec.evaluation.schema import write_report
from distilrec.evaluation.terminal import print_report
from distilrec.progress import track
from distilrec.types import Lister, Ranker, Recommendations, Split

__all__ = ["Contestant", "Report", "contest", "timed_teacher", "together"]

_REQUESTS = 200  # of what asks the teacher too: it is slow, and its latency need not be known to the microsecond


@dataclass(frozen=True, eq=False)
class Contestant:
    """One model of a run with one trained instance per seed (a baseline has one, which stands for every seed)."""

    name: str
    role: str
    instances: Sequence[Ranker | Lister]
    valid: Mapping[str, Sequence[float]] = field(default_factory=dict)
    train_seconds: float | None = None
    curves: Sequence[Mapping[str, Any]] = ()
    timed: Lister | None = None  # what latency is measured on where the instances are rankers
    requests: int | None = None  # that latency is measured with; None: as many as for the others


@dataclass(frozen=True, eq=False)
class Report:
    """The result of a run: the JSON document, and views of it."""

    document: dict[str, Any]

    @property
    def verdict(self) -> str | None:
        """"distill", "do not distill" or "undecided"; None without a control."""
        return next((m["verdict"] for m in self.document["models"] if m["role"] == "student"), None)

    def __getitem__(self, key: str) -> Any:
        return self.document[key]

    def __repr__(self) -> str:
        return f"Report({self.verdict}, {', '.join(model['name'] for model in self.document['models'])})"

    def __str__(self) -> str:
        from rich.console import Console

        console = Console(width=140, no_color=True)
        with console.capture() as capture:
            print_report(self.document, console=console)
        return capture.get()

    def save(self, out: str | Path) -> dict[str, Path]:
        """Write OUT/report.json, OUT/report/report.html and OUT/report/card.md; returns their paths by name.

        Raises:
            MissingExtraError: the page needs the extra "report".
        """
        out = Path(out)
        files = {"page": write_html(self.document, out / "report" / "report.html"),
                 "card": write_card(self.document, out / "report" / "card.md")}
        return {**files, "report": write_report(self.document, out / "report.json")}


def timed_teacher(teacher: Contestant) -> Contestant:
    """With the latency of its first instance, for those who compare it with a fusion or a cascade: a ranker has no
    bundle that could be timed, so it is asked as the only source of a fusion. What looks answers up that were computed
    elsewhere has no latency that would mean anything."""
    first = teacher.instances[0]
    if not isinstance(first, Ranker) or getattr(first, "looked_up", False):
        return teacher
    return replace(teacher, timed=fuse(teacher.instances[:1], name=teacher.name), requests=_REQUESTS)


def together(
    pairs: Sequence[tuple[Any, Any]], fusion: Sequence[str], depths: Sequence[int], *, metric: str, seen: str,
    learn_from: Sequence[tuple[Any, Any, Split]] = (),
) -> list[Contestant]:
    """Teacher and student as one, in each of the ways of fusion.FUSIONS and as a cascade of each depth.

    pairs: (teacher, student), one for each seed.
    learn_from: for each seed teacher, student and the split whose validation part chooses the weights of the learned
        fusion by `metric`.
    """
    chosen = []
    for method in fusion:
        weights = [None if method != "learned" else learn_weights((teacher, student), split, metric=metric, seen=seen)
                   for teacher, student, split in learn_from] or [None] * len(pairs)
        how = "weighted" if method == "learned" and learn_from else method
        chosen.append(Contestant(f"fusion-{method}", "fusion", requests=_REQUESTS, instances=[
            fuse(pair, how, weights=w, name=f"fusion-{method}") for pair, w in zip(pairs, weights, strict=True)]))
    return chosen + [Contestant(f"cascade-{depth}", "fusion", requests=_REQUESTS, instances=[
        cascade(student, teacher, depth, name=f"cascade-{depth}") for teacher, student in pairs]) for depth in depths]


def contest(
    contestants: Sequence[Contestant], split: Split, *, metric: str = "ndcg@10", k: Sequence[int] = (10, 20),
    seen: str = "drop", candidates: Any = "full", seeds: Sequence[int] = (0,),
    recipe: str | dict[str, Any] | None = None,
    lineage: Mapping[str, Any] | None = None, vectors: np.ndarray | None = None, requests: int = 1000,
    notes: Sequence[str] = (),
) -> Report:
    """Read the test part, once, and report on every contestant.

    Raises:
        DataError: no test events, or a contestant with neither one instance nor one per seed.
    """
    if split.n_events("test") == 0:
        raise DataError(problem("the split has no test events", "at least one user with a test event",
                                "look at the counts that `distilrec prepare` printed"))
    results = []
    with track(sum(len(c.instances) for c in contestants), "evaluating") as progress:
        for contestant in contestants:
            if len(contestant.instances) not in (1, len(seeds)):
                raise DataError(problem(f"{contestant.name!r} has {len(contestant.instances)} instances",
                                        f"one, or one for each of {len(seeds)} seeds"))
            results.append(_result(contestant, split, metric, k, seen, candidates, len(seeds), vectors, requests,
                                   progress))
    protocol = {"split": split.method, "candidates": candidates, "selection": "validation", "seeds": list(seeds),
                "k": list(k), "seen": seen}
    return Report(build_report(
        task="rank", recipe=recipe, dataset=dataset_facts(split), protocol=protocol, models=results, metric=metric,
        lineage={"split_digest": split.digest, **(lineage or {}), **_weights(contestants)}, notes=notes,
    ))


def _weights(contestants: Sequence[Contestant]) -> dict[str, Any]:
    """What each source counts for in a learned fusion, teacher first, by seed."""
    found = {c.name: [one.weights.tolist() for one in c.instances if isinstance(one, Fusion)]
             for c in contestants if c.name == "fusion-learned"}
    return {"fusion_weights": found} if found else {}


def _result(
    one: Contestant, split: Split, metric: str, k: Sequence[int], seen: str, candidates: Any, n_seeds: int,
    vectors: np.ndarray | None, requests: int, progress: Any,
) -> ModelResult:
    lists, valid = [], {name: list(values) for name, values in one.valid.items()}
    for instance in one.instances:
        lists.append(_ranked(instance, split, "test", max(k), seen, candidates))
        progress.advance(1, model=one.name)
    if metric not in valid and split.n_events("valid"):
        cut = metric.split("@")[1]
        ranked = [_ranked(instance, split, "valid", int(cut), seen, "full") for instance in one.instances]
        valid[metric] = [float(np.nanmean(evaluate_lists(r, split, "valid", [int(cut)])[metric])) for r in ranked]
    repeat = n_seeds if len(lists) == 1 else 1  # a baseline is the same for every seed
    served = one.timed or next((i for i in one.instances if not isinstance(i, Ranker)), None)
    path = getattr(served, "path", None)
    return measure(
        one.name, one.role, lists * repeat, split, k=k, vectors=vectors,
        valid={name: values * (n_seeds if len(values) == 1 else 1) for name, values in valid.items()},
        parameters=bundle_parameters(path) if path is not None else _parameters(one.instances[0]),
        bytes=bundle_bytes(path) if path is not None else None,
        train_seconds=one.train_seconds, curves=one.curves,
        latency_ms=None if served is None else latency(served, split, k=10, requests=one.requests or requests),
    )


def _ranked(instance: Any, split: Split, part: Any, k: int, seen: Any, candidates: Any) -> Recommendations:
    """A bundle is asked itself, the thing that is served; sampled candidates need the scores of a ranker."""
    if isinstance(instance, Ranker):
        return recommend(instance, split, part, k, seen=seen, candidates=candidates)
    if candidates != "full":
        raise DataError(problem("a bundle answers over the whole catalog only", 'candidates: "full"',
                                "measure the model itself where a protocol demands sampled candidates"))
    return recommend_bundle(instance, split, part, k, seen=seen)


def _parameters(instance: Any) -> int | None:
    return getattr(instance, "parameters", None)
