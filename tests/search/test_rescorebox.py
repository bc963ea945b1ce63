"""Ranges that follow the scales of the scores."""

import dataclasses

import numpy as np
import pytest
from randomlists import random_lists

from w2ltune.search.certified import certify
from w2ltune.search.rescorebox import REACH, score_box, spreads, widen


def test_spread_within_utterances() -> None:
    nbest = random_lists(np.random.default_rng(0), 300, 9, 2)
    features = nbest.features * [2.0, 0.1]
    shifts = np.repeat(np.arange(300.0)[:, None] * 100, np.diff(nbest.offsets), axis=0)
    spread = spreads(dataclasses.replace(nbest, features=features + shifts))
    lists = [
        features[a:b] for a, b in zip(nbest.offsets, nbest.offsets[1:], strict=False) if b - a > 1
    ]
    expected = np.sqrt(np.mean([rows.var(axis=0) for rows in lists], axis=0))
    np.testing.assert_allclose(spread, expected)


@pytest.mark.main
@pytest.mark.xdist_group("compiled")
def test_a_factor_of_a_column_changes_nothing() -> None:
    nbest = random_lists(np.random.default_rng(1), 15, 4, 3)
    factors = np.array([1.0, -250.0, 0.004])  # one with the sign the wrong way round
    scaled = dataclasses.replace(nbest, features=nbest.features * factors)
    low, high = score_box(nbest)
    assert (low[0], high[0]) == (1, 1)
    assert (low[1:] == -high[1:]).all()
    np.testing.assert_allclose(score_box(scaled)[1][1:], high[1:] / np.abs(factors[1:]))
    found = certify(nbest, low, high)
    assert certify(scaled, *score_box(scaled)).errors == found.errors
    # All scores in another unit.
    other = dataclasses.replace(nbest, features=nbest.features * 100)
    np.testing.assert_allclose(score_box(other)[1], high)


def test_columns_that_differ_nowhere() -> None:
    nbest = random_lists(np.random.default_rng(2), 40, 6, 3)
    nbest.features[:, 2] = 0.1
    low, high = score_box(nbest)
    assert (low[2], high[2]) == (0, 0)
    nbest.features[:, 0] = 0.3  # no acoustic score: only the directions of the others count
    low, high = score_box(nbest)
    assert high[1] == REACH / spreads(nbest)[1]
    single = random_lists(np.random.default_rng(2), 40, 1, 2)
    assert score_box(single)[1].tolist() == [1, 0]


def test_widening_goes_beyond_the_faces() -> None:
    low, high = widen(np.array([1.0, -2, 0]), np.array([1.0, 2, 3]), [(1, "low"), (2, "high")])
    assert (low.tolist(), high.tolist()) == ([1, -6, 0], [1, 2, 6])
    both = widen(np.array([0.0]), np.array([1.0]), [(0, "low"), (0, "high")])
    assert [end.tolist() for end in both] == [[-1], [2]]
