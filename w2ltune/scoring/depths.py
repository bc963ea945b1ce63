"""Errors of n-best lists cut at several depths: what rescoring only the first k entries gives.

The ranks are cut into bands at the depths asked for. The best of each band is found for all
utterances at once, and the best of a depth is the best of the bands up to it, so that all depths
together take little more than one.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from w2ltune.formats.nbest import NBest
from w2ltune.scoring.nbest import take_rows

_SCORES_AT_ONCE = 2**15  # 256 kB stay in the cache of a core
_ERRORS = 2**32 - 1  # the bits of a code that hold the errors


@dataclass(frozen=True, kw_only=True, eq=False)
class _Band:
    """The hypotheses of some ranks, padded by repeating the last one of a list.

    Args:
        place: Which utterances, the longest list first.
        features: float64 [columns, ranks, utterances].
        codes: int64 [ranks, utterances]; of equal scores the highest code is chosen.
        ends_depth: The index of the depth that is complete with this band; -1 for none.
    """

    place: slice
    features: NDArray[np.float64]
    codes: NDArray[np.int64]
    ends_depth: int


def cut(nbest: NBest, k: int) -> NBest:
    """Return the first k hypotheses of each utterance.

    Raises:
        ValueError: k is below 1.
    """
    if k < 1:
        raise ValueError(f"no n-best lists of {k} hypotheses")
    rank = np.arange(nbest.hypotheses) - np.repeat(nbest.offsets[:-1], np.diff(nbest.offsets))
    return take_rows(nbest, rank < k)


def errors_by_depth(
    nbest: NBest, weights: ArrayLike, ks: Sequence[int], *, first_of_equals: bool = False
) -> NDArray[np.int64]:
    """Return the errors when only the first k hypotheses of each utterance take part.

    Args:
        nbest: The lists, in the order of the decoder.
        weights: float [vectors, columns] or [columns].
        ks: Depths, each 1 or more; beyond the longest list they say the same.
        first_of_equals: Of equal scores the first one is chosen, as the ancestor of this program
            did; else the one with more errors.

    Returns:
        int64 [vectors, ks].

    Raises:
        ValueError: The shapes are others, or a depth is below 1.
    """
    vectors = np.atleast_2d(np.asarray(weights, dtype=np.float64))
    columns = nbest.features.shape[1]
    if vectors.ndim != 2 or vectors.shape[1] != columns:
        raise ValueError(f"weights of shape {list(vectors.shape)} for {columns} features")
    if min(ks, default=1) < 1:
        raise ValueError(f"no n-best lists of {min(ks)} hypotheses")
    active = np.flatnonzero(vectors.any(axis=0))
    depths = np.unique(ks)
    bands = list(_bands(nbest, active, depths, first_of_equals))
    totals = np.zeros((len(vectors), len(depths)), dtype=np.int64)
    buffers = np.empty((2, max((band.codes.size for band in bands), default=0)))
    for number, vector in enumerate(vectors[:, active]):
        best = np.full(nbest.utterances, -np.inf)
        chosen = np.zeros(nbest.utterances, dtype=np.int64)
        for band in bands:
            shape = band.codes.shape
            scores, term = (buffer[: band.codes.size].reshape(shape) for buffer in buffers)
            scores[:] = 0.0
            for column, weight in zip(band.features, vector, strict=True):
                np.multiply(column, weight, out=term)
                scores += term  # equal for equal features, unlike a matrix product
            highest = scores.max(axis=0)
            code = np.where(scores == highest, band.codes, -1).max(axis=0)
            best_so_far, chosen_so_far = best[band.place], chosen[band.place]
            better = (highest == best_so_far) & (code > chosen_so_far)
            better |= highest > best_so_far
            np.copyto(best_so_far, highest, where=better)
            np.copyto(chosen_so_far, code, where=better)
            if band.ends_depth >= 0:
                totals[number, band.ends_depth] = (chosen & _ERRORS).sum()
    found: NDArray[np.int64] = totals[:, np.searchsorted(depths, ks)]
    return found


def _bands(
    nbest: NBest, active: NDArray[np.intp], depths: NDArray[np.integer], first_of_equals: bool
) -> Iterator[_Band]:
    lengths = np.diff(nbest.offsets)
    longest = int(lengths.max(initial=0))
    order = np.argsort(-lengths, kind="stable")  # those with a rank are the first so many
    for number, (low, high) in enumerate(itertools.pairwise([0, *depths.tolist()])):
        ranks = np.arange(low, max(low + 1, min(high, longest)))[:, np.newaxis]
        long = int(np.count_nonzero(lengths > low))
        step = max(1, _SCORES_AT_ONCE // len(ranks))
        for first in range(0, max(long, 1), step):
            place = slice(first, min(first + step, long))
            own = order[place]
            rank = np.minimum(ranks, lengths[own] - 1)
            rows = nbest.offsets[own] + rank
            codes = nbest.errors[rows].astype(np.int64)
            if first_of_equals:
                codes += (2**30 - rank) << 32
            yield _Band(
                place=place,
                features=nbest.features[:, active][rows].transpose(2, 0, 1).copy(),
                codes=codes,
                ends_depth=number if first + step >= long else -1,
            )
