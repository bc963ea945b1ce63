"""Errors at several depths, held against a plain loop over the first k hypotheses."""

import itertools

import numpy as np
import pytest
from bothways import BOTH
from randomlists import plain_choice, random_lists

from w2ltune.scoring.depths import cut, errors_by_depth
from w2ltune.scoring.kernels import Batch
from w2ltune.scoring.nbestpool import Pool

KS = [1, 3, 2, 5, 5, 40, 8]


@BOTH
@pytest.mark.parametrize("columns", [1, 3])
def test_each_depth_is_that_of_the_plain_loop(compiled: bool, columns: int) -> None:
    rng = np.random.default_rng(columns)
    for coarse, first in itertools.product((False, True), repeat=2):
        nbest = random_lists(rng, 30, 12, columns, coarse=coarse)
        weights = rng.integers(-2, 3, (6, columns)).astype(float)
        expected = [
            [plain_choice(nbest, vector, k, first_of_equals=first) for k in KS]
            for vector in weights.tolist()
        ]
        found = errors_by_depth(nbest, weights, KS, first_of_equals=first)
        assert found.dtype == np.int64
        assert found.tolist() == expected
        batch = Batch(nbest, compiled=compiled)
        assert batch.errors_by_depth(weights, KS, first_of_equals=first).tolist() == expected


def test_long_lists_and_many_utterances() -> None:
    nbest = random_lists(np.random.default_rng(3), 300, 150, 3)
    vector = [1.0, 0.3, -0.2]
    ks = [1, 10, 50, 100, 150]
    expected = [plain_choice(nbest, vector, k) for k in ks]
    assert errors_by_depth(nbest, vector, ks).tolist() == [expected]


@pytest.mark.parametrize("k", [1, 4, 100])
def test_a_cut_list_is_a_depth(k: int) -> None:
    rng = np.random.default_rng(k)
    nbest = random_lists(rng, 40, 9, 3)
    weights = rng.normal(size=(20, 3))
    short = cut(nbest, k)
    assert np.diff(short.offsets).tolist() == np.minimum(np.diff(nbest.offsets), k).tolist()
    assert (
        Pool(short).errors(weights).tolist() == errors_by_depth(nbest, weights, [k])[:, 0].tolist()
    )


def test_nothing_and_what_is_refused() -> None:
    nbest = random_lists(np.random.default_rng(0), 3, 4, 2)
    assert errors_by_depth(nbest, np.empty((0, 2)), [1, 2]).shape == (0, 2)
    assert errors_by_depth(nbest, [1, 2], []).shape == (1, 0)
    with pytest.raises(ValueError, match="lists of 0 hypotheses"):
        errors_by_depth(nbest, [1, 2], [3, 0])
    with pytest.raises(ValueError, match="lists of 0 hypotheses"):
        cut(nbest, 0)
    with pytest.raises(ValueError, match=r"shape \[1, 3\] for 2 features"):
        errors_by_depth(nbest, [1, 2, 3], [1])
