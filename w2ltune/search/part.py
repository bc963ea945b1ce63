"""The search on a part of the list: where a decode of the whole list is worth its time.

Few utterances tell good weights from bad ones, and no more than that. Their number follows from
the standard error of what two good settings differ by; a third of most lists is more than enough.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from w2ltune.formats.distributions import format_value
from w2ltune.formats.nbest import NBest
from w2ltune.scoring.nbest import merge, spread_out, take
from w2ltune.scoring.nbestpool import Pool
from w2ltune.search.linear import CHANGED, NEAR, Box, Point, Proposal, propose
from w2ltune.search.plateau import FAR
from w2ltune.search.residual import Vector

FIRST, FIRST_WORDS, LEAST_FIRST = 32, 300, 12
"""Utterances of the first decode, which tells how many more are needed: fewer long ones."""

WIDER = 4
"""How much wider a beam is whose lists tell what is lost."""

PART_ERROR = 0.006
"""Standard error of a paired difference of error rates that a part must come down to."""

MOST_SHARE = 1 / 3
"""Of the list: three decodes of a larger part cost more than one of the whole list."""

FIRST_DECODES, MOST_DECODES = 3, 5
"""Of the first utterances and of a part, at one beam."""

LITTLE_SEEN = 0.005
"""Decodes at small LM weights tell little of what is lost at large ones."""

Found = tuple[npt.NDArray[np.int32], NBest, float, bool]
"""Counts [utterances, 4], n-best lists, CPU seconds, whether scores are linear in the weights."""

Decode = Callable[[Mapping[str, str], Sequence[int]], Found]
"""Decodes utterances with all flags given."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Tried:
    """One decode of a part.

    Attributes:
        beam: Flags that it was decoded with, besides the searched weights.
        values: float64 [searched], the weights.
        counts: int32 [utterances, 4]: S, D, I, reference length.
        seconds: Processor time.
    """

    beam: Mapping[str, str]
    values: Vector
    counts: npt.NDArray[np.int32]
    seconds: float

    @property
    def errors(self) -> npt.NDArray[np.int32]:
        """Of each utterance."""
        errors: npt.NDArray[np.int32] = self.counts[:, :3].sum(axis=1)
        return errors


class Parts:
    """Decodes of more and more of the list, and what their n-best lists tell together.

    Args:
        decode: Decodes utterances.
        flags: All flags but the searched weights.
        box: The searched weights.
        order: All utterances, in the order in which they are taken.
        words: Reference words of each utterance, in the order of the list.

    Attributes:
        tried: The decodes in order.
        lists: All their n-best lists, of the whole list; None before the first.
        linear: Whether all scores were linear in the weights: else nothing follows from lists.
    """

    def __init__(
        self,
        decode: Decode,
        flags: Mapping[str, str],
        box: Box,
        order: Sequence[int],
        words: npt.NDArray[np.int32],
    ) -> None:
        self._decode = decode
        self._flags = flags
        self.words = words
        self.box = box
        self.order = np.array(order)
        self.tried: list[Tried] = []
        self.lists: NBest | None = None
        self.linear = True

    def at(self, beam: Mapping[str, str], values: Vector, size: int) -> Tried:
        """Decode the first utterances with these weights and flags of the beam."""
        weights = {n: format_value(v) for n, v in zip(self.box.names, values.tolist(), strict=True)}
        block = self.order[:size].tolist()
        counts, lists, seconds, linear = self._decode({**self._flags, **beam, **weights}, block)
        silence = "silscore" in self.box.names or bool(self.box.fixed[4])
        spread = spread_out(lists, block, self.words)
        self.lists = merge([self.lists, spread] if self.lists else [spread], silence=silence)
        self.linear &= linear
        self.tried.append(Tried(beam=dict(beam), values=values, counts=counts, seconds=seconds))
        return self.tried[-1]

    def level(self, beam: Mapping[str, str]) -> float:
        """Return what a beam loses at the largest LM weight, in each utterance.

        Where a wider beam was decoded too, which the first utterances are: no beam sees in its own
        lists what it loses.
        """
        rich = min((len(t.counts) for t in self.tried if t.beam != beam), default=0)
        own = [t for t in self.tried if t.beam == beam and len(t.counts) >= rich]
        if not own or not rich or self.lists is None:
            return 0.0
        pool = Pool(take(self.lists, self.order[:rich]))
        unit = np.array([self.box.unit(tried.values) for tried in own])
        real = np.array([float(tried.errors[:rich].sum()) for tried in own])
        stretch = self.box.stretch(unit)
        lost = real - pool.errors(self.box.weights(unit))
        return max(0.0, float(stretch @ lost / (stretch @ stretch + LITTLE_SEEN))) / rich

    def propose(
        self,
        beam: Mapping[str, str],
        size: int,
        *,
        radius: float = FAR,
    ) -> Proposal:
        """Return where a decode of the first utterances is to be next."""
        assert self.lists is not None
        points = [
            Point(unit=self.box.unit(tried.values), errors=tried.errors)
            for tried in self.tried
            if tried.beam == beam and len(tried.counts) == size
        ]
        pool = Pool(take(self.lists, self.order[:size]))
        return propose(pool, self.box, points, level=self.level(beam), radius=radius)

    def solve(
        self, beam: Mapping[str, str], values: Vector, size: int, *, most: int = MOST_DECODES
    ) -> tuple[Tried, Proposal]:
        """Decode until nothing is to be gained at a beam; return its best decode and the next."""
        for left in range(most - 1, -1, -1):
            self.at(beam, values, size)
            proposal = self.propose(beam, size, radius=NEAR)
            if proposal.small or not proposal.new or not left or not self.linear:
                break
            values = proposal.values
        return self.best(beam, size), proposal

    def best(self, beam: Mapping[str, str], size: int) -> Tried:
        """Return the best decode of the first utterances at a beam; there must be one."""
        own = [t for t in self.tried if t.beam == beam and len(t.counts) == size]
        return min(own, key=lambda tried: int(tried.errors.sum()))


def part_size(errors: npt.NDArray[np.integer], words: npt.NDArray[np.integer], count: int) -> int:
    """Return of how many utterances a part is to be; 0 where none is worth it.

    Args:
        errors: Of some utterances, at good weights.
        words: Their reference words.
        count: Utterances of the whole list.

    Example:
        >>> part_size(np.full(32, 0.5), np.full(32, 10), 2000)
        42
        >>> part_size(np.full(32, 0.5), np.full(32, 10), 60)
        0
    """
    most = math.floor(MOST_SHARE * count)
    if most < FIRST or not words.any():
        return 0
    variance = CHANGED * max(1.0, float(errors.sum())) / len(errors)
    return min(most, max(FIRST, math.ceil(variance / (PART_ERROR * float(words.mean())) ** 2)))


def begin(
    parts: Parts, beam: Mapping[str, str], start: Vector, *, whole: bool = False
) -> tuple[Vector, int]:
    """Search on a part of the list; return weights for the whole list and the size of the part.

    What a beam loses is not seen in its own lists, but in those of a wider one. With ``whole`` the
    whole list is taken where no part is worth it, instead of nothing.
    """
    count = len(parts.order)
    if not whole and MOST_SHARE * count < FIRST:
        return start, 0
    enough = math.ceil(FIRST_WORDS / max(1.0, float(parts.words.mean())))
    first = min(count, FIRST, max(LEAST_FIRST, enough))
    parts.at(beam, start, first)
    if not parts.linear:
        return start, first
    at = parts.propose(beam, first).values
    parts.at({**beam, "beamsize": str(WIDER * int(beam["beamsize"]))}, at, first)
    best, proposal = parts.solve(beam, at, first, most=FIRST_DECODES)
    size = part_size(best.errors, best.counts[:, 3], count) or count
    if size > first:
        best, proposal = parts.solve(beam, _middle(best, proposal), size)
    return _middle(best, proposal), size


def _middle(best: Tried, proposal: Proposal) -> Vector:
    """Return the middle of the plateau, or the best decode where that is expected to be better."""
    return proposal.plateau if proposal.plateau_gain > -proposal.least_gain else best.values
