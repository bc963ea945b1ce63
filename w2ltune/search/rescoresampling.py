"""Optuna's samplers on rescoring weights: plain Bayesian search, and what rescore.py did."""

from __future__ import annotations

import itertools
import math
import warnings
from collections.abc import Callable, Iterator
from typing import TypeAlias

import numpy as np
import numpy.typing as npt
import optuna

from w2ltune.errors import UsageError
from w2ltune.search.residual import Vector
from w2ltune.search.samplers import SAMPLERS, missing_packages

ErrorsByK: TypeAlias = Callable[[Vector], npt.NDArray[np.int64]]
"""Returns the errors [vectors, ks] of weights [vectors, columns], the acoustic model's first."""

ANCESTOR_GRID = {
    "tr": np.arange(0, 1, 0.1),
    "convlm": np.arange(-0.3, 0.25, 0.1),
    "len": np.arange(0, 1, 0.1),
}
"""The points of rescore.py's grid, 600 in all: one language model, another, the length."""

ANCESTOR_BOX = {"tr": (0.0, 2.5), "convlm": (-1.0, 1.0), "len": (-1.0, 4.0)}
"""The ranges of its random search; that of the length is known roughly only."""


def ancestor_names(names: tuple[str, ...], length: tuple[str, ...]) -> dict[str, str]:
    """Return which weight of rescore.py each weight is: the first LM, the second, the length.

    Args:
        names: The weights.
        length: Those among them that weigh a length.

    Raises:
        UsageError: There are others.
    """
    models = [name for name in names if name not in length]
    if len(models) > 2 or len(length) > 1:
        raise UsageError(
            "the grid and the random search of rescore.py are for two language models and one "
            f"length; here are {', '.join(names)}: use --method=line, certified, tpe or cmaes"
        )
    return dict(zip(models, ("tr", "convlm"), strict=False)) | dict.fromkeys(length, "len")


def grid_vectors(names: tuple[str, ...], as_ancestor: dict[str, str]) -> Vector:
    """Return the grid of rescore.py, float64 [points, 1 + weights].

    Args:
        names: The weights.
        as_ancestor: Which weight of rescore.py each is.
    """
    axes = [ANCESTOR_GRID[as_ancestor[name]] for name in names]
    points = np.stack([axis.ravel() for axis in np.meshgrid(*axes, indexing="ij")], axis=1)
    return np.concatenate([np.ones((len(points), 1)), points], axis=1)


def check_method(method: str, names: tuple[str, ...], length: tuple[str, ...]) -> None:
    """Refuse before the search what cannot be searched.

    Args:
        method: As for `sample`; others have nothing to check.
        names: The weights.
        length: Those among them that weigh a length.

    Raises:
        UsageError: A package is missing, or rescore.py had no such weights.
    """
    if method in ("random", "grid"):
        ancestor_names(names, length)
    missing = missing_packages(method) if method in SAMPLERS else []
    if missing:
        raise UsageError(
            f"--method={method} needs {' and '.join(missing)}, not installed: "
            f"pip install 'w2ltune[{method}]'"
        )


def sample(
    method: str,
    errors: ErrorsByK,
    names: tuple[str, ...],
    *,
    as_ancestor: dict[str, str],
    low: Vector,
    high: Vector,
    n: int,
    seed: int,
    batch: int = 16,
) -> Iterator[int]:
    """Search with one of Optuna's samplers; yield how many weights were evaluated after each batch.

    Args:
        method: tpe or cmaes in the box; random or grid over the ranges of rescore.py.
        errors: What is known of weights.
        names: The weights.
        as_ancestor: Which weight of rescore.py each is; used by random and grid.
        low: float64 [weights], the box.
        high: float64 [weights].
        n: How many evaluations.
        seed: Of the sampler.
        batch: How many weights random and grid evaluate together.
    """
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    ends = dict(zip(names, zip(low.tolist(), high.tolist(), strict=True), strict=True))
    if method == "random":
        ends = {name: ANCESTOR_BOX[as_ancestor[name]] for name in names}
    grid = {name: ANCESTOR_GRID[as_ancestor[name]].tolist() for name in names if as_ancestor}
    points: Iterator[tuple[float, ...]] = iter(())
    if method == "grid":
        ends = {name: (values[0], values[-1]) for name, values in grid.items()}
        n = min(n, math.prod(len(values) for values in grid.values()))
        points = itertools.product(*grid.values())
    ranges: dict[str, optuna.distributions.BaseDistribution] = {
        name: optuna.distributions.FloatDistribution(*pair) for name, pair in ends.items()
    }
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        samplers: dict[str, Callable[[], optuna.samplers.BaseSampler]] = {
            "tpe": lambda: optuna.samplers.TPESampler(seed=seed, multivariate=True),
            "cmaes": lambda: optuna.samplers.CmaEsSampler(seed=seed, n_startup_trials=4),
            "random": lambda: optuna.samplers.RandomSampler(seed=seed),
        }
        study = optuna.create_study(sampler=samplers.get(method, samplers["random"])())
    done = 0
    while done < n:
        size = min(batch if method in ("random", "grid") else 1, n - done)
        for point in itertools.islice(points, size):
            study.enqueue_trial(dict(zip(names, point, strict=True)))
        trials = [study.ask(ranges) for _ in range(size)]
        vectors = np.array([[1.0, *(trial.params[name] for name in names)] for trial in trials])
        found = errors(vectors)
        done += size
        for trial, row in zip(trials, found, strict=True):
            study.tell(trial, float(row.min()))
        yield done
