"""The learning rate from update to update, by the flags that fl_asr_train has for it."""

from __future__ import annotations

import math
from dataclasses import dataclass

NEVER = 2**63 - 1
"""The binary's default for what is counted in epochs or updates and does not happen."""


@dataclass(frozen=True, kw_only=True)
class Schedule:
    """How the learning rate goes.

    It rises for ``warmup_updates`` to its peak. Then it falls as half a cosine to 0 at the last
    update, unless one of the binary's own decays is asked for; of those, halving goes together
    with each of the other two.

    Attributes:
        peak: The learning rate after the warm-up.
        warmup_updates: Updates in which it rises from 0.
        updates: Of the whole training.
        quarter_cosine: Falls as a quarter of a cosine (``--lrcosine``).
        halve_from_epoch: Halved from this epoch on (``--lr_decay``).
        halve_every_epochs: And again after so many epochs (``--lr_decay_step``).
        gamma: Factor for each ``gamma_updates`` updates, gradually (``--gamma``).
        gamma_updates: See ``gamma`` (``--stepsize``).
    """

    peak: float = 0.003
    warmup_updates: int = 40
    updates: int = 1430
    quarter_cosine: bool = False
    halve_from_epoch: int = NEVER
    halve_every_epochs: int = NEVER
    gamma: float = 1.0
    gamma_updates: int = NEVER


def learning_rate_at(schedule: Schedule, *, epoch: int, update: int) -> float:
    """Return the learning rate of an update.

    Args:
        schedule: How it goes.
        epoch: Of the update, from 1.
        update: Its number, from 1.

    Example:
        >>> schedule = Schedule(peak=0.8, warmup_updates=4, updates=100, halve_from_epoch=2)
        >>> [learning_rate_at(schedule, epoch=e, update=u) for e, u in [(1, 1), (1, 9), (2, 60)]]
        [0.2, 0.8, 0.4]
    """
    rate = schedule.peak * min(1.0, update / max(schedule.warmup_updates, 1))
    halving = schedule.halve_from_epoch != NEVER
    if schedule.quarter_cosine:
        rate *= math.cos(math.pi / 2 * min(update / schedule.updates, 1.0))
    elif schedule.gamma != 1:
        rate *= schedule.gamma ** (update / schedule.gamma_updates)
    elif not halving:
        rate *= 0.5 * (1 + math.cos(math.pi * min((update - 1) / schedule.updates, 1.0)))
    if halving and epoch >= schedule.halve_from_epoch:
        rate *= 0.5 ** (1 + (epoch - schedule.halve_from_epoch) // schedule.halve_every_epochs)
    return rate
