"""Every row of the table of losses leads to a function that says what it computes and where it comes from."""

from __future__ import annotations

from importlib import import_module

import pytest

from distilrec.losses import HARD, LOSSES, ROW_HARD, ROW_LOSSES, ROW_SOFT, SOFT

EVERY = {**LOSSES, **ROW_LOSSES}


@pytest.mark.parametrize("name", list(EVERY))
def test_a_loss_is_named_after_what_it_computes_and_cites_its_source(name: str) -> None:
    module, _, attribute = EVERY[name].partition(":")
    function = getattr(import_module(module), attribute)
    assert function.__name__ == name
    assert "Source: " in function.__doc__
    assert "[B]" in function.__doc__


def test_every_loss_is_either_hard_or_soft() -> None:
    assert sorted([*HARD, *SOFT]) == sorted(LOSSES)
    assert sorted([*ROW_HARD, *ROW_SOFT]) == sorted(ROW_LOSSES)
