"""What every module promises to export exists, and every module says what it exports."""

from __future__ import annotations

import importlib
import inspect
import pkgutil

import pytest

import distilrec

MODULES = ["distilrec", *(m.name for m in pkgutil.walk_packages(distilrec.__path__, "distilrec."))]


@pytest.mark.parametrize("name", MODULES)
def test_names_exist_and_stand_once(name: str) -> None:
    module = importlib.import_module(name)
    exported = getattr(module, "__all__", [])
    assert len(set(exported)) == len(exported)
    for one in exported:
        assert getattr(module, one) is not None


@pytest.mark.parametrize("name", MODULES)
def test_a_module_with_public_names_says_which_it_exports(name: str) -> None:
    module = importlib.import_module(name)
    own = {key for key, value in vars(module).items()
           if not key.startswith("_") and (inspect.isclass(value) or inspect.isfunction(value))
           and value.__module__ == name}
    assert not own or hasattr(module, "__all__"), f"{name} has no __all__"


def test_the_promised_face() -> None:
    promised = {"prepare", "teach", "extract", "distill", "export", "evaluate", "load", "blend", "extend"}
    assert promised <= set(distilrec.__all__)
    assert promised <= set(dir(distilrec))


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'distil'"):
        _ = distilrec.distil
