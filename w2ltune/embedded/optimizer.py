"""Stochastic gradient descent with momentum, and Adam, on parameters in numpy."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from w2ltune.embedded.acoustic import Parameters

OPTIMIZERS = ("adam", "sgd")
ADAM_DECAYS = (0.9, 0.999)
ADAM_EPSILON = 1e-8


@dataclass(frozen=True, kw_only=True)
class Moments:
    """What an optimizer remembers, like the parameters in shape.

    Attributes:
        first: Decaying sum (``sgd``) or mean (``adam``) of the gradients.
        second: Decaying mean of their squares (``adam``; else zero).
    """

    first: Parameters
    second: Parameters


def clip(gradients: Parameters, maximum_norm: float) -> Parameters:
    """Shorten gradients whose norm over all parameters is above the maximum; 0 leaves them."""
    norm = math.sqrt(sum(float((gradient**2).sum()) for gradient in gradients.values()))
    if not maximum_norm or norm <= maximum_norm:
        return gradients
    return {name: gradient * (maximum_norm / norm) for name, gradient in gradients.items()}


def optimize(
    parameters: Parameters,
    gradients: Parameters,
    moments: Moments,
    *,
    optimizer: str,
    learning_rate: float,
    momentum: float,
    update: int,
) -> tuple[Parameters, Moments]:
    """Return the parameters and moments after an update of this number, from 1.

    The optimizer is ``adam`` (Kingma and Ba, 2015) or ``sgd`` with momentum.
    """
    decay, square_decay = ADAM_DECAYS
    second = dict(moments.second)
    first: Parameters = {}
    moved: Parameters = {}
    for name, gradient in gradients.items():
        if optimizer == "adam":
            first[name] = decay * moments.first[name] + (1 - decay) * gradient
            second[name] = square_decay * second[name] + (1 - square_decay) * gradient**2
            deviation = np.sqrt(second[name] / (1 - square_decay**update)) + ADAM_EPSILON
            step = first[name] / (1 - decay**update) / deviation
        else:
            first[name] = step = momentum * moments.first[name] + gradient
        moved[name] = parameters[name] - learning_rate * step
    return moved, Moments(first=first, second=second)
