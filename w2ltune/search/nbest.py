"""Few decodes: each decode's n-best lists tell where to decode next, until nothing is to be gained.

Settings of the flags that are not linear weights (a beam, another LM) are searched one by one, or,
when there are too many, proposed by TPE; n-best lists of the same model serve every beam.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import optuna

from w2ltune.formats.nbest import NBest
from w2ltune.runs.trialdir import TrialDirectory, TrialResult
from w2ltune.scoring.nbestpool import Pool
from w2ltune.search.history import DecodeHistory, Seen
from w2ltune.search.linear import DECODED, LEAST_RADIUS, WORTH, Box, Proposal, propose
from w2ltune.search.method import NOTE
from w2ltune.search.nbestsampler import NBestSampler, Setting, enumerate_settings, linear_weights
from w2ltune.search.plateau import FAR
from w2ltune.search.samplers import make_sampler
from w2ltune.search.space import SearchSpace
from w2ltune.search.study import counted
from w2ltune.search.surface import Surface, make_surface

PATIENCE = 6
"""Decodes without improvement after which TPE takes over where the beam loses too much."""

LEAST_DECODES = 2
"""Of a setting that no part of the list was decoded with: a beam's own lists hide what it lost."""

CLOSE = 0.25
"""Standard errors that a decode is to save at least where a part of the list told the start."""

MOST_FAILURES = 3
"""Failed trials after which a setting is given up."""


@dataclass(frozen=True, kw_only=True)
class Step:
    """What is to be done next.

    Attributes:
        how: "start", "nbest", "outer" (TPE proposes the setting), "tpe", "wait" or "stop".
        setting: Of the trial.
        values: Searched linear weights.
        note: What is remembered with the trial.
        reason: Why the search stops.
    """

    how: str
    setting: Setting = ()
    values: npt.NDArray[np.float64] | None = None
    note: Mapping[str, Any] = field(default_factory=dict)
    reason: str = ""


class NBestSearch:
    """The n-best search as a search method.

    Args:
        study: The open study.
        trials: The trials' folder.
        space: What is searched; at least one linear weight.
        box: Makes the box of linear weights from a trial's flags.
        key: Names the pool of a trial's flags.
        targets: For each list that has weights of its own its utterances; {"": all} for one.
        trial_count: The budget.
        seed: The study's seed.
        beam: Beam flags that w2ltune chooses, as they are now; part of the setting.
        start: Linear weights at which to begin, by name; what is missing is at the usual start.
        level: What the beam is expected to lose at the largest LM weight, in each utterance.
        warm: N-best lists of an earlier sweep, by key.
    """

    def __init__(
        self,
        *,
        study: optuna.Study,
        trials: Path,
        space: SearchSpace,
        box: Callable[[Mapping[str, str]], Box],
        key: Callable[[Mapping[str, str]], str],
        targets: Mapping[str, npt.NDArray[np.intp]],
        trial_count: int,
        seed: int,
        beam: Mapping[str, str] | None = None,
        start: Mapping[str, float] | None = None,
        level: float = 0.0,
        warm: Mapping[str, NBest] | None = None,
    ) -> None:
        self._study = study
        self._trials = trials
        self._space = space
        self._box = box
        self._key = key
        self._targets = targets
        self._trial_count = trial_count
        self._seed = seed
        self._begin = start or {}
        self._level = level
        linear = linear_weights(space.distributions)
        others = {n: d for n, d in space.distributions.items() if n not in linear}
        chosen = tuple((beam or {}).items())
        self._widens = bool(chosen)
        self._settings = [setting + chosen for setting in enumerate_settings(others)]
        self._history = DecodeHistory(
            trials=trials,
            linear=linear,
            others=[*others, *(name for name, _ in chosen)],
            fixed=space.fixed,
            box=box,
            key=key,
            targets=targets,
            warm=warm or {},
        )
        self._decided: dict[frozenset[int], Step] = {}
        self._stopped: dict[Setting, Step] = {}
        self._next_step: Step | None = None
        self._steps: dict[int, Step] = {}
        for trial in counted(study):
            result = TrialDirectory(trials, trial.number).read_result()
            if result is not None:
                if len(self._settings) > 1:
                    self._decide(frozenset())  # a setting that had stopped by then stays so
                self.observe(result)

    # What the run asks.

    def finished(self) -> str:
        """Return why nothing is to be gained any more, or ""."""
        step = self._decide(frozenset())
        return step.reason if step.how == "stop" else ""

    def ready(self, live: Collection[int]) -> bool:
        """Whether the next trial is decided; a setting's next decode waits for its last one."""
        self._next_step = self._decide(frozenset(live))
        return self._next_step.how not in ("wait", "stop")

    def sampler(self, number: int, *, seed: int) -> optuna.samplers.BaseSampler:
        """Return a sampler that gives the decided values, or Optuna's TPE after the hand-over."""
        step = self._next_step or self._decide(frozenset())
        self._steps[number] = step
        tpe = make_sampler(
            "tpe",
            seed=self._seed,
            number=seed,
            distributions=self._space.distributions,
            trial_count=self._trial_count,
        )
        if step.how == "tpe":
            return tpe
        return NBestSampler(
            None if step.how == "outer" else step.setting,
            step.values,
            self._space.distributions,
            self.weights_for,
            tpe,
        )

    def note(self, number: int) -> Mapping[str, Any]:
        """Return how the trial was chosen, for which list, and what was expected of it."""
        return self._steps[number].note

    def prunes(self, number: int) -> bool:
        """Return whether TPE chose the trial: the n-best search needs whole lists."""
        step = self._steps.get(number)
        if step is not None:
            return step.how == "tpe"
        note = self._study.get_trials(deepcopy=False)[number].user_attrs.get(NOTE, {})
        return bool(note.get("how") == "tpe")

    @property
    def nonlinear(self) -> str:
        """Why n-best lists tell nothing of other weights, or ""."""
        return self._history.nonlinear

    def observe(self, result: TrialResult) -> None:
        """Take a finished trial."""
        self._decided.clear()
        note = self._study.get_trials(deepcopy=False)[result.number].user_attrs.get(NOTE, {})
        self._history.observe(result, note)

    # How it decides.

    def _decide(self, live: frozenset[int]) -> Step:
        if live not in self._decided:  # asked many times a second, and it takes time
            self._decided[live] = self._next(live)
        return self._decided[live]

    def _next(self, live: frozenset[int]) -> Step:
        if self._history.nonlinear:
            return Step(how="tpe", note={"how": "tpe"})
        if not self._settings:
            return Step(how="outer", note={"how": "nbest"})
        at_work = {self._setting_of_live(number) for number in live if not self.prunes(number)}
        stopped = []
        # In turn, so that a small budget sees each; a decode's lists serve the others as well.
        for setting in sorted(self._settings, key=lambda s: len(self._history.of_setting(s))):
            if setting in at_work:
                continue
            step = self._stopped.get(setting) or self._loop(setting)
            if step.how in ("start", "nbest"):
                return step
            if step.how == "stop":
                self._stopped[setting] = step
            stopped.append(step)
        if len(stopped) < len(self._settings):
            return Step(how="wait")
        if all(step.how == "stop" for step in stopped):
            reasons = list(dict.fromkeys(step.reason for step in stopped))
            return Step(how="stop", reason="; ".join(reasons))
        return self._hand_over(live)

    def _hand_over(self, live: frozenset[int]) -> Step:
        """TPE for what is left of the budget, but for one decode in the middle of the plateau."""
        left = self._trial_count - self._history.finished - len(live)
        if left > len(self._targets):
            return Step(how="tpe", note={"how": "tpe"})
        if live or left <= 0:
            return Step(how="wait")
        target = list(self._targets)[left - 1]
        best = self._history.best(target)
        if best.setting not in self._settings:  # a baseline that the space does not hold
            return Step(how="tpe", note={"how": "tpe"})
        proposal = self._propose(best.setting, target)
        note = {"how": "plateau", "target": target}
        return Step(how="nbest", setting=best.setting, values=proposal.plateau, note=note)

    def _loop(self, setting: Setting) -> Step:
        if self._history.failures[setting] >= MOST_FAILURES:
            return Step(how="stop", reason=f"{MOST_FAILURES} decodes failed")
        own = self._history.of_setting(setting)
        if self._begins(own) or not self._history.has_pool(self._key(self._flags(setting))):
            first = {"how": "start", "target": next(iter(self._targets))}
            return Step(how="start", setting=setting, values=self._start(setting), note=first)
        proposals = {target: self._propose(setting, target) for target in self._targets}
        few = not self._begin and len(own) < LEAST_DECODES
        going = {
            target: proposal.gain / proposal.least_gain
            for target, proposal in proposals.items()
            if proposal.new and (few or not proposal.small)
        }
        if going:
            target = max(going, key=going.__getitem__)
            proposal = proposals[target]
            if self._fruitless(own, target) >= PATIENCE and proposal.residual > proposal.gain:
                if self._widens:  # a wider beam is the better use of the budget
                    return Step(how="stop", reason="the beam loses more than weights can win")
                return Step(how="tpe")
            note: dict[str, Any] = {
                "how": "nbest",
                "target": target,
                "gain": round(proposal.gain, 3),
                "deviation": round(proposal.deviation, 3),
                "residual": round(proposal.residual, 3),
            }
            return Step(how="nbest", setting=setting, values=proposal.values, note=note)
        most = max(proposals.values(), key=lambda proposal: proposal.gain)
        return Step(how="stop", reason=f"another decode is expected to save {most.promise}")

    def _begins(self, own: Sequence[Seen]) -> bool:
        """Whether a setting's first decode is to come; a baseline counts where none was given."""
        return not own or (bool(self._begin) and all(seen.how == "baseline" for seen in own))

    def _nearest(self, own: Sequence[Seen], values: npt.NDArray[np.float64]) -> Seen | None:
        """Return the decode at these values, or None."""
        unit = self._box(self._flags(own[0].setting)).unit(values)
        nearest = min(own, key=lambda seen: float(np.linalg.norm(seen.point.unit - unit)))
        near = float(np.linalg.norm(nearest.point.unit - unit)) < DECODED
        return nearest if near else None

    def _fruitless(self, own: Sequence[Seen], target: str) -> int:
        """Return the number of decodes since the best one."""
        errors = [self._history.errors(seen, target) for seen in own]
        return len(errors) - 1 - int(np.argmin(errors))

    def _start(self, setting: Setting) -> npt.NDArray[np.float64]:
        """Where a setting begins: what the pool says, else another's best weights."""
        flags = self._flags(setting)
        box, key, target = self._box(flags), self._key(flags), next(iter(self._targets))
        if self._begin and self._begins(self._history.of_setting(setting)):
            usual = zip(box.names, box.start(), strict=True)
            return np.array([self._begin.get(name, value) for name, value in usual])
        if self._history.has_pool(key):
            return propose(self._history.pool(key, target), box, []).values
        if not self._history.seen:
            return box.start()
        unit = self._history.best(target).point.unit
        return np.clip(box.low + unit * (box.high - box.low), box.low, box.high)

    def weights_for(self, setting: Setting) -> npt.NDArray[np.float64]:
        """Return linear weights for a setting that TPE proposed."""
        if not self._history.of_setting(setting):
            return self._start(setting)
        return self._propose(setting, next(iter(self._targets))).values

    def _propose(self, setting: Setting, target: str) -> Proposal:
        flags = self._flags(setting)
        pool = self._history.pool(self._key(flags), target)
        points = self._history.points(setting, target)
        near = bool(self._begin)
        return propose(
            pool,
            self._box(flags),
            points,
            level=self._level,
            radius=LEAST_RADIUS if near else FAR,
            worth=CLOSE if near else WORTH,
        )

    def _flags(self, setting: Setting) -> dict[str, str]:
        return dict(self._space.fixed) | dict(setting)

    def _setting_of_live(self, number: int) -> Setting:
        if number in self._steps:
            return self._steps[number].setting
        return self._history.setting_of(TrialDirectory(self._trials, number).read_flags())

    # What the answer and the report ask.

    def middle(self, target: str) -> int | None:
        """Return the trial in the middle of the plateau around the best one; None without one."""
        if not self._history.seen:
            return None
        best = self._history.best(target)
        if not self._history.has_pool(best.key):
            return None
        own = self._history.of_setting(best.setting)
        found = self._nearest(own, self._propose(best.setting, target).plateau)
        decoded = [seen for seen in own if seen.how == "plateau" and seen.target == target]
        return found.number if found else decoded[-1].number if decoded else None

    def pool(self, key: str) -> Pool | None:
        """Return all n-best lists of a key, of all utterances; None while there are none."""
        return self._history.whole_pool(key)

    def surface(self, number: int, target: str) -> Surface | None:
        """Return the error rates over the linear weights, in the setting of a trial."""
        trial = next((seen for seen in self._history.seen if seen.number == number), None)
        if trial is None or not self._history.has_pool(trial.key):
            return None
        box = self._box(self._flags(trial.setting))
        return make_surface(
            self._history.pool(trial.key, target),
            box,
            self._history.points(trial.setting, target),
            target=target,
            setting=dict(trial.setting),
            chosen=box.low + trial.point.unit * (box.high - box.low),
        )
