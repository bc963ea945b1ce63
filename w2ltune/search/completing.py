"""A journal that is behind its folders is completed from them: the folder is the truth.

An older copy that was restored, a copy made while the study ran, a file that was cut or is gone.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import optuna
from optuna.distributions import distribution_to_json, json_to_distribution
from optuna.trial import FrozenTrial, TrialState

from w2ltune.errors import InputError
from w2ltune.runs.trialdir import TrialDirectory, trial_directories
from w2ltune.search.space import SearchSpace, to_optuna

LOST = "w2ltune:lost"
"""Mark of a trial that a kill cut short while it was asked: it has no flags and does not count."""


def asked(study: optuna.Study, trial: optuna.Trial) -> dict[str, Any]:
    """Return what the journal knows of a trial that was just asked, for its folder."""
    distributions = trial.distributions
    return {
        "params": {
            name: (
                distributions[name].to_internal_repr(value),
                distribution_to_json(distributions[name]),
            )
            for name, value in trial.params.items()
        },
        "user_attrs": trial.user_attrs,
        "study": study._storage.get_study_system_attrs(study._study_id),
    }


@dataclass(frozen=True, kw_only=True)
class _Asked:
    """What a trial's folder tells of it."""

    params: Mapping[str, Any]
    distributions: Mapping[str, optuna.distributions.BaseDistribution]
    user_attrs: Mapping[str, Any]
    study: Mapping[str, Any]


def _read_asked(directory: TrialDirectory, space: SearchSpace | None) -> _Asked:
    known = directory.read_asked()
    try:
        distributions = {n: json_to_distribution(text) for n, (_, text) in known["params"].items()}
        params = {
            name: distributions[name].to_external_repr(value)
            for name, (value, _) in known["params"].items()
        }
        return _Asked(
            params=params,
            distributions=distributions,
            user_attrs=dict(known["user_attrs"]),
            study=dict(known["study"]),
        )
    except (KeyError, ValueError, TypeError, AttributeError):  # of an older w2ltune
        params = (space and directory.was_asked() and space.values(directory.read_flags())) or {}
        distributions = {n: to_optuna(space.distributions[n]) for n in params} if space else {}
        return _Asked(params=params, distributions=distributions, user_attrs={}, study={})


def complete(study: optuna.Study, trials: Path, space: SearchSpace | None) -> range:
    """Add to the journal what only the folders know: it may be an older copy, or cut, or gone."""
    storage, known = study._storage, study.get_trials(deepcopy=False)
    there = {d.number: d for d in trial_directories(trials) if d.was_asked() or d.result.exists()}
    added = range(len(known), max(there, default=-1) + 1)
    for trial in known:
        if not trial.state.is_finished() and trial.number in there:
            _fill(study, trial, there[trial.number], space)
    for number in added:
        if number not in there:
            frozen = optuna.trial.create_trial(state=TrialState.FAIL, user_attrs={LOST: True})
        else:
            frozen = _from_folder(there[number], space)
            for name, value in _read_asked(there[number], space).study.items():
                storage.set_study_system_attr(study._study_id, name, value)
        storage.create_new_trial(study._study_id, template_trial=frozen)
    return added


def _from_folder(directory: TrialDirectory, space: SearchSpace | None) -> FrozenTrial:
    """Return a trial as its folder tells it."""
    result, told = directory.read_result(), _read_asked(directory, space)
    state = TrialState[result.state] if result else TrialState.RUNNING
    reports = dict(result.reports) if result else {}
    value = result.value if result and state is TrialState.COMPLETE else None
    if state is TrialState.PRUNED and reports:  # as Optuna's own tell does
        value = reports[max(reports)]
    try:
        return optuna.trial.create_trial(
            state=state,
            value=value,
            params=dict(told.params),
            distributions=dict(told.distributions),
            user_attrs=dict(told.user_attrs),
            intermediate_values=reports,
            system_attrs=dict(result.rungs) if result else {},
        )
    except ValueError as error:
        raise InputError(f"damaged, restore or remove it: {error}", path=directory.path) from None


def _fill(
    study: optuna.Study, trial: FrozenTrial, directory: TrialDirectory, space: SearchSpace | None
) -> None:
    """Add to a running trial what its folder knows of it and the journal does not."""
    storage, number, known = study._storage, trial._trial_id, _from_folder(directory, space)
    for name in sorted(known.params.keys() - trial.params.keys()):
        distribution = known.distributions[name]
        value = distribution.to_internal_repr(known.params[name])
        storage.set_trial_param(number, name, value, distribution)
    for name in sorted(known.user_attrs.keys() - trial.user_attrs.keys()):
        storage.set_trial_user_attr(number, name, known.user_attrs[name])
    for name in sorted(known.system_attrs.keys() - trial.system_attrs.keys()):
        storage.set_trial_system_attr(number, name, known.system_attrs[name])
    for step in sorted(known.intermediate_values.keys() - trial.intermediate_values.keys()):
        storage.set_trial_intermediate_value(number, step, known.intermediate_values[step])
