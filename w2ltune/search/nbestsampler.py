"""The n-best search as an Optuna sampler: what was decided becomes a trial's parameters."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import optuna
from optuna.trial import FrozenTrial

from w2ltune.formats.distributions import Choice, Distribution, IntegerRange, format_value
from w2ltune.search.linear import LINEAR_WEIGHTS
from w2ltune.search.space import to_optuna, value_of, values_in

MOST_SETTINGS = 20
"""So many settings are searched one by one; more are proposed by TPE."""

Setting = tuple[tuple[str, str], ...]
"""Flags that are not linear weights, as (name, text)."""


class NBestSampler(optuna.samplers.BaseSampler):
    """Gives the weights that the n-best lists propose, inside a setting of the other flags.

    Args:
        setting: Of the other flags; None leaves it to TPE.
        values: The linear weights, float64 [searched]; None where the setting is TPE's.
        distributions: The searched flags.
        weights_for: Returns the linear weights of a setting.
        tpe: Proposes settings.
    """

    def __init__(
        self,
        setting: Setting | None,
        values: npt.NDArray[np.float64] | None,
        distributions: Mapping[str, Distribution],
        weights_for: Callable[[Setting], npt.NDArray[np.float64]],
        tpe: optuna.samplers.BaseSampler,
    ) -> None:
        self._setting = setting
        self._values = values
        self._distributions = distributions
        self._weights_for = weights_for
        self._tpe = tpe

    def infer_relative_search_space(
        self, study: optuna.Study, trial: FrozenTrial
    ) -> dict[str, optuna.distributions.BaseDistribution]:
        """Return all that is searched: the values are decided together."""
        return {name: to_optuna(value) for name, value in self._distributions.items()}

    def sample_relative(
        self,
        study: optuna.Study,
        trial: FrozenTrial,
        search_space: Mapping[str, optuna.distributions.BaseDistribution],
    ) -> dict[str, Any]:
        """Return the values of all searched flags."""
        linear = linear_weights(self._distributions)
        others = [name for name in search_space if name not in linear]
        values: dict[str, Any] = {}
        texts = dict(self._setting or ())
        for name in others:
            if self._setting is None:
                values[name] = self._tpe.sample_independent(study, trial, name, search_space[name])
            else:
                values[name] = value_of(self._distributions[name], texts[name])
        setting = tuple((name, format_value(values[name])) for name in others)
        weights = self._weights_for(setting) if self._values is None else self._values
        for name, weight in zip(linear, weights.tolist(), strict=True):
            values[name] = _snap(self._distributions[name], weight)
        return values

    def sample_independent(
        self,
        study: optuna.Study,
        trial: FrozenTrial,
        param_name: str,
        param_distribution: optuna.distributions.BaseDistribution,
    ) -> Any:
        """Sample what is searched beyond the known flags; nothing is, at present."""
        return self._tpe.sample_independent(study, trial, param_name, param_distribution)


def _snap(distribution: Distribution, value: float) -> float | int:
    """Return the nearest value that a range can give."""
    if isinstance(distribution, Choice):
        raise TypeError("a choice is no linear weight")
    value = min(max(value, distribution.low), distribution.high)
    if distribution.step:
        steps = round((value - distribution.low) / distribution.step)
        value = min(distribution.low + steps * distribution.step, distribution.high)
    return round(value) if isinstance(distribution, IntegerRange) else float(value)


def linear_weights(distributions: Mapping[str, Distribution]) -> list[str]:
    """Return the searched weights that the score is linear in; those given as a choice are not.

    Example:
        >>> linear_weights({"lmweight": IntegerRange(0, 5), "wordscore": Choice(choices=(0, 1))})
        ['lmweight']
    """
    return [
        name
        for name in LINEAR_WEIGHTS
        if name in distributions and not isinstance(distributions[name], Choice)
    ]


def enumerate_settings(others: Mapping[str, Distribution]) -> list[Setting]:
    """Return all settings of the flags that are not linear weights; none if there are too many.

    Example:
        >>> enumerate_settings({"beamsize": Choice(choices=(50, 500))})
        [(('beamsize', '50'),), (('beamsize', '500'),)]
        >>> enumerate_settings({})
        [()]
    """
    axes = [values_in(distribution, MOST_SETTINGS) for distribution in others.values()]
    if not all(axes) or math.prod(map(len, axes)) > MOST_SETTINGS:
        return []
    texts = [[format_value(value) for value in axis] for axis in axes]
    return [tuple(zip(others, point, strict=True)) for point in itertools.product(*texts)]
