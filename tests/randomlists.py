"""Random n-best lists for rescoring, and what a plain loop chooses from them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest

from w2ltune.formats.nbest import NBest

COMPILED = [pytest.mark.main, pytest.mark.xdist_group("compiled")]
"""Marks of what compiles: on one worker, where each function is compiled once."""


def random_lists(
    rng: np.random.Generator, utterances: int, longest: int, columns: int, *, coarse: bool = False
) -> NBest:
    """Lists of 1 to ``longest`` hypotheses; coarse ones have small integer features: many ties."""
    lengths = rng.integers(1, longest + 1, utterances)
    rows = int(lengths.sum())
    shape = (rows, columns)
    features = rng.integers(-2, 3, shape).astype(float) if coarse else rng.normal(size=shape)
    return NBest(
        offsets=np.concatenate([[0], np.cumsum(lengths)]),
        features=features,
        errors=rng.integers(0, 6, rows, dtype=np.int32),
        text_hash=np.arange(rows, dtype=np.uint64),
        reference_words=np.full(utterances, 6, dtype=np.int32),
    )


def plain_choice(
    nbest: NBest, weights: Sequence[float], k: int = 10**9, *, first_of_equals: bool = False
) -> int:
    """Errors of the best of the first k hypotheses of each utterance, one after the other."""
    total = 0
    for low, high in zip(nbest.offsets[:-1], nbest.offsets[1:], strict=True):
        best, chosen = -np.inf, 0
        for row in range(low, min(high, low + k)):
            score = sum(w * v for w, v in zip(weights, nbest.features[row].tolist(), strict=True))
            errors = int(nbest.errors[row])
            if score > best or (score == best and errors > chosen and not first_of_equals):
                best, chosen = score, errors
        total += chosen
    return total
