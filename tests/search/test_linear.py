"""Where to decode next: proposals from real n-best lists, held against real decodes."""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Sequence

import numpy as np
import pytest
from realdecodes import Decode, Decodes, make_box

from w2ltune.formats.distributions import FloatRange
from w2ltune.scoring.nbest import merge
from w2ltune.scoring.nbestpool import Pool
from w2ltune.search.linear import (
    Box,
    Point,
    Proposal,
    fit_residual,
    propose,
)
from w2ltune.search.plateau import TEMPERATURE, UNDETERMINED, plateau_mean, spread_points
from w2ltune.search.residual import Vector
from w2ltune.search.space import ANCESTOR_RANGES

BOX = make_box(ANCESTOR_RANGES)
BEAM = 100
STARTS = ((0.35, -6.0), (4.74, 1.3), (0.7, 4.0))
MOST_DECODES = 8
EVEN = 1 / math.sqrt(12)  # the spread of a weight that decides nothing


@pytest.fixture(scope="module")
def decodes() -> Decodes:
    return Decodes()


@dataclasses.dataclass(frozen=True, kw_only=True)
class Loop:
    """What is decoded from a start, and the last proposal."""

    points: list[Point]
    decoded: list[Decode]
    proposal: Proposal

    @property
    def totals(self) -> list[int]:
        return [int(point.errors.sum()) for point in self.points]

    @property
    def pool(self) -> Pool:
        return Pool(merge([decode.nbest for decode in self.decoded]))


def decode_at(decodes: Decodes, box: Box, values: Vector, beam: int = BEAM) -> Decode:
    weights = dict(zip(box.names, values.tolist(), strict=True))
    return decodes(**weights, beamsize=beam)


def run(decodes: Decodes, box: Box, start: Sequence[float], beam: int = BEAM) -> Loop:
    """Decode and think in turn until nothing is to be gained."""
    values = np.array(start)
    points, decoded = [], []
    for _ in range(MOST_DECODES):
        decoded.append(decode_at(decodes, box, values, beam))
        points.append(decodes.point(box, decoded[-1], values))
        proposal = propose(Pool(merge([decode.nbest for decode in decoded])), box, points)
        values = proposal.values
        assert ((box.low <= values) & (values <= box.high)).all()
        if proposal.small:
            break
    return Loop(points=points, decoded=decoded, proposal=proposal)


# The loop, held against a grid.


@pytest.fixture(scope="module")
def grid(decodes: Decodes) -> list[int]:
    """Errors of real decodes all over the box."""
    axes = [
        np.linspace(low + width / 10, low + 9 * width / 10, 4)
        for low, width in zip(BOX.low, BOX.high - BOX.low, strict=True)
    ]
    return [
        int(decode_at(decodes, BOX, np.array(place)).errors.sum())
        for place in itertools.product(*axes)
    ]


@pytest.mark.parametrize("start", STARTS)
def test_few_decodes_come_near_the_best_of_a_grid(
    decodes: Decodes, grid: list[int], start: tuple[float, float]
) -> None:
    loop = run(decodes, BOX, start)
    assert loop.totals[0] > 1.3 * min(grid)  # there was something to find
    standard_error = math.sqrt(min(grid))
    assert min(loop.totals) <= min(grid) + standard_error
    # It ends by itself, because no gain is expected that is worth a decode.
    assert loop.proposal.small
    assert loop.proposal.gain < loop.proposal.least_gain
    assert len(loop.points) <= 5
    # The middle of the plateau is on the plateau.
    plateau = decode_at(decodes, BOX, loop.proposal.plateau)
    assert int(plateau.errors.sum()) <= min(grid) + 2 * standard_error


def test_the_beam_is_part_of_what_is_searched(decodes: Decodes) -> None:
    # A narrow beam loses much; the residual says how much at the best decode.
    loop = run(decodes, BOX, STARTS[1], beam=8)
    best = int(np.argmin(loop.totals))
    values = BOX.weights(loop.points[best].unit)
    assert loop.proposal.residual == loop.totals[best] - loop.pool.errors(values)[0]
    assert min(loop.totals) < loop.totals[0]
    assert min(loop.totals) > min(run(decodes, BOX, STARTS[1]).totals)


def test_the_residual_fits_the_decodes(decodes: Decodes) -> None:
    loop = run(decodes, BOX, STARTS[0])
    unit = np.array([point.unit for point in loop.points])
    expected = loop.pool.errors(BOX.weights(unit)) + fit_residual(loop.pool, BOX, loop.points)(unit)
    assert expected == pytest.approx(loop.totals, abs=1.0)


def test_the_same_again(decodes: Decodes) -> None:
    loop = run(decodes, BOX, STARTS[2])
    other_order = Pool(merge([decode.nbest for decode in loop.decoded[::-1]]))
    for pool in (loop.pool, other_order):
        again = propose(pool, BOX, loop.points)
        assert again.values.tolist() == loop.proposal.values.tolist()
        assert again.plateau.tolist() == loop.proposal.plateau.tolist()
        assert again.gain == loop.proposal.gain


def test_without_a_decode_the_pool_alone_decides(decodes: Decodes) -> None:
    lists = [decodes(lmweight=lm, wordscore=word) for lm, word in STARTS]
    pool = Pool(merge([decode.nbest for decode in lists]))
    proposal = propose(pool, BOX, [])
    assert proposal.gain == math.inf
    assert not proposal.small
    assert proposal.residual == 0
    assert proposal.values.tolist() == proposal.plateau.tolist()
    predicted = pool.errors(BOX.weights(BOX.unit(proposal.values)))[0]
    assert predicted <= min(pool.errors(BOX.weights(spread_points(200, 2)))) + 3
    real = decode_at(decodes, BOX, proposal.values).errors.sum()
    assert real < min(int(decode.errors.sum()) for decode in lists)


# The limits of the box, and weights that decide nothing.


@pytest.mark.parametrize(
    ("low", "high"), [((0.0, -8.0), (1.0, -3.0)), ((4.0, 0.0), (5.0, 1.0)), ((0, 6.5), (0.2, 7))]
)
def test_a_box_beside_the_best_weights(
    decodes: Decodes, low: tuple[float, float], high: tuple[float, float]
) -> None:
    box = dataclasses.replace(BOX, low=np.array(low), high=np.array(high))
    assert ((box.low <= box.start()) & (box.start() <= box.high)).all()
    loop = run(decodes, box, box.start().tolist(), beam=50)
    assert ((box.low <= loop.proposal.plateau) & (loop.proposal.plateau <= box.high)).all()
    assert min(loop.totals) <= loop.totals[0]


def test_a_start_outside_of_the_box(decodes: Decodes) -> None:
    # A baseline may lie there.
    box = dataclasses.replace(BOX, low=np.array([1.0, 0.0]), high=np.array([2.0, 2.0]))
    loop = run(decodes, box, (6.0, -5.0), beam=50)
    assert loop.points[0].unit.tolist() == [5.0, -2.5]
    assert loop.proposal.small
    assert min(loop.totals) < loop.totals[0]


@pytest.mark.parametrize(
    ("low", "high", "start"), [(-4.0, 2.0, -4.0), (1.0, 3.0, 1.0), (-9.0, -2.0, -5.0)]
)
def test_an_undetermined_weight_stays_at_its_start(
    decodes: Decodes, low: float, high: float, start: float
) -> None:
    box = make_box({"lmweight": FloatRange(0.0, 5.0), "unkscore": FloatRange(low, high)})
    decoded = decodes(lmweight=0.3, unkscore="-inf")
    assert not decoded.nbest.features[:, 3].any()  # no unknown words in any hypothesis
    points = [decodes.point(box, decoded, [0.3, start])]
    for known in ([], points):
        proposal = propose(Pool(decoded.nbest), box, known)
        assert proposal.values[1] == pytest.approx(start)
        assert proposal.plateau[1] == pytest.approx(start)
        assert proposal.values[0] > 1


@pytest.mark.parametrize(
    ("names", "columns"),
    [(("lmweight", "wordscore"), [1, 2]), (("unkscore",), [3]), (("lmweight", "silscore"), [1, 4])],
)
def test_weights_of_a_box(names: tuple[str, ...], columns: list[int]) -> None:
    count = len(names)
    low, high = np.full(count, -2.0), np.full(count, 6.0)
    fixed = np.array([1.0, 0.5, 0.25, -3.0, -0.125])
    box = Box(names=names, low=low, high=high, fixed=fixed)
    unit = np.array([[0.0] * count, [0.5] * count, [1.0] * count])
    weights = box.weights(unit)
    assert weights[:, columns].tolist() == [[-2.0] * count, [2.0] * count, [6.0] * count]
    others = [column for column in range(5) if column not in columns]
    assert (weights[:, others] == fixed[others]).all()
    assert [box.unit(row[columns]).tolist() for row in weights] == unit.tolist()


# The plateau and the points.


def test_the_plateau_of_a_bowl() -> None:
    # exp(-(E - Emin) / (c sqrt(Emin))) of a parabola is a Gaussian, whose spread is known.
    unit = spread_points(50_000, 3)
    least, steepness, middle = 100.0, np.array([900.0, 400.0, 0.0]), np.array([0.3, 0.6, 0.5])
    errors = least + (steepness * (unit - middle) ** 2).sum(axis=1)
    mean, spread = plateau_mean(unit, errors)
    assert mean == pytest.approx(middle, abs=0.01)
    expected = np.sqrt(TEMPERATURE * math.sqrt(least) / (2 * steepness[:2]))
    assert spread[:2] == pytest.approx(expected, rel=0.02)
    assert spread[2] == pytest.approx(EVEN, rel=0.01)
    assert spread[2] > UNDETERMINED > spread[:2].max()


def test_a_spike_of_chance_does_not_attract() -> None:
    unit = spread_points(1000, 2)
    errors = 100 + 900 * ((unit - [0.3, 0.6]) ** 2).sum(axis=1)
    spike = int(np.argmin(((unit - [0.9, 0.1]) ** 2).sum(axis=1)))
    errors[spike] = 98
    assert np.argmin(errors) == spike
    mean, _ = plateau_mean(unit, errors)
    assert mean == pytest.approx([0.3, 0.6], abs=0.1)


def test_a_plateau_without_errors_counts_as_one_with_one() -> None:
    unit = spread_points(1000, 1)
    mean, spread = plateau_mean(unit, np.zeros(1000))
    assert mean == pytest.approx([0.5], abs=0.01)
    assert spread == pytest.approx([EVEN], abs=0.01)


def unevenness(points: Vector) -> float:
    """The largest difference between share and volume of boxes at the origin."""
    ends = np.random.default_rng(1).uniform(0, 1, (500, points.shape[1]))
    share = (points[:, None] < ends[None]).all(axis=-1).mean(axis=0)
    return float(np.abs(share - ends.prod(axis=1)).max())


@pytest.mark.parametrize(("count", "dimensions"), [(128, 1), (512, 2), (1024, 3), (1024, 4)])
def testspread_points_are_even(count: int, dimensions: int) -> None:
    points = spread_points(count, dimensions)
    assert points.shape == (count, dimensions)
    assert ((points >= 0) & (points < 1)).all()
    assert points.mean(axis=0) == pytest.approx([0.5] * dimensions, abs=0.01)
    # The share of points in a box is its volume, more nearly than for random points.
    random = np.random.default_rng(0).uniform(0, 1, (count, dimensions))
    assert unevenness(points) < 0.75 * unevenness(random)
    # Each axis alone has no gaps.
    gaps = np.diff(np.sort(points, axis=0), axis=0, prepend=0, append=1)
    assert gaps.max() < 6 / count
    assert spread_points(count // 2, dimensions).tolist() == points[: count // 2].tolist()
