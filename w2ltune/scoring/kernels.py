"""Many weight vectors at once, compiled.

The weight vectors stand side by side in the processor's registers, and each hypothesis is loaded
once for all of them. Compiling takes seconds the first time and is kept on disk, where that can be
written; for a few hundred vectors :class:`.nbestpool.Pool` is done before that.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

from w2ltune.formats.nbest import NBest
from w2ltune.scoring.compiledkernels import (
    LANES,
    UNROLLED,
    compiled_errors,
    compiled_errors_by_depth,
)
from w2ltune.scoring.nbestpool import active_features, distinct


class Batch:
    """N-best lists, laid out for many weight vectors.

    The scores are computed in float64.

    Args:
        nbest: The lists, in the order of the decoder.
    """

    def __init__(self, nbest: NBest) -> None:
        self._nbest = nbest
        self._active = active_features(nbest)
        utterance = np.repeat(np.arange(nbest.utterances), np.diff(nbest.offsets))
        rows = distinct(utterance, nbest.features[:, self._active], nbest.errors)
        lengths = np.bincount(utterance[rows], minlength=nbest.utterances)
        padded = -(-lengths // UNROLLED) * UNROLLED
        self._starts = np.concatenate([[0], np.cumsum(padded)])
        # Padding repeats the last hypothesis, which changes no choice.
        last = np.cumsum(lengths) - 1
        place = np.arange(self._starts[-1]) + np.repeat(
            last + 1 - lengths - self._starts[:-1], padded
        )
        rows = rows[np.minimum(place, np.repeat(last, padded))]
        self._features = nbest.features[rows]
        self._errors = nbest.errors[rows].astype(np.float64)

    def errors(self, weights: ArrayLike) -> NDArray[np.int64]:
        """Return the errors over all utterances, int64 [vectors]; a tie goes to more errors.

        Args:
            weights: float [vectors, columns] or [columns].

        Raises:
            ValueError: They do not have this shape.
        """
        vectors = _checked(self._nbest, weights)
        varies = np.zeros(vectors.shape[1], dtype=np.bool_)
        varies[self._active] = True
        constant = varies & (vectors == vectors[:1]).all(axis=0)  # such as the 1 of the am score
        varies &= ~constant
        base = np.zeros(len(self._errors))
        for column in np.flatnonzero(constant) if len(vectors) else ():
            base += self._features[:, column] * vectors[0, column]
        side_by_side = _side_by_side(vectors[:, varies])
        totals = np.zeros(side_by_side.shape[1])
        compiled_errors(int(varies.sum()))(
            base,
            np.ascontiguousarray(self._features[:, varies]),
            self._errors,
            self._starts,
            side_by_side,
            totals,
        )
        return totals[: len(vectors)].astype(np.int64)

    def errors_by_depth(
        self, weights: ArrayLike, ks: Sequence[int], *, first_of_equals: bool = False
    ) -> NDArray[np.int64]:
        """Return the errors when only the first k hypotheses of each utterance take part.

        Args:
            weights: float [vectors, columns] or [columns].
            ks: Depths, each 1 or more; beyond the longest list they say the same.
            first_of_equals: Of equal scores the first one is chosen, as the ancestor of this
                program did; else the one with more errors.

        Returns:
            int64 [vectors, ks].

        Raises:
            ValueError: The shapes are others, or a depth is below 1.
        """
        if min(ks, default=1) < 1:
            raise ValueError(f"no n-best lists of {min(ks)} hypotheses")
        vectors = _checked(self._nbest, weights)
        depths = np.unique(np.asarray(ks, dtype=np.int64))
        side_by_side = _side_by_side(vectors[:, self._active])
        totals = np.zeros((len(depths), side_by_side.shape[1]))
        compiled_errors_by_depth(len(self._active))(
            np.ascontiguousarray(self._nbest.features[:, self._active]),
            self._nbest.errors.astype(np.float64),
            self._nbest.offsets,
            side_by_side,
            depths,
            first_of_equals,
            totals,
        )
        found = totals[np.searchsorted(depths, ks), : len(vectors)].T
        return found.astype(np.int64)


def _checked(nbest: NBest, weights: ArrayLike) -> NDArray[np.float64]:
    vectors = np.atleast_2d(np.asarray(weights, dtype=np.float64))
    columns = nbest.features.shape[1]
    if vectors.ndim != 2 or vectors.shape[1] != columns:
        raise ValueError(f"weights of shape {list(vectors.shape)} for {columns} features")
    return vectors


def _side_by_side(vectors: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return weights [columns, vectors], padded with vectors of zeros to full blocks."""
    padded = np.zeros((vectors.shape[1], -(-len(vectors) // LANES) * LANES))
    padded[:, : len(vectors)] = vectors.T
    return padded
