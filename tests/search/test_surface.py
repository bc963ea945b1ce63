"""The predicted error rates of the report, held against real decodes."""

from __future__ import annotations

import numpy as np
import pytest
from realdecodes import FLAGS, Decodes, make_box

from w2ltune.formats.distributions import FloatRange
from w2ltune.scoring.nbest import merge
from w2ltune.scoring.nbestpool import Pool
from w2ltune.search.linear import Box, Point
from w2ltune.search.space import ANCESTOR_RANGES
from w2ltune.search.surface import COLUMNS, Surface, make_surface

BEAM = 5  # so narrow that the pool is far too optimistic where nothing was decoded
VALUES = ((2.5, 1.0), (1.25, -2.0), (3.75, 3.25), (0.5, 4.0))


@pytest.fixture(scope="module")
def decodes() -> Decodes:
    return Decodes()


def surface_of(
    decodes: Decodes, box: Box, values: tuple[tuple[float, ...], ...]
) -> tuple[Surface, Pool, list[Point]]:
    found = [decodes(**dict(zip(box.names, v, strict=True)), beamsize=BEAM) for v in values]
    pool = Pool(merge([decode.nbest for decode in found]))
    points = [decodes.point(box, *pair) for pair in zip(found, values, strict=True)]
    surface = make_surface(
        pool, box, points, target="dev", setting={"beamsize": "10"}, chosen=np.array(values[0])
    )
    return surface, pool, points


@pytest.fixture(scope="module")
def two(decodes: Decodes) -> tuple[Surface, Pool, list[Point]]:
    return surface_of(decodes, make_box(ANCESTOR_RANGES), VALUES)


def test_axes_and_points(two: tuple[Surface, Pool, list[Point]]) -> None:
    surface, pool, points = two
    assert (surface.x_name, surface.y_name) == ("lmweight", "wordscore")
    assert (surface.target, surface.setting) == ("dev", {"beamsize": "10"})
    assert surface.x == pytest.approx(np.linspace(0, 5, COLUMNS))
    assert surface.y == pytest.approx(np.linspace(-8, 7, COLUMNS))
    for values in (surface.predicted, surface.corrected, surface.known):
        assert values.shape == (COLUMNS, COLUMNS)
    rates = [point.errors.sum() / pool.reference_words for point in points]
    assert surface.points == pytest.approx(np.column_stack([VALUES, rates]))
    assert surface.chosen == VALUES[0]


@pytest.mark.parametrize(("row", "column"), [(0, 0), (3, 17), (40, 12), (20, 40)])
def test_rows_are_word_scores_and_columns_lm_weights(
    two: tuple[Surface, Pool, list[Point]], row: int, column: int
) -> None:
    surface, pool, _ = two
    weights = [1.0, surface.x[column], surface.y[row], 0.0, 0.0]
    errors = pool.errors(weights)[0]
    assert surface.predicted[row, column] == pytest.approx(errors / pool.reference_words)


def place(surface: Surface, lm: float, word: float) -> tuple[int, int]:
    row, column = (int(np.argmin(abs(a - v))) for a, v in ((surface.y, word), (surface.x, lm)))
    return row, column


def test_corrected_is_what_a_decode_gives(
    decodes: Decodes, two: tuple[Surface, Pool, list[Point]]
) -> None:
    surface, pool, _ = two
    for lm, word, rate in surface.points:
        assert surface.corrected[place(surface, lm, word)] == pytest.approx(rate, abs=0.02)
        assert surface.known[place(surface, lm, word)]
    # Where nothing was decoded it is nearer to the truth than the pool alone, which is optimistic.
    places = [(1.0, 1.0), (4.5, -2.0), (4.5, 6.0), (2.0, -6.0), (3.0, 6.0), (0.3, 0.0)]
    at = tuple(np.array([place(surface, lm, word) for lm, word in places]).T)
    found = [decodes(lmweight=lm, wordscore=word, beamsize=BEAM) for lm, word in places]
    real = np.array([decode.errors.sum() for decode in found]) / pool.reference_words
    optimism = np.abs(surface.predicted[at] - real).mean()
    assert optimism == pytest.approx((real - surface.predicted[at]).mean(), rel=0.1)
    assert np.abs(surface.corrected[at] - real).mean() < 0.6 * optimism


def test_far_from_all_decodes_nothing_is_known(two: tuple[Surface, Pool, list[Point]]) -> None:
    surface, _, _ = two
    assert not surface.known[place(surface, 4.9, -7.9)]
    assert not surface.known[place(surface, 0.1, -7.9)]
    assert 0.1 < surface.known.mean() < 0.6


def test_one_weight_gives_one_row(decodes: Decodes) -> None:
    box = make_box({"lmweight": FloatRange(0.5, 4.5)}, FLAGS | {"wordscore": "1"})
    found = [decodes(lmweight=lm, wordscore=1, beamsize=BEAM) for lm in (2.5, 1.0)]
    pool = Pool(merge([decode.nbest for decode in found]))
    points = [
        decodes.point(box, decode, [lm]) for decode, lm in zip(found, (2.5, 1.0), strict=True)
    ]
    surface = make_surface(pool, box, points, target="", setting={}, chosen=np.array([2.5]))
    assert (surface.x_name, surface.y_name) == ("lmweight", "")
    assert surface.y.tolist() == [0.0]
    assert surface.predicted.shape == surface.known.shape == (1, COLUMNS)
    assert surface.points[:, :2].tolist() == [[2.5, 0.0], [1.0, 0.0]]
    assert surface.chosen == (2.5, 0.0)
    weights = np.array([1.0, surface.x[7], 1.0, 0.0, 0.0])
    assert surface.predicted[0, 7] * pool.reference_words == pytest.approx(pool.errors(weights)[0])


def test_a_third_weight_stays_at_the_chosen_value(decodes: Decodes) -> None:
    box = make_box({**ANCESTOR_RANGES, "silscore": FloatRange(-1.0, 1.0)})
    surface, pool, _ = surface_of(decodes, box, ((2.5, 1.0, -0.5), (1.25, -2.0, 0.25)))
    errors = pool.errors([1.0, surface.x[3], surface.y[9], 0.0, -0.5])[0]
    assert surface.predicted[9, 3] == pytest.approx(errors / pool.reference_words)
    assert surface.chosen == (2.5, 1.0)
