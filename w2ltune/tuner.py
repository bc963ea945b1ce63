"""Run a study on Ray Tune: its searcher and scheduler both sit on the one Optuna study.

Ray Tune starts, watches and restarts trials; what is worth keeping is in the study's journal and in
the trials' folders. Tune's own state is thrown away, and resume never reads it.
"""

from __future__ import annotations

import logging
import os
import signal
import threading
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import optuna
from optuna.trial import FrozenTrial
from ray import tune
from ray.tune.schedulers import FIFOScheduler, TrialScheduler
from ray.tune.search import Searcher

from w2ltune.errors import StoppedError, TrialFailedError, W2LTuneError
from w2ltune.runs.trialdir import TrialDirectory, TrialResult
from w2ltune.search.pruning import PairedPruner
from w2ltune.search.space import SearchSpace
from w2ltune.search.study import Settled, counted, tell

MOST_LIVE_TRIALS = 4
SAME_FAILURES = 3
"""So many failures from the first trial on, with one and the same reason, end the sweep."""


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What a run of a study needs to know.

    Attributes:
        study: The open study; this process is its one writer.
        trials: The folder of the trials.
        space: What is searched.
        sampler: Returns the sampler for the trial of a number.
        trial_count: The budget: trials that count, finished before or now.
        live_trials: How many run at a time.
        settled: What earlier runs left.
        pruner: Stops hopeless trials; None lets all run to their end.
        interval: Returns lower end, upper end and unit for a complete trial's utterance errors.
        on_result: Called with each finished trial's result.
    """

    study: optuna.Study
    trials: Path
    space: SearchSpace
    sampler: Callable[[int], optuna.samplers.BaseSampler]
    trial_count: int
    live_trials: int
    settled: Settled
    pruner: PairedPruner | None
    interval: Callable[[npt.NDArray[Any], npt.NDArray[Any]], tuple[float, float, str]]
    on_result: Callable[[TrialResult], None]


@dataclass(kw_only=True)
class LiveTrial:
    """A trial that is running."""

    trial: optuna.Trial
    directory: TrialDirectory
    flags: Mapping[str, str]
    value: float | None = None
    fraction: float = 0.0
    reported: int = -1
    pruned: bool = False


class Hub:
    """The run's state, shared by searcher, scheduler and display; guarded by one lock.

    Args:
        plan: What to run.
    """

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self.lock = threading.RLock()
        self.live: dict[str, LiveTrial] = {}
        self.results: list[TrialResult] = []
        self.finished = plan.settled.finished
        self.waiting: list[FrozenTrial] = list(plan.settled.interrupted)
        self.stop_reason = ""
        self.error: BaseException | None = None

    def __reduce__(self) -> tuple[type[object], tuple[()]]:
        """Leave nothing in Tune's own state files, which nobody reads."""
        return object, ()

    def stop(self, reason: str) -> None:
        """End the run soon; the same command continues. The first reason stands."""
        self.stop_reason = self.stop_reason or reason

    def fail(self, error: BaseException) -> None:
        """End the run with an error; the first one stands."""
        with self.lock:
            self.error = self.error or error
            self.stop("error")

    def next(self, trial_id: str) -> dict[str, Any] | str | None:
        """Return the configuration of the next trial, None to be asked again, or FINISHED."""
        if self.stop_reason:
            return None
        if self.waiting:
            frozen = self.waiting.pop(0)
            trial = optuna.Trial(self.plan.study, frozen._trial_id)
            directory = TrialDirectory(self.plan.trials, frozen.number)
            flags = read_flags(directory.flags)
        elif self.finished + len(self.live) < self.plan.trial_count:
            number = len(self.plan.study.get_trials(deepcopy=False))
            self.plan.study.sampler = self.plan.sampler(number)
            trial, flags = self.plan.space.ask(self.plan.study)
            directory = TrialDirectory(self.plan.trials, trial.number)
            directory.path.mkdir(parents=True, exist_ok=True)
            write_flags(directory.flags, flags)
        else:
            return None if self.live else str(Searcher.FINISHED)
        self.live[trial_id] = LiveTrial(trial=trial, directory=directory, flags=flags)
        return {
            "number": trial.number,
            "launched": directory.attempt(),
            "trials": str(self.plan.trials),
            "flags": dict(flags),
        }

    def progress(self, trial_id: str, result: Mapping[str, Any]) -> bool:
        """Take a live trial's report; return whether it should be stopped."""
        live = self.live.get(trial_id)
        if live is None or result.get("failure") or self.stop_reason:
            return False
        live.fraction = float(result["fraction"])
        step = int(result["step"])
        if step <= live.reported or not step:
            return False  # a restarted trial goes through the same steps again
        live.value, live.reported = float(result["value"]), step
        if self.plan.pruner is None or result["done"]:
            return False
        live.trial.report(live.value, step)
        self.plan.pruner.observe(live.trial.number, result["utterance_errors"])
        frozen = self.plan.study.get_trials(deepcopy=False)[live.trial.number]
        live.pruned = self.plan.pruner.prune(self.plan.study, frozen)
        return live.pruned

    def complete(self, trial_id: str, result: Mapping[str, Any] | None, *, error: bool) -> None:
        """Write a trial's result and tell the study; result.json first, always."""
        live = self.live.pop(trial_id, None)
        if live is None or (self.stop_reason and not (result or {}).get("done")):
            return  # it goes on when the same command is given again
        if result is None or error:
            outcome = self._outcome(live, {}, state="FAIL", reason="Ray lost the trial")
        elif result.get("failure"):
            outcome = self._outcome(live, result, state="FAIL", reason=str(result["failure"]))
        elif live.pruned:
            outcome = self._outcome(
                live, result, state="PRUNED", reason="worse than the best trial"
            )
        elif result.get("done"):
            outcome = self._outcome(live, result, state="COMPLETE")
        else:
            return
        live.directory.write_result(outcome)
        tell(self.plan.study, outcome.number, outcome)
        self.finished += 1
        self.results.append(outcome)
        if self.plan.pruner is not None:
            errors = (result or {}).get("utterance_errors")
            complete = outcome.state == "COMPLETE"
            self.plan.pruner.finish(outcome.number, outcome.value, errors if complete else None)
        self.plan.on_result(outcome)
        self._stop_if_hopeless()

    def _outcome(
        self, live: LiveTrial, result: Mapping[str, Any], *, state: Any, reason: str = ""
    ) -> TrialResult:
        interval, unit = None, ""
        if state == "COMPLETE":
            low, high, unit = self.plan.interval(
                result["utterance_errors"], result["reference_words"]
            )
            interval = (low, high)
        searched = live.trial.params or {
            name: live.flags[name] for name in live.flags.keys() - self.plan.space.fixed.keys()
        }
        counts = result.get("counts")
        value = result.get("value")
        return TrialResult(
            number=live.trial.number,
            attempt=int(result.get("attempt", 0)),
            state=state,
            value=None if state == "FAIL" or value is None or np.isnan(value) else float(value),
            counts=None if state == "FAIL" or counts is None else tuple(counts),
            interval=interval,
            interval_unit=unit,
            params=searched,
            flags=live.flags,
            seconds=round(float(result.get("seconds", 0.0)), 3),
            work_seconds=round(float(result.get("work_seconds", 0.0)), 3),
            missing=int(result.get("missing", 0)),
            reason=reason,
        )

    def _stop_if_hopeless(self) -> None:
        first = self.results[:SAME_FAILURES]
        if (
            self.plan.settled.finished == 0
            and len(first) == SAME_FAILURES == self.finished
            and all(result.state == "FAIL" for result in first)
            and len({result.reason for result in first}) == 1
        ):
            self.fail(
                TrialFailedError(f"the first {SAME_FAILURES} trials failed: {first[0].reason}")
            )


class StudySearcher(Searcher):
    """Gives Tune the study's trials: interrupted ones first, under their own number."""

    def __init__(self, hub: Hub) -> None:
        super().__init__(metric="value", mode="min")
        self._hub = hub

    def suggest(self, trial_id: str) -> Any:
        """Return a trial's configuration, FINISHED, or None to be asked again."""
        with self._hub.lock:
            try:
                return self._hub.next(trial_id)
            except BaseException as error:
                self._hub.fail(error)
                return None

    def on_trial_complete(
        self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False
    ) -> None:
        """Tell the study; nothing else does."""
        with self._hub.lock:
            try:
                self._hub.complete(trial_id, result, error=error)
            except BaseException as problem:
                self._hub.fail(problem)

    def save(self, checkpoint_path: str) -> None:
        """Save nothing: the study's folder is the truth."""

    def restore(self, checkpoint_path: str) -> None:
        """Restore nothing."""


class StudyScheduler(FIFOScheduler):
    """Stops trials that the study's pruner gives up."""

    def __init__(self, hub: Hub) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._hub = hub

    def on_trial_result(self, tune_controller: Any, trial: Any, result: dict[str, Any]) -> str:
        """Return STOP for a trial to prune, else CONTINUE."""
        with self._hub.lock:
            try:
                stop = self._hub.progress(trial.trial_id, result)
            except BaseException as error:
                self._hub.fail(error)
                stop = False
        return str(TrialScheduler.STOP if stop else TrialScheduler.CONTINUE)


class HubStopper(tune.Stopper):
    """Ends Tune's loop when the hub says so."""

    def __init__(self, hub: Hub) -> None:
        self._hub = hub

    def __call__(self, trial_id: str, result: dict[str, Any]) -> bool:
        """Stop no single trial."""
        return False

    def stop_all(self) -> bool:
        """Whether the run ends."""
        return bool(self._hub.stop_reason)


def run(
    plan: Plan,
    trainable: type[tune.Trainable],
    *,
    resources: Mapping[str, float],
    private: Path,
    show: Callable[[Hub], None],
    show_every_seconds: float = 0.25,
) -> list[TrialResult]:
    """Run the study's remaining trials and return their results.

    Args:
        plan: What to run.
        trainable: Runs one trial.
        resources: What Tune reserves for each.
        private: Node-local folder for Tune's own files, which nobody reads.
        show: Draws the state; called from this thread now and then.
        show_every_seconds: How often.

    Raises:
        StoppedError: A signal asked to stop; the same command continues.
        W2LTuneError: The run failed.
        OSError: A file could not be written (the disk is full).
    """
    hub = Hub(plan)
    # A lost process is not news: Tune starts the trial again.
    logging.getLogger("ray.tune").setLevel(logging.CRITICAL)
    if plan.settled.finished >= plan.trial_count and not hub.waiting:
        return []
    # The folder is shared with nobody, and what Tune writes there is thrown away.
    os.environ["TUNE_GLOBAL_CHECKPOINT_S"] = "86400"
    tuner = tune.Tuner(
        tune.with_resources(trainable, dict(resources)),
        tune_config=tune.TuneConfig(
            search_alg=StudySearcher(hub),
            scheduler=StudyScheduler(hub),
            num_samples=-1,
            max_concurrent_trials=plan.live_trials,
            reuse_actors=True,
            trial_name_creator=lambda trial: f"trial-{trial.config.get('number', 0):04d}",
            trial_dirname_creator=lambda trial: trial.trial_id,
        ),
        run_config=tune.RunConfig(
            name="w2ltune",
            storage_path=str(private),
            stop=HubStopper(hub),
            failure_config=tune.FailureConfig(max_failures=-1),
            checkpoint_config=tune.CheckpointConfig(
                checkpoint_frequency=0, checkpoint_at_end=False
            ),
            verbose=0,
        ),
    )
    thread = threading.Thread(target=_fit, args=(tuner, hub), name="ray tune", daemon=True)
    handlers = _stop_on_signals(hub)
    try:
        thread.start()
        while thread.is_alive():
            thread.join(show_every_seconds)
            show(hub)
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)
    if isinstance(hub.error, (W2LTuneError, OSError)):
        raise hub.error
    if hub.error is not None:
        raise W2LTuneError(
            f"the run broke off ({type(hub.error).__name__}: {hub.error}); nothing finished is "
            "lost, the same command continues"
        ) from hub.error
    if hub.stop_reason:
        raise StoppedError(
            f"stopped ({hub.stop_reason}) after {hub.finished} of {plan.trial_count} trials; "
            "the same command continues",
            interrupted="SIGINT" in hub.stop_reason and "SLURM_JOB_ID" not in os.environ,
        )
    return hub.results


def _fit(tuner: tune.Tuner, hub: Hub) -> None:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            tuner.fit()
    except BaseException as error:
        hub.fail(error)


def _stop_on_signals(hub: Hub) -> dict[int, Any]:
    """Let USR1, TERM and INT stop the run; return the handlers that they had."""
    old: dict[int, Any] = {}
    if threading.current_thread() is threading.main_thread():
        for number in (signal.SIGUSR1, signal.SIGTERM, signal.SIGINT):
            name = signal.Signals(number).name
            old[number] = signal.signal(number, lambda *_, name=name: hub.stop(f"signal {name}"))
    return old


def read_flags(path: Path) -> dict[str, str]:
    """Return the flags of a ``flags.cfg`` that `write_flags` wrote."""
    from w2ltune.formats.flagsfile import effective, parse_flagsfile
    from w2ltune.formats.known_flags import is_boolean

    flags = effective(parse_flagsfile(path, boolean=is_boolean))
    return {name: flag.value for name, flag in flags.items()}


def write_flags(path: Path, flags: Mapping[str, str], comments: tuple[str, ...] = ()) -> None:
    """Write flags as a flagsfile, in one step."""
    from w2ltune import files
    from w2ltune.formats.flagsfile import format_flagsfile

    files.write_text(path, format_flagsfile(flags, comments=comments))


def incumbent_of(study: optuna.Study) -> FrozenTrial | None:
    """Return the best complete trial, or None."""
    complete = [t for t in counted(study) if t.state is optuna.trial.TrialState.COMPLETE]
    return min(complete, key=lambda trial: trial.values[0], default=None)
