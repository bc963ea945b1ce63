"""How the next trial is chosen: what every search method answers, and the plain one."""

from __future__ import annotations

import os
from collections.abc import Collection, Mapping
from typing import Any, Protocol

import optuna
from optuna.trial import FrozenTrial

from w2ltune import files
from w2ltune.errors import InputError
from w2ltune.formats.distributions import Distribution
from w2ltune.runs.trialdir import TrialDirectory, TrialResult
from w2ltune.search.samplers import SingleValues, make_sampler
from w2ltune.search.space import SearchSpace
from w2ltune.search.study import counted

NOTE = "w2ltune:search"
"""Name of a trial's user attribute that says how it came about; see `SearchMethod.note`."""


class SearchMethod(Protocol):
    """Chooses trials one after the other, knowing what came of the earlier ones."""

    def finished(self) -> str:
        """Return why the search has ended before its budget is spent, or ""."""

    def ready(self, live: Collection[int]) -> bool:
        """Whether a trial can be chosen now, while these are running."""

    def sampler(self, number: int, *, seed: int) -> optuna.samplers.BaseSampler:
        """Return the sampler for the trial of this number.

        Args:
            number: Of the trial.
            seed: Number of trials before it that count: one that a kill cut short while it was
                asked changes nothing.
        """

    def note(self, number: int) -> Mapping[str, Any]:
        """Return what is to be remembered of the trial: ``how`` it was chosen, and more."""

    def prunes(self, number: int) -> bool:
        """Whether this trial may be stopped early."""

    def observe(self, result: TrialResult) -> None:
        """Take a finished trial."""


class PlainMethod:
    """A sampler that is always ready and ends with the budget.

    Args:
        name: One of `samplers.SAMPLERS`.
        seed: The study's seed.
        distributions: The searched flags.
        trial_count: The budget.
    """

    def __init__(
        self, name: str, *, seed: int, distributions: Mapping[str, Distribution], trial_count: int
    ) -> None:
        self._name = name
        self._seed = seed
        self._distributions = distributions
        self._trial_count = trial_count

    def finished(self) -> str:
        """Return "": the budget ends the search."""
        return ""

    def ready(self, live: Collection[int]) -> bool:
        """Return True."""
        return True

    def sampler(self, number: int, *, seed: int) -> optuna.samplers.BaseSampler:
        """Return Optuna's sampler, made from the study's seed and the trial's."""
        return make_sampler(
            self._name,
            seed=self._seed,
            number=seed,
            distributions=self._distributions,
            trial_count=self._trial_count,
        )

    def note(self, number: int) -> Mapping[str, Any]:
        """Return the sampler's name."""
        return {"how": self._name}

    def prunes(self, number: int) -> bool:
        """Return True."""
        return True

    def observe(self, result: TrialResult) -> None:
        """Forget it: the sampler looks into the study."""


class GivenSampler(SingleValues):
    """Gives values that were decided elsewhere, each in its distribution; the others at random."""

    def __init__(self, values: Mapping[str, Any]) -> None:
        self._values = values
        self._rest = optuna.samplers.RandomSampler(seed=0)

    def sample_independent(
        self,
        study: optuna.Study,
        trial: optuna.trial.FrozenTrial,
        param_name: str,
        param_distribution: optuna.distributions.BaseDistribution,
    ) -> Any:
        """Return the value given, else one drawn."""
        if param_name in self._values:
            return self._values[param_name]
        return self._rest.sample_independent(study, trial, param_name, param_distribution)


def has_baseline(study: optuna.Study) -> bool:
    """Whether the study's baseline was asked for."""
    return any(trial.user_attrs.get(NOTE, {}).get("how") == "baseline" for trial in counted(study))


def flags_of(
    directory: TrialDirectory,
    trial: FrozenTrial,
    space: SearchSpace,
    baseline: Mapping[str, str] | None,
) -> dict[str, str]:
    """Return the flags of an interrupted trial: those of the command and the journal.

    Raises:
        InputError: Its folder says otherwise, where others can write; whose file it is is said.
    """
    flags, writer = directory.read_flags(), directory.flags.stat().st_uid
    if space.script is not None and writer == os.getuid():
        return flags  # a script may choose something else each time it is asked
    meant = space.flags_of(trial.params)
    if trial.user_attrs.get(NOTE, {}).get("how") == "baseline":
        meant = {**(meant or space.fixed), **(baseline or flags)}
    if flags != meant:
        names = sorted({*flags.items()} ^ {*(meant or {}).items()})
        name = names[0][0] if names else "…"
        raise InputError(
            f"of {files.user_of(writer)}, is not what this command and the journal make of the "
            f"trial (--{name}): remove the folder, then it is lost and does not count",
            path=directory.flags,
        )
    return flags
