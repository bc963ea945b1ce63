"""What a run of a study is given, and what it knows of a live trial."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import optuna

from w2ltune.runs.trialdir import TrialDirectory, TrialResult
from w2ltune.search.method import SearchMethod
from w2ltune.search.pruning import TrialPruner
from w2ltune.search.space import SearchSpace
from w2ltune.search.study import Settled


@dataclass(frozen=True, kw_only=True)
class Score:
    """What a complete trial's counts say beyond their sum.

    Attributes:
        interval: Lower and upper end of its rate.
        unit: What was resampled for it.
        lists: Counts of each list, by its name; empty where there is one.
    """

    interval: tuple[float, float]
    unit: str
    lists: Mapping[str, tuple[int, ...]]


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What a run of a study needs to know.

    Attributes:
        study: The open study; this process is its one writer.
        trials: The folder of the trials.
        space: What is searched.
        method: Chooses the trials.
        trial_count: The budget: trials that count, finished before or now.
        live_trials: How many run at a time, at most.
        settled: What earlier runs left.
        pruner: Stops hopeless trials; None lets all run to their end.
        score: Returns interval, its unit and the counts by list of a complete trial's last report;
            None where trials have no error counts.
        on_result: Called with each finished trial's result.
        is_ours: Whether no other process took the study over.
        generation: Of the ownership, for those who work for this process; 0 where there is none.
        config: Returns what the trainable is told of a trial with these flags, beyond them.
        capacity: Takes how many trials are live and returns how many may be now; None where they
            all fit.
        baseline: Flags of a first trial that is not chosen but given; None without.
        beam: Flags that were chosen beside the space, shown with a trial's searched values.
    """

    study: optuna.Study
    trials: Path
    space: SearchSpace
    method: SearchMethod
    trial_count: int
    live_trials: int
    settled: Settled
    pruner: TrialPruner | None
    score: Callable[[Mapping[str, Any]], Score] | None
    on_result: Callable[[TrialResult], None]
    is_ours: Callable[[], bool]
    generation: int = 0
    config: Callable[[Mapping[str, str]], Mapping[str, Any]] = lambda flags: {}
    capacity: Callable[[int], int] | None = None
    baseline: Mapping[str, str] | None = None
    beam: Mapping[str, str] = field(default_factory=dict)


@dataclass(kw_only=True)
class LiveTrial:
    """A trial that is running."""

    trial: optuna.Trial
    directory: TrialDirectory
    flags: Mapping[str, str]
    value: float | None = None
    fraction: float = 0.0
    note: str = ""
    writing: bool = False
    reported: int = -1
    pruned: int = 0
