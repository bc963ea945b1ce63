"""A tighter bound of the errors in a box, compiled: import it only where numba is installed.

An utterance has few errors on one side of a plane of weights and more on the other. This step is
nowhere below a ramp that falls from the box's far corner to the plane, and the sum of ramps is
convex: unlike the sum of the least errors it knows that not all utterances can be at their best at
once.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np

from w2ltune.scoring.compiledkernels import compiled
from w2ltune.search.boxes import NOTHING

ROUNDING = 1e-6
"""More than the rounding of a sum of errors, which are whole numbers."""

RELATIVE_ROUNDING = 1e-11
"""More than that of a sum of ten thousand terms, in parts of the sum of their sizes."""

STEEPEST = 1e-4
"""A ramp that falls over less than this part of its scores is left out: it would be rounding."""


@cache
def compiled_ramp_bound(dimensions: int) -> Callable[..., Any]:
    """Return the function for boxes of so many dimensions; loops over them are unrolled."""

    @compiled(keep=False)
    def least_sum(ramps, used, number, tilt, half):
        """Return a lower bound, in whole errors, of the sum of ramps in the box, each 0 at least.

        The sum of any of them as planes is a bound, as a plane is below its ramp. Those in use are
        changed as long as that helps, twice around.
        """
        tilt[:] = 0.0
        value = 0.0
        for t in range(number):
            if used[t]:
                value += ramps[t, dimensions]
                for j in range(dimensions):
                    tilt[j] += ramps[t, j]
        for _ in range(2):
            for t in range(number):
                sign = -1.0 if used[t] else 1.0
                gain = sign * ramps[t, dimensions]
                for j in range(dimensions):
                    gain += (abs(tilt[j]) - abs(tilt[j] + sign * ramps[t, j])) * half[j]
                if gain > 0.0:
                    used[t] = not used[t]
                    value += sign * ramps[t, dimensions]
                    for j in range(dimensions):
                        tilt[j] += sign * ramps[t, j]
        # Anew, because what was added and taken out again leaves its rounding behind.
        tilt[:] = 0.0
        value = size = 0.0
        for t in range(number):
            if used[t]:
                value += ramps[t, dimensions]
                size += abs(ramps[t, dimensions])
                for j in range(dimensions):
                    tilt[j] += ramps[t, j]
                    size += abs(ramps[t, j]) * half[j]
        for j in range(dimensions):
            value -= abs(tilt[j]) * half[j]
        return max(0, math.ceil(value - ROUNDING - RELATIVE_ROUNDING * size))

    @compiled(keep=False)
    def ramp_bound(
        base, slopes, errors, slack, centre, half,
        rows, counts, row_begin, count_begin, count_end,
        scores, open_scores, local, own, own_errors, slope, tilt, ramps, used, influence,
    ):  # fmt: skip
        """Return how far the errors of open utterances are above their sum of least errors."""
        number_of_ramps = 0
        row = row_begin
        for place in range(count_begin, count_end):
            count = counts[place]
            winner = 0
            least = errors[rows[row]]
            for i in range(count):
                r = rows[row + i]
                score = base[r]
                for j in range(dimensions):
                    score += slopes[r, j] * centre[j]
                    local[j, i] = slopes[r, j]
                scores[i] = score
                own_errors[i] = errors[r]
                least = min(least, own_errors[i])
                if score > scores[winner]:
                    winner = i
            row += count
            winner_errors = own_errors[winner]
            # Where the best of the good ones, a plane at most, is below one of the others, there
            # are more errors than the least. That step is at least a ramp over the box.
            bad = winner_errors > least
            limit = winner_errors if bad else least + 1
            other = -1
            step = NOTHING
            for i in range(count):
                if own_errors[i] >= limit:
                    step = min(step, own_errors[i] - least)
                if (own_errors[i] < limit) == bad and (other < 0 or scores[i] > scores[other]):
                    other = i
            good, rival = (other, winner) if bad else (winner, other)
            drop = 0.0
            for j in range(dimensions):
                slope[j] = local[j, good] - local[j, rival]
                drop += abs(slope[j]) * half[j]
            above = -np.inf
            for i in range(count):
                if own_errors[i] < limit:
                    at_most = scores[i] - scores[rival] + slack
                    for j in range(dimensions):
                        at_most += abs(local[j, i] - local[j, rival] - slope[j]) * half[j]
                    above = max(above, at_most)
            reach = drop
            drop -= above
            if drop > STEEPEST * (reach + abs(above)):
                steepness = step / drop
                ramps[number_of_ramps, dimensions] = -steepness * above
                for j in range(dimensions):
                    ramps[number_of_ramps, j] = -steepness * slope[j]
                used[number_of_ramps] = bad
                number_of_ramps += 1
        return least_sum(ramps, used, number_of_ramps, tilt, half)

    return ramp_bound
