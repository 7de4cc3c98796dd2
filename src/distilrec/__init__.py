"""distilrec: large recommenders into small ones that a CPU core serves, and proof of what was kept.

    import distilrec as dr
    split = dr.prepare("ratings.parquet", items="movies.parquet", split="leave-last-out")
    teacher = dr.teach("text_sasrec", split, encoder="all-MiniLM-L6-v2")
    knowledge = dr.extract(teacher, split, top_k=100)
    student = dr.distill("sasrec", split, knowledge, dim=32, losses={"cross_entropy": 0.2, "kl": 0.8})
    bundle = dr.export(student, "movies.bundle", split)
    print(dr.evaluate(split, teacher=teacher, student=student))
    dr.load("movies.bundle").recommend(["1214", "1200"], k=10)

Clicks, ratings and tags begin with `dr.prepare_rows`; from there on the functions are the same, and the bundle has
`predict(rows)` and `rank(context, candidates)`.

Names are loaded when they are first used: importing the package costs nothing and never loads torch.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from distilrec.api import Student, blend, distill, evaluate, export, extend, extract, teach
    from distilrec.bundle.row_runtime import RowBundle
    from distilrec.bundle.runtime import Bundle, load
    from distilrec.data import (
        load_rows,
        load_split,
        prepare,
        prepare_rows,
        save_rows,
        save_split,
        shop_table,
        simulate_shop,
    )
    from distilrec.errors import (
        BundleError,
        DataError,
        DistilrecError,
        KnowledgeError,
        MissingExtraError,
        RecipeError,
        TrainingError,
    )
    from distilrec.evaluation.contest import Report
    from distilrec.evaluation.fusion import cascade, fuse
    from distilrec.knowledge.store import KnowledgeStore
    from distilrec.training.settings import TrainSettings

__version__ = "0.1.0"

__all__ = [
    "Bundle", "BundleError", "DataError", "DistilrecError", "KnowledgeError", "KnowledgeStore", "MissingExtraError",
    "RecipeError", "Report", "RowBundle", "Student", "TrainSettings", "TrainingError", "__version__", "blend",
    "cascade", "distill", "evaluate", "export", "extend", "extract", "fuse", "load", "load_rows", "load_split",
    "prepare", "prepare_rows", "save_rows", "save_split", "shop_table", "simulate_shop", "teach",
]

_HOME = {
    **dict.fromkeys(("Student", "blend", "distill", "evaluate", "export", "extend", "extract", "teach"), "api"),
    **dict.fromkeys(("Bundle", "load"), "bundle.runtime"),
    **dict.fromkeys(("load_rows", "load_split", "prepare", "prepare_rows", "save_rows", "save_split", "shop_table",
                     "simulate_shop"), "data"),
    **dict.fromkeys(("BundleError", "DataError", "DistilrecError", "KnowledgeError", "MissingExtraError", "RecipeError",
                     "TrainingError"), "errors"),
    **dict.fromkeys(("cascade", "fuse"), "evaluation.fusion"),
    "Report": "evaluation.contest", "RowBundle": "bundle.row_runtime", "KnowledgeStore": "knowledge.store",
    "TrainSettings": "training.settings",
}


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOME[name]}"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
