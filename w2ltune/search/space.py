"""The search space: which flags vary, over what, and one trial's choice of them.

A space comes from flags whose values are distributions, from a Python file with a function
``space(trial)`` in Optuna's define-by-run style (for conditional spaces), or from both.
"""

from __future__ import annotations

import contextlib
import math
import random
import runpy
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import optuna

from w2ltune.errors import InputError, existing_file
from w2ltune.formats.distributions import (
    Choice,
    Distribution,
    FloatRange,
    IntegerRange,
    format_value,
)

ANCESTOR_RANGES: Mapping[str, Distribution] = {
    "lmweight": FloatRange(low=0.0, high=5.0),
    "wordscore": FloatRange(low=-8.0, high=7.0),
}
"""What a decode sweep searches when the user gave no distribution: the ancestor's ranges.

The ancestor's third weight, eosscore, does nothing in a CTC or ASG decoder and is left out.
"""

PERTURB_SEED = "perturb_seed"
"""What the sampler chooses for a file with ``perturb_parameters``."""

PERTURBED = ("lmweight", "wordscore", "silscore", "eosscore")
"""Flags that such a file finds at 0 where they are not given."""

SpaceFunction = Callable[[optuna.Trial], Mapping[str, Any]]


@dataclass(frozen=True, kw_only=True)
class SearchSpace:
    """Fixed flags and those that are searched.

    Attributes:
        fixed: Flags with one value, by name.
        distributions: Searched flags, by name.
        script: A Python file with ``space(trial)`` returning more flags, or None.
    """

    fixed: Mapping[str, str]
    distributions: Mapping[str, Distribution] = field(default_factory=dict)
    script: Path | None = None

    def ask(self, study: optuna.Study) -> tuple[optuna.Trial, dict[str, str]]:
        """Ask the study for a trial and return it with all its flags."""
        trial = study.ask({name: to_optuna(value) for name, value in self.distributions.items()})
        return trial, self._asked(trial, trial.params)

    def _asked(self, trial: Any, params: Mapping[str, Any]) -> dict[str, str]:
        """Return all flags of a trial, those of the script among them."""
        searched: dict[str, Any] = {n: params[n] for n in self.distributions if n in params}
        if self.script is not None:
            function = load_space(self.script, self.fixed)
            searched |= call_space(function, trial, self.script)
            searched.pop(PERTURB_SEED, None)
        return self.flags(searched)

    def values(self, flags: Mapping[str, str]) -> dict[str, Any] | None:
        """Return the searched values that flags stand for; None if the space does not hold them."""
        return None if self.script else self._values(flags)

    def _values(self, flags: Mapping[str, str]) -> dict[str, Any] | None:
        values: dict[str, Any] = {}
        for name, distribution in self.distributions.items():
            text = flags.get(name)
            value = None if text is None else value_of(distribution, text)
            if value is None:
                return None
            values[name] = value
        return values

    def flags_of(self, params: Mapping[str, Any]) -> dict[str, str] | None:
        """Return all flags of a trial by the values in the journal; None if they are not ours."""
        flags = self._asked(optuna.trial.FixedTrial(dict(params)), params)
        ours = self.script is not None or self.distributions.keys() == params.keys()
        return flags if ours and self._values(flags) is not None else None

    def flags(self, searched: Mapping[str, Any]) -> dict[str, str]:
        """Return all flags, as texts, of a trial with these searched values."""
        return dict(self.fixed) | {name: format_value(value) for name, value in searched.items()}


def value_of(distribution: Distribution, text: str) -> Any:
    """Return the value of a distribution that a text stands for; None if it holds none."""
    if isinstance(distribution, Choice):
        return next((c for c in distribution.choices if format_value(c) == text), None)
    try:
        value = int(text) if isinstance(distribution, IntegerRange) else float(text)
    except ValueError:
        return None
    return value if distribution.contains(value) else None


def values_in(distribution: Distribution, most: float) -> list[Any]:
    """Return the values of choices and of steps; none where they are more, or not to be counted."""
    if isinstance(distribution, Choice):
        return list(distribution.choices)
    low, high, step = distribution.low, distribution.high, distribution.step
    if step is None or distribution.log:
        return []
    count = math.floor((high - low) / step + 1e-9) + 1
    # 3 * 0.1 is above 0.3
    return [min(low + n * step, high) for n in range(count)] if count <= most else []


def to_optuna(distribution: Distribution) -> optuna.distributions.BaseDistribution:
    """Return Optuna's form of a distribution."""
    match distribution:
        case FloatRange():
            return optuna.distributions.FloatDistribution(
                distribution.low, distribution.high, log=distribution.log, step=distribution.step
            )
        case IntegerRange():
            return optuna.distributions.IntDistribution(
                distribution.low, distribution.high, log=distribution.log, step=distribution.step
            )
        case Choice():
            return optuna.distributions.CategoricalDistribution(distribution.choices)


def load_space(path: Path, fixed: Mapping[str, str] | None = None) -> SpaceFunction:
    """Return the function ``space(trial)`` of a Python file.

    The ancestor's files, with ``perturb_parameters(args)``, are accepted too: it gets an object
    with each fixed flag an attribute, changes some at random (``random`` or ``numpy.random``) and
    returns it or nothing.

    Raises:
        InputError: No such file or function, or the file fails.
    """
    existing_file(path, "search space (--space)")
    try:
        names = runpy.run_path(str(path))
    except (Exception, SystemExit) as error:
        raise InputError(
            f"the search space fails: {type(error).__name__}: {error}", path=path
        ) from None
    function, perturb = names.get("space"), names.get("perturb_parameters")
    if callable(perturb) and not callable(function):
        return _perturbing(perturb, fixed or {}, path)
    if not callable(function):
        raise InputError("the search space has no function space(trial)", path=path)
    return function  # type: ignore[no-any-return]


def _perturbing(
    perturb: Callable[[Any], Any], fixed: Mapping[str, str], path: Path
) -> SpaceFunction:
    """Return a search space that is what ``perturb`` changes, repeatable by the sampler's seed."""

    def space(trial: optuna.Trial) -> Mapping[str, Any]:
        seed = trial.suggest_int(PERTURB_SEED, 0, 2**31 - 1)
        random.seed(seed)
        np.random.seed(seed)
        known = {name: _plain_value(text) for name, text in fixed.items()}
        given = {**dict.fromkeys(PERTURBED, 0.0), **known}
        arguments = SimpleNamespace(**given)
        returned = perturb(arguments)
        changed = getattr(arguments if returned is None else returned, "__dict__", None)
        if changed is None:
            raise InputError(
                f"perturb_parameters(args) must return args, not a {type(returned).__name__}",
                path=path,
            )
        return {name: value for name, value in changed.items() if given.get(name) != value}

    return space


def _plain_value(text: str) -> str | int | float:
    for kind in (int, float):
        with contextlib.suppress(ValueError):
            return kind(text)
    return text


def example_of(script: Path, fixed: Mapping[str, str] | None = None) -> dict[str, str]:
    """Return one choice of flags by a script, to be checked before the first trial.

    Raises:
        InputError: As `load_space` and `call_space` do.
    """
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    values = call_space(load_space(script, fixed), optuna.create_study().ask(), script)
    return {name: format_value(value) for name, value in values.items()}


def call_space(space: SpaceFunction, trial: Any, path: Path) -> dict[str, Any]:
    """Return the flags that ``space`` chooses for a trial.

    Raises:
        InputError: It fails or returns something else.
    """
    try:
        values = space(trial)
    except InputError:
        raise
    except (Exception, SystemExit) as error:
        raise InputError(
            f"space(trial) fails: {type(error).__name__}: {error}", path=path
        ) from None
    if not isinstance(values, Mapping) or not all(isinstance(name, str) for name in values):
        raise InputError(
            f"space(trial) must return a dict of flag to value, not {values!r}", path=path
        )
    # A number of numpy would be written as "np.float64(0.1)".
    plain = {n: v.item() if isinstance(v, np.generic) else v for n, v in values.items()}
    for name, value in plain.items():
        if not isinstance(value, (str, int, float)):
            raise InputError(
                f"space(trial) gives --{name} the value {value!r}: must be a number or a text",
                path=path,
            )
    return plain
