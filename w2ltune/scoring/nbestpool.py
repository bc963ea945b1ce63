"""What other weights would choose from n-best lists: errors at any weights, and along a line.

The scores are computed in float64: in float32 (centred in each utterance) they came 1.6 times
faster, but one weight vector in 500 then gave another number of errors, and a line of weights has
to agree with each of its points.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from w2ltune.formats.nbest import NBest
from w2ltune.scoring.nbest import take

_BUCKET_HYPOTHESES = 2**15  # its scores (256 kB) stay in the cache of a core
_NARROW = 1e-9  # a piece of a line below this width is rounding


@dataclass(frozen=True, kw_only=True, eq=False)
class LineErrors:
    """The errors along a line of weights, which are piecewise constant.

    Args:
        bounds: float64 [pieces + 1], where the errors change, rising; the first is the low end
            of the line, the last the high end.
        errors: int64 [pieces], the errors between two bounds.
    """

    bounds: NDArray[np.float64]
    errors: NDArray[np.int64]


@dataclass(frozen=True, kw_only=True, eq=False)
class _Bucket:
    """Utterances with n-best lists of similar length, padded to the longest.

    Args:
        utterances: int [utterances], their indices.
        features: float64 [active features, utterances × length].
        errors: int32 [utterances, length], falling in each row.
    """

    utterances: NDArray[np.intp]
    features: NDArray[np.float64]
    errors: NDArray[np.int32]


class Pool:
    """N-best lists, laid out to say fast what each weight vector would choose.

    A tie in score goes to the hypothesis with more errors: what is said is never too good.

    Args:
        nbest: The lists. Those of several decodes are united by :func:`..nbest.merge` first.
    """

    def __init__(self, nbest: NBest) -> None:
        self._nbest = nbest
        self._active = active_features(nbest)
        self._buckets = list(_buckets(nbest, self._active))

    @property
    def utterances(self) -> int:
        """Number of utterances."""
        return self._nbest.utterances

    @property
    def hypotheses(self) -> int:
        """Number of hypotheses of all utterances."""
        return self._nbest.hypotheses

    @property
    def reference_words(self) -> int:
        """Length of all references together."""
        return int(self._nbest.reference_words.sum(dtype=np.int64))

    def errors(self, weights: ArrayLike) -> NDArray[np.int64]:
        """Return the errors over all utterances, int64 [vectors].

        Args:
            weights: float [vectors, columns] or [columns], finite, in the order of the features:
                the first is the weight of the acoustic model, 1 as a rule.

        Raises:
            ValueError: They do not have this shape.
        """
        vectors = np.atleast_2d(self._checked(weights, 1, 2))[:, self._active]
        totals = np.zeros(len(vectors), dtype=np.int64)
        for bucket in self._buckets:  # outside, so that one stays in the cache for all vectors
            scores = np.empty(bucket.errors.size)
            for number, vector in enumerate(vectors):
                totals[number] += _chosen_errors(bucket, vector, scores).sum(dtype=np.int64)
        return totals

    def utterance_errors(self, weights: ArrayLike) -> NDArray[np.int32]:
        """Return the errors of each utterance, int32 [utterances].

        Args:
            weights: float [columns], as for :meth:`errors`.

        Raises:
            ValueError: They do not have this shape.
        """
        vector = self._checked(weights, 1)[self._active]
        found = np.zeros(self.utterances, dtype=np.int32)
        for bucket in self._buckets:
            found[bucket.utterances] = _chosen_errors(bucket, vector, np.empty(bucket.errors.size))
        return found

    def oracle_errors(self) -> int:
        """Return the errors of the best hypothesis of each utterance: no weights give fewer."""
        return sum(int(bucket.errors[:, -1].sum(dtype=np.int64)) for bucket in self._buckets)

    def line(self, origin: ArrayLike, direction: ArrayLike, low: float, high: float) -> LineErrors:
        """Return the exact errors at the weights ``origin + t * direction``, t in [low, high].

        The score of each hypothesis is a line in t, and what is chosen is the upper envelope of
        these lines (Och, "Minimum error rate training in statistical machine translation", ACL
        2003).

        Args:
            origin: float [columns], as for :meth:`errors`.
            direction: float [columns].
            low: Begin of the line.
            high: End of the line.

        Returns:
            Pieces with different errors. Those narrower than 1e-9 are joined to their neighbour.

        Raises:
            ValueError: The shapes are others, or high is below low.
        """
        start, slope = (self._checked(vector, 1)[self._active] for vector in (origin, direction))
        if not low <= high:
            raise ValueError(f"no line from {low} to {high}")
        from w2ltune.scoring.compiledkernels import walk  # numba takes half a second to come

        total, times, changes = 0, [np.empty(0)], [np.empty(0, dtype=np.int64)]
        for bucket in self._buckets:
            shape = bucket.errors.shape
            values = ((start + low * slope) @ bucket.features).reshape(shape)
            slopes = (slope @ bucket.features).reshape(shape)
            current = values.argmax(axis=1)
            total += int(bucket.errors[np.arange(len(current)), current].sum(dtype=np.int64))
            time, change = walk(values, slopes, bucket.errors, current, high - low)
            times.append(low + time)
            changes.append(change)
        return _pieces(low, high, total, np.concatenate(times), np.concatenate(changes))

    def subset(self, utterances: ArrayLike) -> Pool:
        """Return the pool of some utterances.

        Args:
            utterances: int [taken], their indices; one may come several times, as a bootstrap
                draws them.
        """
        return Pool(take(self._nbest, utterances))

    def _checked(self, weights: ArrayLike, *dimensions: int) -> NDArray[np.float64]:
        vectors = np.asarray(weights, dtype=np.float64)
        columns = self._nbest.features.shape[1]
        if vectors.ndim not in dimensions or vectors.shape[-1] != columns:
            raise ValueError(f"weights of shape {list(vectors.shape)} for {columns} features")
        return vectors


def active_features(nbest: NBest) -> NDArray[np.intp]:
    """Return the columns that differ within some utterance: the others choose nothing."""
    if not nbest.utterances:
        return np.empty(0, dtype=np.intp)
    starts = nbest.offsets[:-1]
    highest = np.maximum.reduceat(nbest.features, starts)
    return np.flatnonzero((highest > np.minimum.reduceat(nbest.features, starts)).any(axis=0))


def _buckets(nbest: NBest, active: NDArray[np.intp]) -> Iterator[_Bucket]:
    features = nbest.features[:, active]
    utterance = np.repeat(np.arange(nbest.utterances), np.diff(nbest.offsets))
    rows = distinct(utterance, features, nbest.errors)
    lengths = np.bincount(utterance[rows], minlength=nbest.utterances)
    starts = np.cumsum(lengths) - lengths
    by_length = np.argsort(lengths, kind="stable")
    # A new bucket where one is full or the lists are twice as long as its shortest.
    full = np.cumsum(lengths[by_length]) // _BUCKET_HYPOTHESES
    doubled = np.ceil(np.log2(lengths[by_length]))
    cuts = np.flatnonzero((np.diff(full) > 0) | (np.diff(doubled) > 0)) + 1
    for members in np.split(by_length, cuts) if nbest.utterances else ():
        length = lengths[members]
        # Padding repeats the last hypothesis, which changes no choice.
        column = np.minimum(np.arange(length.max()), length[:, np.newaxis] - 1)
        taken = rows[starts[members, np.newaxis] + column]
        yield _Bucket(
            utterances=members,
            features=np.ascontiguousarray(features[taken.ravel()].T),
            errors=nbest.errors[taken],
        )


def distinct(
    utterance: NDArray[np.intp], features: NDArray[np.float64], errors: NDArray[np.int32]
) -> NDArray[np.intp]:
    """Return one row of each utterance and features, sorted by utterance and falling errors.

    Of rows with the same features it is the one with most errors, since the products of a matrix
    routine may round differently from column to column and so break the tie.
    """
    key = np.zeros(len(errors))  # one number to sort by: four times faster than all columns
    for number, column in enumerate(features.T):
        key += column * np.pi**-number
    order = np.lexsort((-errors, key, utterance))
    again = (np.diff(utterance[order]) == 0) & (np.diff(key[order]) == 0)
    twins = np.flatnonzero(again)
    if (features[order[twins]] != features[order[twins + 1]]).any():  # the key is not enough
        order = np.lexsort((-errors, *features.T, utterance))
        again = np.diff(utterance[order]) == 0
        for column in features.T:
            again &= np.diff(column[order]) == 0
    order = order[np.concatenate([[True], ~again])[: len(order)]]
    rows: NDArray[np.intp] = order[np.lexsort((-errors[order], utterance[order]))]
    return rows


def _chosen_errors(
    bucket: _Bucket, vector: NDArray[np.float64], scores: NDArray[np.float64]
) -> NDArray[np.int32]:
    """Return the errors of the highest score of each utterance; ``scores`` is overwritten."""
    np.dot(vector, bucket.features, out=scores)
    utterances, length = bucket.errors.shape
    best = scores.reshape(utterances, length).argmax(axis=1)  # the first of equals: most errors
    chosen: NDArray[np.int32] = bucket.errors[np.arange(utterances), best]
    return chosen


def _pieces(
    low: float, high: float, total: int, times: NDArray[np.float64], changes: NDArray[np.int64]
) -> LineErrors:
    """Sort the changes, and join pieces that are too narrow or have the same errors."""
    order = np.argsort(times, kind="stable")
    bounds = np.concatenate([[low], times[order], [high]])
    errors = total + np.concatenate([[0], np.cumsum(changes[order])])
    width = np.diff(bounds)
    wide = np.flatnonzero(width >= min(_NARROW, width.max()))
    changed = wide[np.diff(errors[wide], prepend=-1) != 0]
    return LineErrors(
        bounds=np.concatenate([[low], bounds[changed[1:]], [high]]), errors=errors[changed]
    )
