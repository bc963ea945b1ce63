from __future__ import annotations

import itertools

import numpy as np
import pytest

from w2ltune.embedded.ctc import best_path, ctc_loss, frames_needed, log_softmax

BLANK = 3
TARGETS = [np.array([0, 0, 1]), np.array([2, 1]), np.array([], int), np.array([1])]
FRAMES = np.array([6, 5, 3, 1])


def batch(seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((4, 6, 4))


def collapse(alignment: tuple[int, ...]) -> list[int]:
    return [token for token, _ in itertools.groupby(alignment) if token != BLANK]


def loss_by_enumeration(log_probabilities: np.ndarray, target: np.ndarray) -> float:
    total = -np.inf
    for alignment in itertools.product(range(BLANK + 1), repeat=len(log_probabilities)):
        if collapse(alignment) == list(target):
            score = log_probabilities[np.arange(len(alignment)), alignment].sum()
            total = np.logaddexp(total, score)
    return -total


def test_loss_sums_over_all_alignments():
    values = log_softmax(batch())
    losses, _ = ctc_loss(values, FRAMES, TARGETS, blank=BLANK)
    expected = [
        loss_by_enumeration(matrix[:length], target)
        for matrix, length, target in zip(values, FRAMES, TARGETS, strict=True)
    ]
    assert losses == pytest.approx(expected)


def test_gradient_agrees_with_finite_differences():
    logits, step = batch(), 1e-6
    _, gradient = ctc_loss(log_softmax(logits), FRAMES, TARGETS, blank=BLANK)
    for place in np.ndindex(logits.shape):
        sides = []
        for sign in (1, -1):
            moved = logits.copy()
            moved[place] += sign * step
            sides.append(ctc_loss(log_softmax(moved), FRAMES, TARGETS, blank=BLANK)[0].sum())
        assert gradient[place] == pytest.approx((sides[0] - sides[1]) / (2 * step), abs=1e-7)


def test_padding_changes_nothing():
    values = log_softmax(batch())
    losses, gradient = ctc_loss(values, FRAMES, TARGETS, blank=BLANK)
    for i, (length, target) in enumerate(zip(FRAMES, TARGETS, strict=True)):
        alone, own = ctc_loss(values[i : i + 1, :length], FRAMES[i : i + 1], [target], blank=BLANK)
        assert losses[i] == pytest.approx(alone[0])
        assert gradient[i, :length] == pytest.approx(own[0])
        assert not gradient[i, length:].any()


def test_too_few_frames_is_an_infinite_loss_without_gradient():
    target = np.array([1, 1])
    assert frames_needed(target) == 3
    losses, gradient = ctc_loss(log_softmax(batch()[:2]), np.array([2, 3]), [target] * 2, blank=3)
    assert losses[0] == np.inf
    assert np.isfinite(losses[1])
    assert not gradient[0].any()
    assert gradient[1].any()


def test_extreme_logits_stay_finite():
    logits = (batch() * 300).astype(np.float32)
    losses, gradient = ctc_loss(log_softmax(logits), FRAMES, TARGETS, blank=BLANK)
    assert np.isfinite(losses).all()
    assert np.isfinite(gradient).all()
    assert gradient.dtype == np.float32


@pytest.mark.parametrize(
    ("alignment", "tokens"),
    [([3, 0, 0, 3, 0, 1, 1], [0, 0, 1]), ([3, 3], []), ([2], [2]), ([0, 1, 0], [0, 1, 0])],
)
def test_best_path_merges_repeats_and_drops_blanks(alignment, tokens):
    assert best_path(np.eye(4)[alignment], blank=BLANK) == tokens
