"""The Optuna study of rescoring: the weights that were better than all before, one trial each.

Thousands of weights are evaluated in a second; to write each down would take far longer.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import optuna
from optuna.trial import TrialState

from w2ltune.search.method import GivenSampler
from w2ltune.search.residual import Vector


@dataclass(frozen=True, kw_only=True, eq=False)
class Incumbent:
    """Weights that were the best when they were found.

    Attributes:
        vector: float64 [columns], that of the acoustic model first.
        k: How many hypotheses of each utterance take part.
        errors: What they come to.
        how: What found them.
        evaluations: How many weights had been evaluated then, with one line for one.
    """

    vector: Vector
    k: int
    errors: int
    how: str
    evaluations: int


def record(
    study: optuna.Study,
    names: Sequence[str],
    incumbent: Incumbent,
    *,
    low: Vector,
    high: Vector,
    reference_words: int,
) -> None:
    """Add a trial to the study.

    Args:
        study: Ours.
        names: The weights.
        incumbent: What was found.
        low: float64 [weights], the box.
        high: float64 [weights].
        reference_words: For the rate.
    """
    values = dict(zip(names, incumbent.vector[1:].tolist(), strict=True))
    ends = zip(low.tolist(), high.tolist(), strict=True)
    ranges: dict[str, optuna.distributions.BaseDistribution] = {
        name: optuna.distributions.FloatDistribution(min(a, value), max(b, value))
        for (name, value), (a, b) in zip(values.items(), ends, strict=True)
    }
    study.sampler = GivenSampler(values)
    trial = study.ask(ranges)
    for name in ("k", "errors", "how", "evaluations"):
        trial.set_user_attr(name, getattr(incumbent, name))
    study.tell(trial, incumbent.errors / max(1, reference_words))


def incumbents(study: optuna.Study, names: Sequence[str]) -> list[Incumbent]:
    """Return what the study holds, in order."""
    return [
        Incumbent(
            vector=np.array([1.0, *(trial.params[name] for name in names)]),
            k=int(trial.user_attrs["k"]),
            errors=int(trial.user_attrs["errors"]),
            how=str(trial.user_attrs["how"]),
            evaluations=int(trial.user_attrs["evaluations"]),
        )
        for trial in study.get_trials(deepcopy=False, states=[TrialState.COMPLETE])
        if "errors" in trial.user_attrs
    ]
