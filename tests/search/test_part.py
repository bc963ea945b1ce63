"""The search on a part of the list: really decoded, and held against what it is to find."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pytest
from realdecodes import FLAGS, Decodes, make_box

from w2ltune.formats.distributions import FloatRange
from w2ltune.scoring.nbest import merge, spread_out, take
from w2ltune.search.linear import NEAR, Box, Point, believed
from w2ltune.search.part import FIRST, MOST_SHARE, Found, Parts, begin, part_size
from w2ltune.search.space import ANCESTOR_RANGES

COUNT = 120
BOX = make_box(ANCESTOR_RANGES)
BEAM = {"beamsize": "50", "beamsizetoken": "20", "beamthreshold": "25"}
STARTS = ((2.0, 0.0), (3.0, -7.5), (0.35, -6.0))


@pytest.fixture(scope="module")
def decodes() -> Decodes:
    return Decodes(utterances=COUNT)


class Counting:
    """Decodes, and remembers of how many utterances at which beam."""

    def __init__(self, decodes: Decodes, box: Box = BOX, count: int = COUNT) -> None:
        self.decodes = decodes
        self.asked: list[tuple[int, str]] = []
        fixed = {name: text for name, text in FLAGS.items() if name not in box.names}
        words = np.array([len(r) for r in decodes.references[:count]], dtype=np.int32)
        self.parts = Parts(self.decode, fixed, box, range(count), words)

    def decode(self, flags: Mapping[str, str], utterances: Sequence[int]) -> Found:
        self.asked.append((len(utterances), flags["beamsize"]))
        return self.decodes.part(flags, utterances)


@pytest.mark.parametrize("start", STARTS)
def test_a_part_comes_near_what_the_whole_list_gives(
    decodes: Decodes, start: tuple[float, float]
) -> None:
    counting = Counting(decodes)
    values, size = begin(counting.parts, BEAM, np.array(start))
    assert FIRST <= size <= MOST_SHARE * COUNT
    assert {beam for _, beam in counting.asked} == {"50", "200"}
    spent = sum(count for count, beam in counting.asked if beam == "50")
    assert spent < 2.5 * COUNT

    def errors(lmweight: float, wordscore: float) -> int:
        return int(decodes(lmweight=lmweight, wordscore=wordscore).errors.sum())

    found = errors(*values.tolist())
    best = min(errors(lm, word) for lm in (1.0, 1.5, 2.0, 2.5) for word in (-1.0, 1.0, 3.0))
    assert found <= best + 1.5 * np.sqrt(best)
    # The same again: after a kill it comes to the same.
    again, _ = begin(Counting(decodes).parts, BEAM, np.array(start))
    assert again.tolist() == values.tolist()


def test_of_a_short_list_there_is_no_part(decodes: Decodes) -> None:
    counting = Counting(decodes, count=60)
    values, size = begin(counting.parts, BEAM, np.array(STARTS[0]))
    assert (values.tolist(), size, counting.asked) == (list(STARTS[0]), 0, [])
    _, size = begin(counting.parts, BEAM, np.array(STARTS[0]), whole=True)
    assert size == 60


def test_where_scores_are_not_linear_nothing_follows(decodes: Decodes) -> None:
    counting = Counting(decodes)
    _, size = begin(counting.parts, {**BEAM, "logadd": "true"}, np.array(STARTS[0]))
    assert not counting.parts.linear
    assert counting.asked == [(size, "50")]


def test_three_weights_begin_with_two(decodes: Decodes) -> None:
    box = make_box({**ANCESTOR_RANGES, "silscore": FloatRange(-4.0, 4.0)})
    counting = Counting(decodes, box)
    values, _ = begin(counting.parts, BEAM, np.array([2.0, 0.0, 0.0]))
    two, _ = begin(Counting(decodes).parts, BEAM, np.array([2.0, 0.0]))
    lm, word, silence = values.tolist()
    three = decodes(lmweight=lm, wordscore=word, silscore=silence).errors.sum()
    less = decodes(lmweight=two[0], wordscore=two[1]).errors.sum()
    assert three <= less + 1.5 * np.sqrt(less)


def test_what_is_lost_is_seen_in_a_wider_beams_lists(decodes: Decodes) -> None:
    parts = Counting(decodes).parts
    narrow = {**BEAM, "beamsize": "10"}
    for values in ((3.0, 2.0), (1.0, 1.0)):
        parts.at(narrow, np.array(values), 40)
    assert parts.level(narrow) == 0  # not in its own
    parts.at({**BEAM, "beamsize": "200"}, np.array([3.0, 2.0]), 40)
    assert parts.level(narrow) > 0.1
    assert parts.level({**BEAM, "beamsize": "200"}) < parts.level(narrow)


def test_lists_of_a_part_among_those_of_all(decodes: Decodes) -> None:
    words = np.array([len(r) for r in decodes.references], dtype=np.int32)
    found = decodes.decode(BEAM).nbest
    block = [5, 0, 17]
    spread = spread_out(take(found, block), block, words)
    assert spread.utterances == COUNT
    for place, own in ((0, 0), (5, 5), (17, 17)):
        assert take(spread, [place]).errors.tolist() == take(found, [own]).errors.tolist()
    assert take(spread, [1]).errors.tolist() == [words[1]]
    both = merge([spread, found])  # what was not decoded adds nothing
    assert both.hypotheses == merge([found]).hypotheses


@pytest.mark.parametrize(
    ("errors", "words", "count", "size"),
    [(0.4, 7, 10_000, 69), (0.4, 7, 150, 50), (15.0, 29, 10_000, 149), (0.0, 7, 10_000, FIRST)],
)
def test_the_size_follows_from_the_standard_error(
    errors: float, words: int, count: int, size: int
) -> None:
    assert part_size(np.full(32, errors), np.full(32, words), count) == pytest.approx(size, abs=3)


def test_a_broken_promise_makes_the_region_smaller() -> None:
    def point(x: float, errors: int) -> Point:
        return Point(unit=np.array([x, 0.5]), errors=np.full(50, errors))

    assert believed([point(0.2, 3)], NEAR) == NEAR
    assert believed([point(0.2, 3), point(0.3, 2)], NEAR) == 2 * NEAR  # kept
    assert believed([point(0.2, 3), point(0.6, 5)], NEAR) == pytest.approx(0.2)  # broken
    assert believed([point(0.2, 3), point(0.6, 3)], NEAR) == NEAR  # the same
