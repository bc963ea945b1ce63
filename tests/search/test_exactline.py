"""Line searches against the certified minimum."""

from dataclasses import replace

import numpy as np
import pytest
from randomlists import random_lists

from w2ltune.scoring.nbestpool import LineErrors, Pool
from w2ltune.search.certified import certify
from w2ltune.search.exactline import middle_of_best_piece, search_lines


def test_the_middle_of_the_widest_best_piece() -> None:
    line = LineErrors(bounds=np.array([0.0, 1, 2, 4, 9]), errors=np.array([3, 1, 2, 1]))
    assert middle_of_best_piece(line) == 6.5


@pytest.mark.main
@pytest.mark.xdist_group("compiled")
def test_incumbents_fall_and_are_true() -> None:
    rng = np.random.default_rng(0)
    reached = 0
    for columns in (2, 3, 4, 6):
        nbest = random_lists(rng, 20, 6, columns)
        low, high = np.full(columns, -1.0), np.full(columns, 1.0)
        low[0] = high[0] = 1.0
        pool = Pool(nbest)
        found = list(search_lines(pool, low, high, restarts=20))
        errors = [incumbent.errors for incumbent in found]
        assert errors == sorted(set(errors), reverse=True)
        for incumbent in found:
            assert pool.errors(incumbent.weights).tolist() == [incumbent.errors]
            assert (low <= incumbent.weights).all()
            assert (incumbent.weights <= high).all()
        if columns < 4:
            reached += errors[-1] == certify(nbest, low, high).errors
        assert errors[-1] <= pool.errors(rng.uniform(low, high, (500, columns))).min()
    assert reached == 2


def test_one_weight_takes_one_line() -> None:
    nbest = random_lists(np.random.default_rng(1), 40, 8, 2)
    pool = Pool(nbest)
    *_, last = search_lines(pool, [1, -1], [1, 1], restarts=0)
    assert last.lines == 1
    assert last.errors == pool.line([1, 0], [0, 1], -1, 1).errors.min()


def test_a_seed_repeats_itself() -> None:
    nbest = random_lists(np.random.default_rng(2), 40, 8, 4)
    runs = [
        [
            (incumbent.weights.tolist(), incumbent.errors, incumbent.lines)
            for incumbent in search_lines(Pool(nbest), [1, -1, -1, -1], [1, 1, 1, 1], seed=seed)
        ]
        for seed in (3, 3, 4)
    ]
    assert runs[0] == runs[1] != runs[2]


def test_more_starts_and_fixed_weights_change_nothing_for_the_others() -> None:
    """So what was found with fewer weights is found with more, too."""
    nbest = random_lists(np.random.default_rng(4), 60, 8, 4)
    pool = Pool(nbest)
    low, high = np.array([1.0, -1, -1, 0]), np.array([1.0, 1, 1, 0])

    def least(pool: Pool, columns: int, *starts: list[float]) -> int:
        ends = low[:columns], high[:columns]
        *_, last = search_lines(pool, *ends, starts=[s[:columns] for s in starts], restarts=1)
        return last.errors

    start, other = [1.0, 0.5, -0.5, 0], [1.0, -0.5, 0.2, 0]
    fewer = Pool(replace(nbest, features=nbest.features[:, :3].copy()))
    assert least(fewer, 3, start) == least(pool, 4, start)
    assert least(pool, 4, start, other) <= min(least(pool, 4, start), least(pool, 4, other))


def test_the_start_is_moved_into_the_box_and_comes_first() -> None:
    nbest = random_lists(np.random.default_rng(3), 10, 4, 2)
    first = next(search_lines(Pool(nbest), [1, -1], [1, 1], starts=[[1, 5]]))
    assert first.weights.tolist() == [1, 1]
    fixed = list(search_lines(Pool(nbest), [1, 0.5], [1, 0.5]))
    assert [incumbent.lines for incumbent in fixed] == [0]
