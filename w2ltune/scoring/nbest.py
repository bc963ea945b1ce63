"""N-best lists as arrays: made from hypotheses, put together from blocks, merged over decodes."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from rapidfuzz.distance import Levenshtein

from w2ltune.formats.beamdump import Hypothesis
from w2ltune.formats.nbest import FEATURES, NBest
from w2ltune.formats.texthash import hash_text

_NOTHING_FOUND = 0  # the hash of the entry of an utterance without hypotheses
_SCORE_STEP = 1e-6  # scores nearer to each other than this are the same but for rounding
_SILENCE = FEATURES.index("silence")


def collect(
    lists: Sequence[Sequence[Hypothesis]],
    references: Sequence[Sequence[str]],
    units: Callable[[str], Sequence[str]],
) -> NBest:
    """Turn the hypotheses of a decode into features and numbers of errors.

    Hypotheses with a score that is not finite are left out. An utterance without hypotheses gets
    one entry without words: all features 0, and the whole reference deleted.

    Args:
        lists: The hypotheses of each utterance.
        references: As many references, in the units that are counted.
        units: Turns the text of a hypothesis into these units.

    Raises:
        ValueError: There are not as many references as lists.

    Example:
        >>> yes = Hypothesis(words=("yes",), score=-3.0, am_score=-2.0, lm_score=-1.0)
        >>> nbest = collect([[yes], []], [["yes", "sir"], ["no"]], str.split)
        >>> nbest.features.tolist(), nbest.errors.tolist()
        ([[-2.0, -1.0, 1.0, 0.0, 0.0], [0.0, 0.0, 0.0, 0.0, 0.0]], [1, 1])
    """
    features: list[tuple[float, float, int, int, int]] = []
    errors: list[int] = []
    hashes: list[int] = []
    offsets = [0]
    for hypotheses, reference in zip(lists, references, strict=True):
        known: dict[tuple[str, ...], tuple[int, int]] = {}
        for entry in hypotheses:
            am, lm, unknown = entry.am_score, entry.lm_score, entry.unknown_words
            if not math.isfinite(am + lm):
                continue
            if entry.words not in known:
                text = " ".join(entry.words)
                known[entry.words] = Levenshtein.distance(reference, units(text)), hash_text(text)
            count, text_hash = known[entry.words]
            features.append((am, lm, len(entry.words), unknown, entry.silence_frames))
            errors.append(count)
            hashes.append(text_hash)
        if len(errors) == offsets[-1]:
            features.append((0.0, 0.0, 0, 0, 0))
            errors.append(len(reference))
            hashes.append(_NOTHING_FOUND)
        offsets.append(len(errors))
    return NBest(
        offsets=np.array(offsets, dtype=np.int64),
        features=np.array(features, dtype=np.float64).reshape(-1, len(FEATURES)),
        errors=np.array(errors, dtype=np.int32),
        text_hash=np.array(hashes, dtype=np.uint64),
        reference_words=np.array([len(reference) for reference in references], dtype=np.int32),
    )


def take(nbest: NBest, utterances: ArrayLike) -> NBest:
    """Return the n-best lists of some utterances.

    Args:
        nbest: The lists of all.
        utterances: int [taken], their indices, in the order wanted; one may come several times.
    """
    taken = np.asarray(utterances, dtype=np.intp)
    lengths = np.diff(nbest.offsets)[taken]
    offsets = _offsets(lengths)
    rows = np.repeat(nbest.offsets[taken] - offsets[:-1], lengths) + np.arange(offsets[-1])
    return _select(nbest, rows, offsets, nbest.reference_words[taken])


def spread_out(
    nbest: NBest, utterances: Sequence[int], reference_words: NDArray[np.int32]
) -> NBest:
    """Return n-best lists of a whole data list from those of some of its utterances.

    The others get the entry of an utterance without hypotheses, which :func:`merge` takes for none.

    Args:
        nbest: The lists of some.
        utterances: Which these are, in their order.
        reference_words: int32 [all utterances].
    """
    count = len(reference_words)
    nothing = NBest(
        offsets=np.arange(count + 1, dtype=np.int64),
        features=np.zeros((count, nbest.features.shape[1])),
        errors=reference_words.astype(np.int32),
        text_hash=np.full(count, _NOTHING_FOUND, dtype=np.uint64),
        reference_words=reference_words.astype(np.int32),
    )
    place = np.arange(count)
    place[list(utterances)] = count + np.arange(len(utterances))
    return take(_join([nothing, nbest]), place)


def cut(nbest: NBest, k: int) -> NBest:
    """Return the first k hypotheses of each utterance.

    Raises:
        ValueError: k is below 1.
    """
    if k < 1:
        raise ValueError(f"no n-best lists of {k} hypotheses")
    kept = np.arange(nbest.hypotheses) - nbest.offsets[_utterance_of(nbest)] < k
    offsets = _offsets(np.minimum(np.diff(nbest.offsets), k))
    return _select(nbest, kept, offsets, nbest.reference_words)


def firsts(scores: NDArray[np.float64], counts: NDArray[np.integer]) -> NDArray[np.intp]:
    """Return the index of the first highest score of each utterance.

    Args:
        scores: float64 [hypotheses].
        counts: int [utterances], hypotheses of each, one at least.
    """
    if not len(counts):
        return np.empty(0, dtype=np.intp)
    starts = np.cumsum(counts) - counts
    highest = np.flatnonzero(scores == np.repeat(np.maximum.reduceat(scores, starts), counts))
    first: NDArray[np.intp] = highest[np.searchsorted(highest, starts)]
    return first


def concatenate(parts: Sequence[NBest], utterances: Sequence[ArrayLike]) -> NBest:
    """Put the blocks of a decode together.

    Args:
        parts: The n-best lists of each block.
        utterances: For each block the indices of its utterances in the data list, int
            [utterances of the block].

    Returns:
        The n-best lists of all utterances in the order of the data list.

    Raises:
        ValueError: The indices are not the numbers from 0 to the count of utterances, each once.
    """
    indices = np.concatenate([np.asarray(part, dtype=np.intp) for part in utterances])
    joined = _join(parts)
    if not np.array_equal(np.sort(indices), np.arange(joined.utterances)):
        raise ValueError(
            f"the {len(indices)} indices do not number the {joined.utterances} utterances"
        )
    return take(joined, np.argsort(indices))


def merge(pools: Sequence[NBest], *, silence: bool = True) -> NBest:
    """Unite the n-best lists that several decodes gave for the same utterances.

    The same words come with different alignments. Of those with the same counts, the ones are
    kept that no other beats or equals in both scores: the others are chosen by no weights, as
    long as the weights of both scores are not negative. The result does not depend on the order.

    Args:
        pools: The n-best lists of each decode.
        silence: False when silscore is 0 and stays so: the silence counts are set to 0, and more
            hypotheses are the same.

    Raises:
        ValueError: There is no pool, or they do not have the same references.
    """
    first = pools[0] if pools else None
    if first is None or any(
        not np.array_equal(pool.reference_words, first.reference_words) for pool in pools
    ):
        raise ValueError("only n-best lists of the same utterances can be merged")
    utterance = np.concatenate([_utterance_of(pool) for pool in pools])
    joined = _join(pools)
    if not silence:
        joined.features[:, _SILENCE] = 0
    rows = _undominated(utterance, joined.text_hash, joined.features)
    # Where one decode found nothing and another did, its empty entry would win with its score 0.
    real = joined.text_hash[rows] != _NOTHING_FOUND
    found = np.zeros(first.utterances, dtype=np.bool_)
    found[utterance[rows][real]] = True
    rows = rows[real | ~found[utterance[rows]]]
    offsets = _offsets(np.bincount(utterance[rows], minlength=first.utterances))
    return _select(joined, rows, offsets, first.reference_words)


def _join(parts: Sequence[NBest]) -> NBest:
    """Return the lists of all parts, one after the other, as copies."""
    return NBest(
        offsets=_offsets(np.concatenate([np.diff(part.offsets) for part in parts])),
        **{
            name: np.concatenate([getattr(part, name) for part in parts])
            for name in ("features", "errors", "text_hash", "reference_words")
        },
    )


def _select(
    nbest: NBest,
    rows: NDArray[Any],
    offsets: NDArray[np.int64],
    reference_words: NDArray[np.int32],
) -> NBest:
    return NBest(
        offsets=offsets,
        features=nbest.features[rows],
        errors=nbest.errors[rows],
        text_hash=nbest.text_hash[rows],
        reference_words=reference_words,
    )


def _undominated(
    utterance: NDArray[np.intp], text_hash: NDArray[np.uint64], features: NDArray[np.float64]
) -> NDArray[np.intp]:
    """Return the rows to keep, sorted by utterance and words."""
    am, lm, *counts = features.T
    am_cell, lm_cell = np.rint(am / _SCORE_STEP), np.rint(lm / _SCORE_STEP)
    # The exact scores come last: of rows that differ by rounding always the same one is kept.
    order = np.lexsort((-lm, -am, -lm_cell, -am_cell, *counts, text_hash, utterance))
    same = np.ones(max(len(order) - 1, 0), dtype=np.bool_)
    for column in (utterance, text_hash, *counts):
        same &= np.diff(column[order]) == 0
    group = np.concatenate([[0], np.cumsum(~same)])[: len(order)]
    # With the AM score falling, a row is undominated when its LM score is above all before it in
    # its group. Ranks below their number, plus that number times the group, make each group begin
    # above the one before: a single running maximum serves them all.
    values, rank = np.unique(lm_cell, return_inverse=True)
    height = np.maximum.accumulate(rank[order] + group * len(values))
    kept: NDArray[np.intp] = order[np.diff(height, prepend=-1) > 0]
    return kept


def _utterance_of(nbest: NBest) -> NDArray[np.intp]:
    """Return the index of the utterance of each hypothesis."""
    return np.repeat(np.arange(nbest.utterances), np.diff(nbest.offsets))


def _offsets(lengths: NDArray[np.integer]) -> NDArray[np.int64]:
    return np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
