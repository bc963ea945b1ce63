"""The CTC loss and its gradient, for a batch, in log space.

Graves et al., "Connectionist temporal classification", 2006. The alignments of a target of L
tokens pass through 2 L + 1 states: blank, token, blank, token, ..., blank.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.floating]
Integers = NDArray[np.integer]


def log_softmax(logits: Floats) -> Floats:
    """Return logits minus the logarithm of the sum of their exponentials, on the last axis."""
    shifted = logits - logits.max(-1, keepdims=True)
    normalised: Floats = shifted - np.log(np.exp(shifted).sum(-1, keepdims=True))
    return normalised


def frames_needed(target: Sequence[int] | Integers) -> int:
    """Return the fewest frames that can hold a target: a blank parts equal neighbours.

    Example:
        >>> frames_needed([7, 5, 5])
        4
    """
    tokens = np.asarray(target)
    return len(tokens) + int((tokens[1:] == tokens[:-1]).sum())


def ctc_loss(
    log_probabilities: Floats, frames: Integers, targets: Sequence[Integers], *, blank: int
) -> tuple[NDArray[np.float64], Floats]:
    """Return the CTC loss of each utterance and the gradient of their sum.

    Args:
        log_probabilities: [utterances, frames, tokens + 1], padded with any finite value.
        frames: Frames of each utterance.
        targets: Token indices of each utterance, without blanks.
        blank: Index of the blank.

    Returns:
        losses: [utterances], in nats; infinite where :func:`frames_needed` exceeds the frames.
        gradient: With respect to the *logits*; zero in padding and where the loss is infinite.
    """
    utterances, longest, _ = log_probabilities.shape
    frames = np.asarray(frames)[:, None]
    lengths = np.array([2 * len(target) + 1 for target in targets])
    states = np.full((utterances, lengths.max()), blank)
    for row, target in zip(states, targets, strict=True):
        row[1 : 2 * len(target) : 2] = target
    in_target = np.arange(states.shape[1]) < lengths[:, None]
    # A blank may be left out between two different tokens.
    can_skip = np.zeros(states.shape, bool)
    can_skip[:, 2:] = (states[:, 2:] != blank) & (states[:, 2:] != states[:, :-2])
    scores = np.take_along_axis(log_probabilities.astype(np.float64), states[:, None, :], axis=2)
    scores = np.where(in_target[:, None, :], scores, -np.inf)

    forward = np.full(scores.shape, -np.inf)
    forward[:, 0, :2] = scores[:, 0, :2]
    for frame in range(1, longest):
        before = forward[:, frame - 1]
        arriving = before.copy()
        arriving[:, 1:] = np.logaddexp(arriving[:, 1:], before[:, :-1])
        skipping = np.where(can_skip[:, 2:], before[:, :-2], -np.inf)
        arriving[:, 2:] = np.logaddexp(arriving[:, 2:], skipping)
        forward[:, frame] = arriving + scores[:, frame]

    last = in_target & (np.arange(states.shape[1]) >= lengths[:, None] - 2)
    final = np.where(last, 0.0, -np.inf)
    backward = np.full(scores.shape, -np.inf)
    leaving = backward[:, 0]
    for frame in range(longest - 1, -1, -1):
        if frame + 1 < longest:
            after = backward[:, frame + 1] + scores[:, frame + 1]
            leaving = after.copy()
            leaving[:, :-1] = np.logaddexp(leaving[:, :-1], after[:, 1:])
            skipping = np.where(can_skip[:, 2:], after[:, 2:], -np.inf)
            leaving[:, :-2] = np.logaddexp(leaving[:, :-2], skipping)
        backward[:, frame] = np.where(frames == frame + 1, final, leaving)

    paths = forward + backward
    log_likelihoods = np.logaddexp.reduce(paths[:, 0], axis=-1)
    feasible = np.isfinite(log_likelihoods)
    offset = np.where(feasible, log_likelihoods, 0.0)
    posteriors = np.exp(paths - offset[:, None, None])
    one_hot = states[:, :, None] == np.arange(log_probabilities.shape[2])
    gradient = np.exp(log_probabilities) - posteriors @ one_hot.astype(np.float64)
    real = (np.arange(longest) < frames) & feasible[:, None]
    gradient *= real[:, :, None]
    return -log_likelihoods, gradient.astype(log_probabilities.dtype)


def best_path(log_probabilities: Floats, *, blank: int) -> list[int]:
    """Return the tokens of the best path of an emission: repeats merged, then blanks removed."""
    best = log_probabilities.argmax(-1)
    changes = np.append(True, best[1:] != best[:-1])
    return [int(token) for token in best[changes] if token != blank]
