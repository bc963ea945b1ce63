"""What numba may compile, in both ways: numpy's in the quick layer, the compiled one in another."""

import pytest

COMPILED = (pytest.mark.main, pytest.mark.xdist_group("compiled"))
"""Marks of what compiles: on one worker, where each function is compiled once."""

BOTH = pytest.mark.parametrize(
    "compiled",
    [pytest.param(False, id="numpy"), pytest.param(True, id="compiled", marks=COMPILED)],
)
