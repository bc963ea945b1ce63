"""How the errors of a training fall: a function of --lr, --seed and the updates, best at 0.01."""

from __future__ import annotations

import math
import zlib
from typing import NamedTuple

BEST_LR = 0.01
DIVERGING_LR = 0.5
EXPLODING_LR = 10
HALF_LIFE_UPDATES = 30


class Errors(NamedTuple):
    """What a training reports of one set; TER and WER in per cent, as in its lines."""

    loss: float
    ter: float
    wer: float


def gain(lr: float) -> float:
    """Return how much one update adds to the progress of a training; 1 at the best rate."""
    if not 0 < lr <= DIVERGING_LR:
        return 0.0
    return math.exp(-(math.log10(lr / BEST_LR) ** 2))


def errors(lr: float, seed: int, progress: float, name: str) -> Errors:
    """Return the errors on one set.

    Args:
        lr: The learning rate; apart from the speed, the best reachable WER depends on it.
        seed: Moves the errors a little.
        progress: The sum of `gain` over all updates.
        name: Of the set; moves the errors a little.
    """
    if lr > EXPLODING_LR or math.isnan(lr):
        return Errors(math.inf, math.inf, math.inf)
    if not 0 < lr <= DIVERGING_LR:
        return Errors(30.0, 100.0, 100.0)
    noise = zlib.crc32(f"{seed} {name}".encode()) / 2**32
    floor = 4 + noise + 6 * math.log10(lr / BEST_LR) ** 2
    wer = min(100.0, floor + (100 - floor) * 2 ** (-progress / HALF_LIFE_UPDATES))
    return Errors(0.05 + 0.18 * wer, 0.45 * wer, wer)
