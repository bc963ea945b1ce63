"""What the trials of a training sweep say beyond their ranking: doubts, chance, what matters."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from shlex import quote

import numpy as np
import numpy.typing as npt

from w2ltune.report.content import edge_warnings
from w2ltune.report.leaderboard import per_cent, show_value
from w2ltune.report.training import TrainingContent
from w2ltune.runs.trialdir import TrialResult

SEED = "seed"
"""The flag of the trainer's random numbers; sweeping it shows how much is chance."""

OWN_RATE = (
    "the trainer's own, on its validation list: best path, without a language model; what is "
    "best was chosen on that list, so that it is optimistic"
)
"""What the error rates of a training's log are."""

FEW_TRIALS = 5
"""Fewer trials for each searched flag are called few."""

LEAST_FOR_CORRELATION = 5


@dataclass(frozen=True, kw_only=True)
class SeedNoise:
    """How much trials differ that differ in their seed only.

    Attributes:
        deviation: Standard deviation of the error rate, a fraction.
        widest: The largest difference between two of them, a fraction.
        trials: How many trials it comes from.
        groups: How many settings they have.
    """

    deviation: float
    widest: float
    trials: int
    groups: int


def seed_noise(results: Sequence[TrialResult]) -> SeedNoise | None:
    """Return the spread over seeds; None where no two complete trials differ in it only."""
    by_setting: dict[tuple[tuple[str, object], ...], list[float]] = {}
    for result in results:
        if result.state == "COMPLETE" and result.value is not None and SEED in result.params:
            setting = tuple(sorted((n, v) for n, v in result.params.items() if n != SEED))
            by_setting.setdefault(setting, []).append(result.value)
    groups = [np.array(values) for values in by_setting.values() if len(values) > 1]
    if not groups:
        return None
    squares = sum(float(((group - group.mean()) ** 2).sum()) for group in groups)
    trials = sum(len(group) for group in groups)
    return SeedNoise(
        deviation=(squares / (trials - len(groups))) ** 0.5,
        widest=max(float(np.ptp(group)) for group in groups),
        trials=trials,
        groups=len(groups),
    )


def find_training_warnings(content: TrainingContent) -> list[str]:
    """Return what makes the answer doubtful, one sentence each."""
    space, best = content.request.space, content.best
    ranges = {name: text for name, text in space.items() if name != SEED}
    found = edge_warnings(ranges, [best] if best is not None else [])
    if best is not None and best.reason:
        then = "; then the same command takes it" if best.checkpoint else ""
        found.insert(0, f"The best model was not copied: {_short(best.reason)}{then}.")
    if best is not None and best.epochs and best.epoch == content.epochs_of(best):
        epoch = f"at its last epoch ({best.epoch})"
        found.append(
            f"Trial {best.number} was still improving {epoch}: a larger --iter may help."
            if space
            else f"It was still improving {epoch}: a larger --iter may help."
        )
    judged = [result for result in content.board.results if result.state != "FAIL"]
    if ranges and len(judged) < FEW_TRIALS * len(ranges):
        trials = "1 trial" if len(judged) == 1 else f"{len(judged)} trials"
        of = "1 flag" if len(ranges) == 1 else f"{len(ranges)} flags"
        found.append(
            f"Only {trials} for {of}: there may well be better values; --n may grow and the sweep "
            "goes on."
        )
    noise = seed_noise(content.board.results)
    if noise is not None:
        found.append(
            f"Trials that differ in --seed only differ by up to {per_cent(noise.widest)} points of "
            f"{content.metric} (standard deviation {per_cent(noise.deviation)}, {noise.trials} "
            "trials): what is smaller may be chance."
        )
    failed = len(content.board.results) - len(judged)
    if failed and space:
        of = f"{failed} of {len(content.board.results)}"
        found.append(f"{of} trials failed: {_short(content.board.results[-1].reason)}")
    return found


def _short(reason: str) -> str:
    return " ".join(reason.split()) or "no reason is known"


def rank_correlation(results: Sequence[TrialResult], name: str) -> float | None:
    """Return Spearman's rank correlation of a searched number with the error rate.

    Complete and pruned trials count. None where there are too few of them, where the flag's values
    are texts, or where all are the same.
    """
    pairs = [
        (result.params[name], result.value)
        for result in results
        if name in result.params and result.value is not None
    ]
    if len(pairs) < LEAST_FOR_CORRELATION or any(isinstance(value, str) for value, _ in pairs):
        return None
    x, y = (_ranks(np.array(column, dtype=np.float64)) for column in zip(*pairs, strict=True))
    if not x.std() or not y.std():
        return None
    return float(np.corrcoef(x, y)[0, 1])


def _ranks(values: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Return ranks from 0; equal values share the middle of theirs."""
    _, index, counts = np.unique(values, return_inverse=True, return_counts=True)
    ends = np.cumsum(counts)
    return np.asarray((ends - (counts + 1) / 2)[index])


def params_text(result: TrialResult) -> str:
    """Return the searched flags of a trial as on a command line, values in short form."""
    return " ".join(f"--{name}={quote(show_value(v))}" for name, v in result.params.items())
