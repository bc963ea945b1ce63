"""Many weight vectors at once, compiled where numba is installed.

The weight vectors stand side by side in the processor's registers, and each hypothesis is loaded
once for all of them. Compiling takes seconds the first time and is kept on disk, where that can be
written; for a few hundred vectors :class:`.nbestpool.Pool` is done before that.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

from w2ltune.formats.nbest import NBest
from w2ltune.scoring.depths import errors_by_depth
from w2ltune.scoring.nbestpool import Pool, active_features, distinct


def can_compile() -> bool:
    """Whether numba is installed, which it is unless this Python has none."""
    return importlib.util.find_spec("numba") is not None


class Batch:
    """N-best lists, laid out for many weight vectors.

    The scores are computed in float64. Without numba the same answers come from numpy.

    Args:
        nbest: The lists, in the order of the decoder. :func:`.winners.winners_only` shortens them.
        compiled: Whether to use numba; None where it is installed.
    """

    def __init__(self, nbest: NBest, *, compiled: bool | None = None) -> None:
        self._nbest = nbest
        self._compiled = can_compile() if compiled is None else compiled
        self._active = active_features(nbest)
        if not self._compiled:
            self._pool = Pool(nbest)
            return
        from w2ltune.scoring.compiledkernels import UNROLLED

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
        if not self._compiled:
            return self._pool.errors(vectors)
        from w2ltune.scoring.compiledkernels import compiled_errors

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
        """Return what :func:`.depths.errors_by_depth` returns, int64 [vectors, ks]."""
        if not self._compiled or min(ks, default=0) < 1:
            return errors_by_depth(self._nbest, weights, ks, first_of_equals=first_of_equals)
        from w2ltune.scoring.compiledkernels import compiled_errors_by_depth

        vectors = _checked(self._nbest, weights)
        depths = np.unique(ks)
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
    from w2ltune.scoring.compiledkernels import LANES

    padded = np.zeros((vectors.shape[1], -(-len(vectors) // LANES) * LANES))
    padded[:, : len(vectors)] = vectors.T
    return padded
