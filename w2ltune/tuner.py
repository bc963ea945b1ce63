"""Run a study on Ray Tune: its searcher and scheduler both sit on the one Optuna study.

Ray Tune starts, watches and restarts trials; what is worth keeping is in the study's journal and in
the trials' folders. Tune's own state is thrown away, and resume never reads it.
"""

from __future__ import annotations

import logging
import os
import threading
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from ray import tune
from ray.tune.progress_reporter import TrialProgressCallback
from ray.tune.schedulers import FIFOScheduler, TrialScheduler
from ray.tune.search import Searcher

from w2ltune.errors import StoppedError, W2LTuneError
from w2ltune.runs.lock import leave_to_another
from w2ltune.runs.signals import by_hand, stopping_signals
from w2ltune.search.plan import Plan
from w2ltune.search.run import StudyRun

TRIALS_REMEMBERED = 50
"""Far more than can be live: of these Tune may still hear something."""


class StudySearcher(Searcher):
    """Gives Tune the study's trials: interrupted ones first, under their own number."""

    def __init__(self, run: StudyRun) -> None:
        super().__init__(metric="value", mode="min")
        self._run = run

    def suggest(self, trial_id: str) -> Any:
        """Return a trial's configuration, FINISHED, or None to be asked again."""
        with self._run.lock:
            try:
                return Searcher.FINISHED if self._run.over else self._run.next(trial_id)
            except BaseException as error:
                self._run.fail(error)
                return None

    def on_trial_complete(
        self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False
    ) -> None:
        """Tell the study; nothing else does."""
        with self._run.lock:
            try:
                self._run.complete(trial_id, result, error=error)
            except BaseException as problem:
                self._run.fail(problem)

    def save(self, checkpoint_path: str) -> None:
        """Save nothing: the study's folder is the truth."""

    def restore(self, checkpoint_path: str) -> None:
        """Restore nothing."""


class StudyScheduler(FIFOScheduler):
    """Stops trials that the study's pruner gives up."""

    def __init__(self, run: StudyRun) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._run = run

    def on_trial_result(self, tune_controller: Any, trial: Any, result: dict[str, Any]) -> str:
        """Return STOP for a trial to prune, else CONTINUE."""
        with self._run.lock:
            try:
                stop = self._run.progress(trial.trial_id, result)
            except BaseException as error:
                self._run.fail(error)
                stop = False
        return str(TrialScheduler.STOP if stop else TrialScheduler.CONTINUE)

    def on_trial_complete(self, tune_controller: Any, trial: Any, result: dict[str, Any]) -> None:
        """Let Tune forget the trials that are over, but the last ones.

        It keeps all reports' statistics of each, about 50 kB, and looks at all in every step.
        """
        trials = tune_controller.get_trials()
        over = {one for one in trials[:-TRIALS_REMEMBERED] if one.is_finished()}
        trials[:] = [one for one in trials if one not in over]
        for name in ("_stopped_trials", "_failed_trials", "_trials_to_cache"):
            getattr(tune_controller, name, set()).difference_update(over)
        for one in over:
            getattr(tune_controller, "_trial_metadata", {}).pop(one.trial_id, None)


class RunStopper(tune.Stopper):
    """Ends Tune's loop when the run says so."""

    def __init__(self, run: StudyRun) -> None:
        self._run = run

    def __call__(self, trial_id: str, result: dict[str, Any]) -> bool:
        """Stop no single trial."""
        return False

    def stop_all(self) -> bool:
        """Whether the run ends."""
        return self._run.ends_now


class Silence(TrialProgressCallback):
    """In the place of Tune's own, which prints nothing here but keeps each trial for ever."""

    def log_result(self, trial: Any, result: dict[str, Any], error: bool = False) -> None:
        """Show nothing."""

    def on_trial_complete(self, *_: Any, **__: Any) -> None:
        """Remember nothing."""


def run(
    plan: Plan,
    trainable: type[tune.Trainable],
    *,
    resources: Mapping[str, float] | Sequence[Mapping[str, float]],
    private: Path,
    show: Callable[[StudyRun], None],
    fits: Callable[[], bool],
    node_wait_minutes: float,
    show_every_seconds: float = 0.25,
) -> str:
    """Run the study's remaining trials; return why the search ended before its budget, or "".

    Args:
        plan: What to run.
        trainable: Runs one trial.
        resources: What Tune reserves for each; bundles for trials that spread over nodes, one node
            for each bundle, of which the first one is the trainable's.
        private: Node-local folder for Tune's own files, which nobody reads.
        show: Draws the state; called from this thread now and then.
        fits: Whether the cluster as it is now can run a trial at all.
        node_wait_minutes: The run stops when that was not so for this long.
        show_every_seconds: How often to draw.

    Raises:
        StoppedError: A signal asked to stop; the same command continues.
        W2LTuneError: The run failed.
        OSError: A file could not be written (the disk is full).
    """
    state = StudyRun(plan)
    # A lost process is not news: Tune starts the trial again.
    logging.getLogger("ray.tune").setLevel(logging.CRITICAL)
    if plan.settled.finished >= plan.trial_count and not state.waiting:
        return ""
    # The folder is shared with nobody, and what Tune writes there is thrown away.
    os.environ["TUNE_GLOBAL_CHECKPOINT_S"] = "86400"
    prepared = tune.with_resources(trainable, _reserved(resources))
    prepared.__name__ = prepared.__qualname__ = trainable.__name__  # for the dashboard
    tuner = tune.Tuner(
        prepared,
        tune_config=tune.TuneConfig(
            search_alg=StudySearcher(state),
            scheduler=StudyScheduler(state),
            num_samples=-1,
            max_concurrent_trials=plan.live_trials,
            reuse_actors=True,
            trial_name_creator=lambda trial: f"trial-{trial.config.get('number', 0):04d}",
            trial_dirname_creator=lambda trial: trial.trial_id,
        ),
        run_config=tune.RunConfig(
            name="w2ltune",
            storage_path=str(private),
            stop=RunStopper(state),
            callbacks=[Silence()],
            failure_config=tune.FailureConfig(max_failures=-1),
            checkpoint_config=tune.CheckpointConfig(
                checkpoint_frequency=0, checkpoint_at_end=False
            ),
            verbose=0,
        ),
    )
    thread = threading.Thread(target=_fit, args=(tuner, state), name="ray tune", daemon=True)
    fitted = time.monotonic()
    with stopping_signals(state.stop):
        thread.start()
        while thread.is_alive():
            thread.join(show_every_seconds)
            show(state)
            if not plan.is_ours():
                leave_to_another()
            if fits():
                fitted = time.monotonic()
            elif time.monotonic() - fitted > 60 * node_wait_minutes:
                state.stop(f"no node can run a trial since {node_wait_minutes:g} minutes")
    if isinstance(state.error, (W2LTuneError, OSError)):
        raise state.error
    if state.error is not None:
        raise W2LTuneError(
            f"the run broke off ({type(state.error).__name__}: {state.error}); nothing finished is "
            "lost, the same command continues"
        ) from state.error
    if state.stop_reason:
        raise StoppedError(
            f"stopped ({state.stop_reason}) after {state.finished} of {plan.trial_count} trials; "
            "the same command continues",
            interrupted=by_hand(state.stop_reason),
        )
    return state.reason


def _reserved(
    resources: Mapping[str, float] | Sequence[Mapping[str, float]],
) -> dict[str, float] | tune.PlacementGroupFactory:
    if isinstance(resources, Mapping):
        return dict(resources)
    strategy = "STRICT_SPREAD" if len(resources) > 1 else "PACK"
    return tune.PlacementGroupFactory([dict(bundle) for bundle in resources], strategy=strategy)


def _fit(tuner: tune.Tuner, run: StudyRun) -> None:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            tuner.fit()
    except BaseException as error:
        run.fail(error)
