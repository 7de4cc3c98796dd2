"""Logs and item texts in, a `Split` out: read, clean, build, split.

The names are loaded when they are first used, so that importing the room costs nothing.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from distilrec.data.build import build_dataset
    from distilrec.data.clean import Cleaning
    from distilrec.data.entry import prepare
    from distilrec.data.features import describe_features, fit_features
    from distilrec.data.folder import load_split, save_split
    from distilrec.data.layouts import detect_layout, read_layout
    from distilrec.data.leaks import check_leaks
    from distilrec.data.read import read_table
    from distilrec.data.row_entry import prepare_rows
    from distilrec.data.row_folder import load_rows, save_rows
    from distilrec.data.shop_rows import shop_spec, shop_table
    from distilrec.data.simulate import simulate_shop
    from distilrec.data.text import encode_texts

__all__ = [
    "Cleaning",
    "build_dataset",
    "check_leaks",
    "describe_features",
    "detect_layout",
    "encode_texts",
    "fit_features",
    "load_rows",
    "load_split",
    "prepare",
    "prepare_rows",
    "read_layout",
    "read_table",
    "save_rows",
    "save_split",
    "shop_spec",
    "shop_table",
    "simulate_shop",
]

# functions that bear the name of their module (clean, split, guess) are imported from it, not from here
_HOME = {
    "Cleaning": "clean",
    "build_dataset": "build",
    "check_leaks": "leaks",
    "describe_features": "features",
    "detect_layout": "layouts",
    "encode_texts": "text",
    "fit_features": "features",
    "load_rows": "row_folder",
    "load_split": "folder",
    "prepare": "entry",
    "prepare_rows": "row_entry",
    "read_layout": "layouts",
    "read_table": "read",
    "save_rows": "row_folder",
    "save_split": "folder",
    "shop_spec": "shop_rows",
    "shop_table": "shop_rows",
    "simulate_shop": "simulate",
}


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOME[name]}"), name)


def __dir__() -> list[str]:
    return sorted(__all__)
