"""Leaving hypotheses out changes no choice in the box."""

import numpy as np
from randomlists import random_lists

from w2ltune.scoring.nbestpool import Pool
from w2ltune.scoring.winners import winners_only


def test_errors_in_the_box_stay() -> None:
    rng = np.random.default_rng(0)
    for number in range(16):
        nbest = random_lists(rng, 40, 20, 3, coarse=number % 2 == 1)
        low = np.array([1.0, *rng.uniform(-1, 0, 2)])
        high = np.array([1.0, *rng.uniform(0, 1, 2)])
        short = winners_only(nbest, low, high)
        assert short.hypotheses < nbest.hypotheses
        corners = np.array([[1.0, a, b] for a in (low[1], high[1]) for b in (low[2], high[2])])
        weights = np.concatenate([corners, rng.uniform(low, high, (500, 3))])
        assert Pool(short).errors(weights).tolist() == Pool(nbest).errors(weights).tolist()


def test_a_point_leaves_the_best_and_its_equals() -> None:
    nbest = random_lists(np.random.default_rng(1), 100, 20, 2)
    assert winners_only(nbest, [1, 0.5], [1, 0.5]).hypotheses == 100
    equal = winners_only(nbest, [0, 0], [0, 0])
    assert equal.hypotheses == nbest.hypotheses
