"""Certified minima, held against every cell of the arrangement of lines."""

import itertools

import numpy as np
import pytest
from randomlists import COMPILED, random_lists

from w2ltune.formats.nbest import NBest
from w2ltune.scoring.nbestpool import Pool
from w2ltune.search import certified
from w2ltune.search.boxcore import search_of
from w2ltune.search.boxes import Progress, lists_in, root
from w2ltune.search.certified import Certificate, certify

pytestmark = COMPILED
RARER = pytest.mark.slow(seconds=10)  # code of its own for each number of weights
COLUMNS = [4, pytest.param(2, marks=RARER), pytest.param(5, marks=RARER)]


def cell_points(nbest: NBest, low: np.ndarray, high: np.ndarray) -> np.ndarray:
    """Points [points, 3] of a box of two weights, one at least in each cell where choices differ.

    The lines on which two scores are equal meet each other and the box at some abscissae. Between
    two neighbours of these no lines cross: the middles between the lines on one vertical meet all
    cells there.
    """
    lines = []
    for begin, end in itertools.pairwise(nbest.offsets):
        for a, b in itertools.combinations(nbest.features[begin:end], 2):
            lines.append(a - b)
    lines += [(-end[1], 1.0, 0.0) for end in (low, high)]
    lines += [(-end[2], 0.0, 1.0) for end in (low, high)]
    c, a, b = np.array(lines).T
    first, second = np.triu_indices(len(c), 1)
    with np.errstate(divide="ignore", invalid="ignore"):
        x = (b[first] * c[second] - b[second] * c[first]) / (
            a[first] * b[second] - a[second] * b[first]
        )
    x = np.unique(x[(x >= low[1]) & (x <= high[1])])
    x = (x[:-1] + x[1:]) / 2
    with np.errstate(divide="ignore", invalid="ignore"):
        y = -(c + np.outer(x, a)) / b
    y = np.sort(np.clip(np.nan_to_num(y, nan=low[2]), low[2], high[2]), axis=1)
    y = (y[:, :-1] + y[:, 1:]) / 2
    points = np.empty((y.size, 3))
    points[:, 0], points[:, 1], points[:, 2] = 1.0, np.repeat(x, y.shape[1]), y.ravel()
    return points


LOW, HIGH = np.array([1.0, -1.0, -0.5]), np.array([1.0, 2.0, 1.5])


@pytest.fixture(scope="module")
def enumerated() -> list[tuple[NBest, int]]:
    """Lists with two free weights, and the least errors of all cells."""
    rng = np.random.default_rng(7)
    instances = [random_lists(rng, 6, 5, 3) for _ in range(20)]
    return [
        (nbest, int(Pool(nbest).errors(cell_points(nbest, LOW, HIGH)).min())) for nbest in instances
    ]


def test_two_weights_against_all_cells(enumerated: list[tuple[NBest, int]]) -> None:
    low, high = LOW, HIGH
    gained = 0
    for nbest, expected in enumerated:
        found = certify(nbest, low, high)
        assert found.errors == expected
        assert found.complete
        assert found.bound == expected or found.slivers
        assert found.bound <= expected
        assert Pool(nbest).errors(found.weights).tolist() == [expected]
        assert (found.weights >= low).all()
        assert (found.weights <= high).all()
        gained += int(Pool(nbest).errors((low + high) / 2)[0]) - expected
    assert gained > 20


def test_coarse_scores_with_ties() -> None:
    rng = np.random.default_rng(8)
    # Round ends, where scores are equal: these points count as well, with ties to more errors.
    low, high = np.array([1.0, -1.0, -1.0]), np.array([1.0, 1.0, 1.0])
    for _ in range(15):
        nbest = random_lists(rng, 5, 4, 3, coarse=True)
        expected = int(Pool(nbest).errors(cell_points(nbest, low, high)).min())
        found = certify(nbest, low, high, smallest=1e-2)
        assert found.bound <= expected == found.errors
        assert found.gap == 0 or found.slivers


@RARER
def test_one_weight_is_the_exact_line() -> None:
    rng = np.random.default_rng(9)
    for number in range(16):
        nbest = random_lists(rng, 300 if number % 2 else 40, 12, 2)
        line = Pool(nbest).line([1, 0], [0, 1], -2, 3)
        found = certify(nbest, [1, -2], [1, 3], smallest=1e-10)
        assert found.errors == found.bound == line.errors.min()


@pytest.mark.parametrize("columns", COLUMNS)
def test_no_sample_is_below_the_bound(columns: int) -> None:
    rng = np.random.default_rng(columns)
    nbest = random_lists(rng, 12, 5, columns)
    low, high = np.full(columns, -1.0), np.full(columns, 1.0)
    low[0] = high[0] = 1.0
    found = certify(nbest, low, high, smallest=1e-2)
    weights = rng.uniform(low, high, (10_000, columns))
    near = found.weights + rng.normal(0, 0.01, (10_000, columns)) * (high - low)
    pool = Pool(nbest)
    assert pool.errors(weights).min() >= found.bound
    assert pool.errors(np.clip(near, low, high)).min() >= found.bound
    assert found.errors <= pool.errors(weights).min()


class Clock:
    """Goes on by a second at each look: the same search is broken off at the same place."""

    looks = 0

    def process_time(self) -> float:
        self.looks += 1
        return float(self.looks)


@pytest.mark.parametrize("memory_bytes", [0, 2**29])
def test_an_interrupted_search_has_a_true_bound(
    memory_bytes: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = Clock()
    monkeypatch.setattr(certified, "time", clock)
    rng = np.random.default_rng(10)
    nbest = random_lists(rng, 400, 12, 4)
    low, high = np.array([1.0, -1, -1, -1]), np.array([1.0, 1, 1, 1])

    def search(looks: float) -> Certificate:
        clock.looks = 0
        return certify(
            nbest, low, high, smallest=1e-4, time_limit_seconds=looks,
            memory_bytes=memory_bytes,
        )  # fmt: skip

    most = 100
    whole = search(most)
    assert not whole.complete and whole.gap
    assert clock.looks <= most + 5
    best, bounds = whole.errors, []
    for looks in [0, *rng.integers(1, most, 6).tolist()]:
        part = search(looks)
        best = min(best, part.errors)
        bounds.append(part.bound)
        assert part.gap >= 0
        assert part.complete or part.gap
    assert max(bounds) <= best
    assert Pool(nbest).oracle_errors() <= min(bounds)


def test_an_incumbent_helps() -> None:
    nbest = random_lists(np.random.default_rng(11), 60, 6, 3)
    low, high = np.array([1.0, -1, -1]), np.array([1.0, 1, 1])
    cold = certify(nbest, low, high)
    warm = certify(nbest, low, high, incumbent=cold.weights)
    assert warm.errors == warm.bound == cold.errors == cold.bound
    assert warm.boxes < cold.boxes
    assert warm.weights.tolist() == cold.weights.tolist()


@RARER
def test_nothing_to_search() -> None:
    nbest = random_lists(np.random.default_rng(12), 5, 4, 2)
    found = certify(nbest, [1, 0.5], [1, 0.5])
    assert found.complete
    assert found.errors == found.bound == Pool(nbest).errors([1, 0.5])[0]


def test_twins_do_not_keep_boxes_open() -> None:
    """Equal features but for a column of weight 0; the one with more errors stands for both."""
    nbest = NBest(
        offsets=np.array([0, 2]),
        features=np.array([[1.0, 0.5, 0.0], [1.0, 0.5, 9.0]]),
        errors=np.array([0, 1], dtype=np.int32),
        text_hash=np.zeros(2, dtype=np.uint64),
        reference_words=np.array([2], dtype=np.int32),
    )
    found = certify(nbest, [1, -1, 0], [1, 1, 0])
    assert (found.errors, found.bound) == (1, 1)


@pytest.mark.parametrize(
    ("low", "high", "message"),
    [
        ([1, 2], [1, 1], "no box from"),
        ([1], [1, 1], "are not 2 finite weights"),
        ([1, 0], [1, np.inf], "are not 2 finite weights"),
    ],
)
def test_bad_boxes_are_refused(low: list[float], high: list[float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        certify(random_lists(np.random.default_rng(0), 3, 3, 2), low, high)


@pytest.mark.parametrize("columns", COLUMNS)
def test_the_bound_of_each_open_box_holds_inside(columns: int) -> None:
    rng = np.random.default_rng(columns)
    nbest = random_lists(rng, 200, 6, columns)
    low, high = np.full(columns, -1.0), np.full(columns, 1.0)
    low[0] = high[0] = 1.0
    lists, pool = lists_in(nbest, low, high, 1e-6), Pool(nbest)
    search = search_of(lists)
    progress = Progress(errors=lists.errors_at(lists.centre), point=lists.centre)
    whole = root(lists)
    boxes, looked_at = [whole], 0
    for share in (0.3, 0.6, 0.8, 0.9):
        threshold = whole.bound + share * (progress.errors - whole.bound)
        boxes = [part for box in boxes for part in search(box, progress, threshold, lambda: False)]
        for box in rng.choice(np.array(boxes, dtype=object), min(len(boxes), 20)):
            inside = box.centre + rng.uniform(-1, 1, (200, columns - 1)) * box.half
            errors = pool.errors(np.column_stack([np.ones(200), inside]))
            assert errors.min() >= box.bound
            looked_at += 1
    assert looked_at > 5


@RARER
def test_ramps_that_are_all_rounding_prove_nothing() -> None:
    """A ramp that falls over a tiny part of its scores, among others of thousands of errors."""
    middle, half = -0.515, 0.485

    def entry(score: float, slope: float, errors: int) -> tuple[float, float, int]:
        return score - slope / half * middle, slope / half, errors

    for step, number in itertools.product((1000, 20000), range(0, 400, 80)):
        epsilon = 2e-13 * (1 + number * 2e-2)
        lists = [
            [entry(0, 0, step), entry(-0.1, 1, 0), entry(-0.5, 2.5 - epsilon, 0)],
            [entry(0, 0, 5), entry(-0.99, 1, 0)],
            [entry(0, 0, 5), entry(-0.99, -1, 0)],
            [(0.0, 0.0, 0), (0.031, 1.0, 3)],
        ]
        rows = [row for one in lists for row in one]
        nbest = NBest(
            offsets=np.append(0, np.cumsum([len(one) for one in lists])).astype(np.int64),
            features=np.array([row[:2] for row in rows]),
            errors=np.array([row[2] for row in rows], dtype=np.int32),
            text_hash=np.arange(len(rows), dtype=np.uint64),
            reference_words=np.full(len(lists), 60, dtype=np.int32),
        )
        start = [1, 0.5]
        found = certify(nbest, [1, -1], [1, 1], incumbent=start)
        sampled = Pool(nbest).errors(np.column_stack([np.ones(4001), np.linspace(-1, 1, 4001)]))
        assert found.bound <= sampled.min()
