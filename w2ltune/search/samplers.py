"""The samplers by name: which there are, what they need, and a fresh one for each trial.

A sampler is made anew for each trial from (seed, trial number): a seeded sampler that is only
made again after a restart would propose its first points again.
"""

from __future__ import annotations

import importlib.util
import itertools
import math
import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import optuna
from optuna.samplers import BaseSampler
from optuna.trial import FrozenTrial

from w2ltune.errors import UsageError, did_you_mean
from w2ltune.formats.distributions import Choice, Distribution, IntegerRange
from w2ltune.search.space import values_in
from w2ltune.search.study import counts

SAMPLERS: Mapping[str, tuple[str, ...]] = {
    "tpe": (),
    "random": (),
    "qmc": ("scipy",),
    "cmaes": ("cmaes", "scipy"),
    "grid": (),
    "gp": ("torch", "scipy"),
}
"""Each sampler's name and the packages that it needs beyond ours."""


def check_sampler(name: str, distributions: Mapping[str, Distribution], *, script: bool) -> None:
    """Refuse at the start what would fail at trial 10.

    Args:
        name: The sampler's name.
        distributions: The searched flags.
        script: Whether a space script decides some of them trial by trial.

    Raises:
        UsageError: Unknown sampler, a package is missing, or the space does not fit it.
    """
    if name not in SAMPLERS:
        raise UsageError(
            f"--sampler={name}: unknown{did_you_mean(name, SAMPLERS)} "
            f"(known: {', '.join(SAMPLERS)})"
        )
    missing = missing_packages(name)
    if missing:
        raise UsageError(
            f"--sampler={name} needs {' and '.join(missing)}, not installed: "
            f"pip install 'w2ltune[{name}]'"
        )
    if script and name == "grid":
        raise UsageError(
            "--sampler=grid cannot lay a grid over a --space script; use tpe or random"
        )
    if name == "cmaes":
        for flag, distribution in distributions.items():
            if isinstance(distribution, Choice):
                raise UsageError(
                    f"--sampler=cmaes cannot search --{flag}={distribution}: CMA-ES knows numbers "
                    "only; use tpe"
                )


def missing_packages(name: str) -> list[str]:
    """Return the packages that a sampler needs and that are not installed."""
    return [package for package in SAMPLERS[name] if not importlib.util.find_spec(package)]


def make_sampler(
    name: str,
    *,
    seed: int,
    number: int,
    distributions: Mapping[str, Distribution],
    trial_count: int,
) -> BaseSampler:
    """Return the sampler for one trial.

    The study's seed and the trial's number decide what random numbers are drawn; the budget,
    ``trial_count``, how fine a grid is.
    """
    own = int(np.random.SeedSequence([seed, number]).generate_state(1)[0])
    samplers = optuna.samplers
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        match name:
            case "tpe":
                return samplers.TPESampler(seed=own)
            case "random":
                return samplers.RandomSampler(seed=own)
            case "qmc":
                # One scrambled sequence for the whole study; the study keeps its position.
                return samplers.QMCSampler(
                    scramble=True, seed=seed, warn_asynchronous_seeding=False,
                    independent_sampler=samplers.RandomSampler(seed=own),
                )  # fmt: skip
            case "cmaes":
                return samplers.CmaEsSampler(
                    seed=own, n_startup_trials=4, warn_independent_sampling=False
                )
            case "grid":
                return GridSampler(grid_points(distributions, trial_count))
            case "gp":
                return samplers.GPSampler(seed=own)
    raise AssertionError(name)


def grid_points(
    distributions: Mapping[str, Distribution], trial_count: int
) -> list[dict[str, Any]]:
    """Return the points of a grid that has at most ``trial_count`` points where it can.

    Choices, integers in small ranges and quantised floats give their own values. The rest of the
    budget is spread evenly over the continuous flags, ends included.

    Example:
        >>> from w2ltune.formats.distributions import Choice, FloatRange
        >>> space = {"lmweight": FloatRange(low=0.0, high=4.0), "lm": Choice(choices=("a", "b"))}
        >>> [point["lmweight"] for point in grid_points(space, 6)]
        [0.0, 0.0, 2.0, 2.0, 4.0, 4.0]
    """
    fixed = {name: _own_values(value) for name, value in distributions.items()}
    used = math.prod(len(values) for values in fixed.values() if values)
    free = [name for name, values in fixed.items() if not values]
    each = max(2, int((trial_count / used) ** (1 / len(free)) + 1e-9)) if free else 0
    axes = {name: values or _spread(distributions[name], each) for name, values in fixed.items()}
    return [dict(zip(axes, point, strict=True)) for point in itertools.product(*axes.values())]


def _own_values(distribution: Distribution) -> list[Any]:
    return values_in(distribution, 10 if isinstance(distribution, IntegerRange) else math.inf)


def _spread(distribution: Distribution, count: int) -> list[Any]:
    if isinstance(distribution, Choice):
        raise TypeError("a choice has its own values")
    space = np.geomspace if distribution.log else np.linspace
    values: Sequence[float] = space(distribution.low, distribution.high, count).tolist()
    if isinstance(distribution, IntegerRange):
        return sorted({round(value) for value in values})
    return list(values)


class SingleValues(BaseSampler):
    """A base of samplers that give each value for itself."""

    def infer_relative_search_space(self, *_: Any) -> dict[str, Any]:
        """Return nothing."""
        return {}

    def sample_relative(self, *_: Any) -> dict[str, Any]:
        """Return nothing."""
        return {}


class GridSampler(SingleValues):
    """Goes through a list of points in order; a trial lost while being asked leaves no hole.

    When the budget has grown since and with it the grid, points that were tried are not repeated.

    Args:
        points: Parameter values by name.
    """

    def __init__(self, points: Sequence[dict[str, Any]]) -> None:
        self._points = points

    def sample_independent(
        self,
        study: optuna.Study,
        trial: FrozenTrial,
        param_name: str,
        param_distribution: optuna.distributions.BaseDistribution,
    ) -> Any:
        """Return this parameter's value of the first point that no earlier trial has."""
        earlier = [
            other.params
            for other in study.get_trials(deepcopy=False)
            if other.number < trial.number and counts(other)
        ]
        left = [point for point in self._points if point not in earlier]
        point = left[0] if left else self._points[len(earlier) % len(self._points)]
        return point[param_name]
