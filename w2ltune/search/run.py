"""One run of a study: what lives, what is finished, when to stop; the only place that tells."""

from __future__ import annotations

import collections
import math
import re
import threading
import time
from collections.abc import Mapping
from typing import Any

import optuna
from optuna.trial import FrozenTrial

from w2ltune.errors import KilledError, StorageError, TrialFailedError
from w2ltune.formats.distributions import parse_float
from w2ltune.runs.explain import killed_again
from w2ltune.runs.trialdir import State, TrialDirectory, TrialResult
from w2ltune.search.completing import asked
from w2ltune.search.method import NOTE, GivenSampler, flags_of, has_baseline
from w2ltune.search.plan import LiveTrial, Plan
from w2ltune.search.pruning import PRUNED
from w2ltune.search.study import counted, tell

MOST_LOSSES = 5
STOP_PATIENCE_SECONDS = 20.0
"""How long a stop waits for a checkpoint that is being written."""

RUNG = "completed_rung_"
"""Begin of the names under which Optuna's pruners note how far a trial has come."""

SAME_FAILURES = 3
"""So many failures from the first trial on, with one reason (numbers apart), end the sweep."""


class StudyRun:
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
        self.reason = ""
        self.baseline_due = plan.baseline is not None and not has_baseline(plan.study)
        self._losses: collections.Counter[int] = collections.Counter()
        self._stopped = math.inf
        self.error: BaseException | None = None

    def __reduce__(self) -> tuple[type[object], tuple[()]]:
        """Leave nothing in Tune's own state files, which nobody reads."""
        return object, ()

    def stop(self, reason: str) -> None:
        """End the run soon; the same command continues. The first reason stands."""
        if not self.stop_reason:
            self._stopped = time.monotonic()
        self.stop_reason = self.stop_reason or reason

    @property
    def ends_now(self) -> bool:
        """Whether to end: asked to, and no trial is in the middle of writing a checkpoint."""
        writing = any(live.writing for live in list(self.live.values()))
        late = time.monotonic() - self._stopped > STOP_PATIENCE_SECONDS
        return bool(self.stop_reason) and (late or not writing)

    def fail(self, error: BaseException) -> None:
        """End the run with an error; the first one stands."""
        with self.lock:
            self.error = self.error or error
            self.stop("error")

    @property
    def over(self) -> bool:
        """Whether all is done: no trial lives or is to come.

        That is so after a stop, too: without a trial that reports, Tune asks for nothing else.
        """
        if self.live:
            return False
        if self.stop_reason:
            return True
        if self.waiting:
            return False
        if self.finished >= self.plan.trial_count:
            return True
        self.reason = "" if self.baseline_due else self.plan.method.finished()
        return bool(self.reason)

    def next(self, trial_id: str) -> dict[str, Any] | None:
        """Return the configuration of the next trial, or None when there is none now."""
        if self.stop_reason or not self._fits():
            return None
        if self.waiting:
            frozen = self.waiting.pop(0)
            trial = optuna.Trial(self.plan.study, frozen._trial_id)
            # The last step is judged again: a kill may have come between report and verdict.
            reported = max(frozen.intermediate_values, default=0) - 1
            pruned = int(frozen.user_attrs.get(PRUNED, 0))
            directory = TrialDirectory(self.plan.trials, frozen.number)
            flags = flags_of(directory, frozen, self.plan.space, self.plan.baseline)
        elif self._may_ask():
            reported, pruned = -1, 0
            trial, flags = self._ask()
            directory = TrialDirectory(self.plan.trials, trial.number)
            directory.write_flags(flags, asked=asked(self.plan.study, trial))
        else:
            return None
        self.live[trial_id] = LiveTrial(
            trial=trial, directory=directory, flags=flags, reported=reported, pruned=pruned
        )
        return {
            "number": trial.number,
            "launched": directory.attempt(),
            "generation": self.plan.generation,
            "trials": str(self.plan.trials),
            "flags": dict(flags),
            **self.plan.config(flags),
        }

    def _fits(self) -> bool:
        """Whether the cluster has room for one more: what is asked should run, not wait."""
        live = len(self.live)
        return self.plan.capacity is None or live < self.plan.capacity(live)

    def _may_ask(self) -> bool:
        budget_left = self.finished + len(self.live) < self.plan.trial_count
        live = {trial.trial.number for trial in self.live.values()}
        return budget_left and (self.baseline_due or self.plan.method.ready(live))

    def _ask(self) -> tuple[optuna.Trial, dict[str, str]]:
        """Ask for a new trial: the baseline first, then what the method chooses."""
        study, given = self.plan.study, self.plan.baseline
        number = len(study.get_trials(deepcopy=False))
        if given is None or not self.baseline_due:
            place = sum(1 for _ in counted(study))
            study.sampler = self.plan.method.sampler(number, seed=place)
            trial, flags = self.plan.space.ask(study)
            trial.set_user_attr(NOTE, dict(self.plan.method.note(number)))
            return trial, flags
        self.baseline_due = False
        values = self.plan.space.values(given)
        if values is None:  # outside of the ranges: a trial of the study, but not of its space
            trial, flags = study.ask(), dict(self.plan.space.fixed)
        else:
            study.sampler = GivenSampler(values)
            trial, flags = self.plan.space.ask(study)
        trial.set_user_attr(NOTE, {"how": "baseline"})
        return trial, flags | dict(given)

    def progress(self, trial_id: str, result: Mapping[str, Any]) -> bool:
        """Take a live trial's report; return whether it should be stopped."""
        live = self.live.get(trial_id)
        if live is None or result.get("failure"):
            return False
        if self.stop_reason:
            live.writing = bool(result.get("writing"))
            return False
        live.fraction = float(result["fraction"])
        live.note = str(result.get("note", ""))
        live.writing = bool(result.get("writing"))
        return self._judge(live, result)

    def _judge(self, live: LiveTrial, result: Mapping[str, Any]) -> bool:
        """Take the steps that a report has beyond the last one; return whether one is the last."""
        step = int(result["step"])
        if live.pruned:  # decided before a kill: it comes to that step again
            return step >= live.pruned
        if step <= live.reported or not step:
            return False  # a restarted trial goes through the same steps again
        live.value, earlier, live.reported = float(result["value"]), live.reported, step
        if self.plan.pruner is None or not self.plan.method.prunes(live.trial.number):
            return False
        live.pruned = self.plan.pruner.stops(self.plan.study, live.trial, result, after=earlier)
        return live.pruned > 0

    def complete(self, trial_id: str, result: Mapping[str, Any] | None, *, error: bool) -> None:
        """Write a trial's result and tell the study; result.json first, always."""
        live = self.live.pop(trial_id, None)
        if live is None or (self.stop_reason and not (result or {}).get("done")):
            return  # it goes on when the same command is given again
        if error and not self._lost_too_often(live):
            return
        if result is None or error:
            result = {"failure": killed_again("Ray lost the trial", times=MOST_LOSSES)}
        failure = result.get("failure")
        if isinstance(failure, StorageError):  # nobody's failure: it goes on, too
            self.fail(failure)
            return
        if failure:
            again = isinstance(failure, KilledError)
            outcome = self._outcome(live, result, state="FAIL", reason=str(failure), again=again)
        elif live.pruned or (result.get("done") and self._judge(live, result)):
            reason = self.plan.pruner.reason if self.plan.pruner else ""
            until = _until(result, live.pruned)
            outcome = self._outcome(live, until, state="PRUNED", reason=reason)
        elif result.get("done"):
            reason = str(result.get("unkept", ""))
            outcome = self._outcome(live, result, state="COMPLETE", reason=reason)
        else:
            return
        if not self.plan.is_ours():
            return  # whoever took the study over runs the trial now
        ours, outcome = outcome, live.directory.write_result(outcome)
        if not outcome.again:
            tell(self.plan.study, outcome.number, outcome)
        self.finished += 1
        self.results.append(outcome)
        if self.plan.pruner is not None and outcome is ours:
            self.plan.pruner.finish(outcome, result or {})
        self.plan.method.observe(outcome)
        self.plan.on_result(outcome)
        self._stop_if_hopeless()

    def _lost_too_often(self, live: LiveTrial) -> bool:
        """Let a trial that died before its first step start again, if not too often."""
        number = live.trial.number
        self._losses[number] += 1
        if self._losses[number] >= MOST_LOSSES:
            return True
        self.waiting.append(self.plan.study.get_trials(deepcopy=False)[number])
        return False

    def _outcome(
        self,
        live: LiveTrial,
        result: Mapping[str, Any],
        *,
        state: State,
        reason: str = "",
        again: bool = False,
    ) -> TrialResult:
        score = self.plan.score(result) if self.plan.score and state == "COMPLETE" else None
        own = {} if self.plan.space.script else live.trial.params  # a script has its own names
        searched = own or {
            name: text if (number := parse_float(text)) is None else number
            for name, text in live.flags.items()
            if name not in self.plan.space.fixed
        }
        counts = result.get("counts")
        value = result.get("value")
        told = self.plan.study.get_trials(deepcopy=False)[live.trial.number]
        return TrialResult(
            number=live.trial.number,
            attempt=int(result.get("attempt") or live.directory.attempt()),
            state=state,
            value=None if state == "FAIL" or value is None or math.isnan(value) else float(value),
            counts=None if state == "FAIL" or counts is None else tuple(counts),
            interval=score.interval if score else None,
            interval_unit=score.unit if score else "",
            params={**searched, **{name: live.flags[name] for name in self.plan.beam}},
            flags=live.flags,
            seconds=round(float(result.get("seconds", 0.0)), 3),
            work_seconds=round(float(result.get("work_seconds", 0.0)), 3),
            missing=int(result.get("missing", 0)),
            lists=score.lists if score else {},
            linear=bool(result.get("linear", True)),
            epoch=int(result.get("epoch", 0)),
            epochs=int(result.get("epochs", 0)),
            updates=int(result.get("updates", 0)),
            checkpoint=str(result.get("checkpoint", "")),
            reports=dict(told.intermediate_values),
            rungs={n: v for n, v in told.system_attrs.items() if n.startswith(RUNG)},
            reason=reason,
            again=again,
        )

    def _stop_if_hopeless(self) -> None:
        first = self.results[:SAME_FAILURES]
        if (
            self.plan.settled.finished == 0
            and len(first) == SAME_FAILURES == self.finished
            and all(result.state == "FAIL" for result in first)
            and len({re.sub(r"\d+", "", result.reason) for result in first}) == 1
        ):
            self.fail(
                TrialFailedError(f"the first {SAME_FAILURES} trials failed: {first[0].reason}")
            )


def _until(result: Mapping[str, Any], step: int) -> Mapping[str, Any]:
    """Return a decode's report as it was at an earlier step."""
    if "utterance_counts" not in result:
        return result
    total = [int(count) for count in result["utterance_counts"][:step].sum(axis=0)]
    return {**result, "counts": total, "value": sum(total[:3]) / max(1, total[3])}
