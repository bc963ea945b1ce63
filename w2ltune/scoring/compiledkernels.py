"""The compiled part of :mod:`.kernels`, and of the lines of :mod:`.nbestpool`."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np
from numba import njit

LANES = 256
"""Weight vectors that are evaluated side by side: their best scores stay in the first cache."""

UNROLLED = 4
"""Hypotheses for which the best scores are loaded once; lists are padded to a multiple of it."""


def _forgiving(method: Callable[..., Any], mend: Callable[[], None]) -> Callable[..., Any]:
    """Return a method of numba's cache that does nothing where it fails: all is compiled anew.

    A full disk, a quota or a file that was cut must not end a proof that needs none of them.
    """

    def call(*arguments: Any) -> Any:
        try:
            return method(*arguments)
        except Exception:  # whatever the unpickling of a damaged file raises
            with contextlib.suppress(OSError):
                mend()
            return None

    return call


def compiled(**options: Any) -> Callable[[Callable[..., Any]], Any]:
    """Return a decorator that compiles a function and keeps the code on disk if it can.

    It is kept beside the module or in the user's cache folder, by source and processor; numba
    refuses where neither can be written. A function must find the compiled ones that it calls in
    its module: in a closure numba would not know them again, and keep one more each time.

    Args:
        options: Of numba.
    """

    def compile_it(function: Callable[..., Any]) -> Any:
        try:
            made = njit(error_model="numpy", nogil=True, cache=True, **options)(function)
        except RuntimeError:
            return njit(error_model="numpy", nogil=True, **options)(function)
        kept = getattr(made, "_cache", None)  # numba's own; without it compiling works as before
        if kept is not None:
            kept.load_overload = _forgiving(kept.load_overload, kept.flush)  # all is written anew
            kept.save_overload = _forgiving(kept.save_overload, lambda: None)
        return made

    return compile_it


@cache
def compiled_errors(columns: int) -> Callable[..., Any]:
    """Return the kernel for so many columns; loops over them are unrolled.

    It adds the errors of the first highest score of each list to the totals of each vector.
    """

    @compiled(fastmath={"contract"})
    def kernel(base, features, errors, starts, weights, totals):
        best = np.empty(LANES)
        chosen = np.empty(LANES)
        block = np.empty((columns, LANES))
        for first in range(0, totals.shape[0], LANES):
            for j in range(columns):
                for lane in range(LANES):
                    block[j, lane] = weights[j, first + lane]
            for u in range(len(starts) - 1):
                for lane in range(LANES):
                    best[lane] = -np.inf
                    chosen[lane] = 0.0
                for h in range(starts[u], starts[u + 1], UNROLLED):
                    e0, e1, e2, e3 = errors[h], errors[h + 1], errors[h + 2], errors[h + 3]
                    b0, b1, b2, b3 = base[h], base[h + 1], base[h + 2], base[h + 3]
                    for lane in range(LANES):
                        s0, s1, s2, s3 = b0, b1, b2, b3
                        for j in range(columns):
                            weight = block[j, lane]
                            s0 += features[h, j] * weight
                            s1 += features[h + 1, j] * weight
                            s2 += features[h + 2, j] * weight
                            s3 += features[h + 3, j] * weight
                        top = best[lane]
                        error = chosen[lane]
                        error = e0 if s0 > top else error
                        top = s0 if s0 > top else top
                        error = e1 if s1 > top else error
                        top = s1 if s1 > top else top
                        error = e2 if s2 > top else error
                        top = s2 if s2 > top else top
                        error = e3 if s3 > top else error
                        top = s3 if s3 > top else top
                        best[lane] = top
                        chosen[lane] = error
                for lane in range(LANES):
                    totals[first + lane] += chosen[lane]

    return kernel


@cache
def compiled_errors_by_depth(columns: int) -> Callable[..., Any]:
    """Return the kernel for so many columns that gives the errors at several depths.

    Of equal scores the one with more errors is chosen, or the first.
    """

    @compiled()
    def kernel(features, errors, offsets, weights, depths, first_of_equals, totals):
        best = np.empty(LANES)
        chosen = np.empty(LANES)
        block = np.empty((columns, LANES))
        for first in range(0, totals.shape[1], LANES):
            for j in range(columns):
                for lane in range(LANES):
                    block[j, lane] = weights[j, first + lane]
            for u in range(len(offsets) - 1):
                for lane in range(LANES):
                    best[lane] = -np.inf
                    chosen[lane] = 0.0
                h = offsets[u]
                for number in range(len(depths)):
                    while h < min(offsets[u + 1], offsets[u] + depths[number]):
                        e = errors[h]
                        for lane in range(LANES):
                            score = 0.0
                            for j in range(columns):
                                score += features[h, j] * block[j, lane]
                            top = best[lane]
                            error = chosen[lane]
                            tied = error if first_of_equals else max(error, e)
                            error = tied if score == top else error
                            chosen[lane] = e if score > top else error
                            best[lane] = score if score > top else top
                        h += 1
                    for lane in range(LANES):
                        totals[number, first + lane] += chosen[lane]

    return kernel


def walk(values: Any, slopes: Any, errors: Any, current: Any, end: float) -> tuple[Any, Any]:
    """Walk along the upper envelopes of all utterances, from 0 to ``end``.

    Values, slopes and errors are [utterances, hypotheses], ``current`` the highest at 0 of each.

    Returns:
        Where corners are, and the change in errors there, for those where there is one.
    """
    at_end = values + end * slopes
    slack = 1e-9 * float(np.abs(at_end).max() + np.abs(values).max())
    times, changes = np.empty(errors.size), np.empty(errors.size, dtype=np.int64)
    last = at_end.argmax(axis=1)
    number = corners(values, slopes, errors, current, last, end, slack, times, changes)
    return times[:number], changes[:number]


@compiled()
def corners(values, slopes, errors, first, last, end, slack, times, changes):
    """Put down the corners of all upper envelopes; return how many.

    ``first`` and ``last`` are the highest at both ends. What is not above these two where they
    cross is nowhere the highest; most is left out so.
    """
    length = values.shape[1]
    own_values, own_slopes = np.empty(length), np.empty(length)
    own = np.empty(length, dtype=np.int64)
    number = 0
    for u in range(len(first)):
        value, slope, error = values[u, first[u]], slopes[u, first[u]], errors[u, first[u]]
        rise = slopes[u, last[u]] - slope
        if not rise > 0.0:
            continue
        middle = min(max((value - values[u, last[u]]) / rise, 0.0), end)
        least = value + middle * slope - slack
        count = 0
        for i in range(length):
            if values[u, i] + middle * slopes[u, i] >= least and slopes[u, i] > slope:
                own_values[count], own_slopes[count], own[count] = values[u, i], slopes[u, i], i
                count += 1
        time = 0.0
        while count:
            crossing = np.inf
            following = 0
            for i in range(count):
                at_time = (value - own_values[i]) / (own_slopes[i] - slope)
                if at_time < crossing:
                    crossing, following = at_time, i
            time = max(time, crossing)  # rounding must not lead back
            if not time < end:
                break
            value, slope = own_values[following], own_slopes[following]
            change = errors[u, own[following]] - error
            if change:
                times[number], changes[number] = time, change
                number += 1
                error += change
            kept = 0
            for i in range(count):
                own_values[kept], own_slopes[kept], own[kept] = own_values[i], own_slopes[i], own[i]
                kept += own_slopes[kept] > slope
            count = kept
    return number
