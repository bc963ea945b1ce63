"""The finished decodes of a study, and the pools of their n-best lists."""

from __future__ import annotations

import collections
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from w2ltune.embedded.decoderflags import decoder_flags
from w2ltune.formats.nbest import NBest, read_nbest
from w2ltune.runs.trialdir import TrialDirectory, TrialResult
from w2ltune.scoring.nbest import merge
from w2ltune.scoring.nbestpool import Pool
from w2ltune.search.linear import Box, Point
from w2ltune.search.nbestsampler import Setting
from w2ltune.search.poolkey import same_but_searched
from w2ltune.trials.dataset import read_utterance_counts


@dataclass(frozen=True, kw_only=True)
class Seen:
    """A finished decode.

    Attributes:
        number: Of the trial.
        setting: Its flags that are not linear weights.
        key: Which pool its n-best lists belong to.
        point: Its place in the box and its errors.
        target: The list that it was decoded for.
        how: How it was chosen.
    """

    number: int
    setting: Setting
    key: str
    point: Point
    target: str
    how: str


class DecodeHistory:
    """What all finished decodes tell together.

    Args:
        linear: Searched linear weights.
        others: Names of the flags that make up a setting.
        fixed: Flags that all trials of the search have in common.

    The other arguments are those of :class:`.nbest.NBestSearch`.

    Attributes:
        seen: The complete decodes of the search, by number: who ends first is chance.
        finished: Number of finished trials, pruned and failed ones too.
        failures: Failed trials by setting.
        nonlinear: Why scores are not linear in the weights, or "".
    """

    def __init__(
        self,
        *,
        trials: Path,
        linear: Sequence[str],
        others: Sequence[str],
        fixed: Mapping[str, str],
        box: Callable[[Mapping[str, str]], Box],
        key: Callable[[Mapping[str, str]], str],
        targets: Mapping[str, npt.NDArray[np.intp]],
        warm: Mapping[str, NBest],
    ) -> None:
        self._trials = trials
        self._linear = linear
        self._others = others
        self._fixed = fixed
        self._box = box
        self._key = key
        self._targets = targets
        self._merged: dict[str, NBest] = dict(warm)
        self._pools: dict[tuple[str, str], Pool] = {}
        self.seen: list[Seen] = []
        self.finished = 0
        self.failures: collections.Counter[Setting] = collections.Counter()
        self.nonlinear = ""

    def observe(self, result: TrialResult, note: Mapping[str, Any]) -> None:
        """Take a finished trial: its errors and, if it has them, its n-best lists."""
        self.finished += 1
        setting = self.setting_of(result.flags)
        self.failures[setting] += result.state == "FAIL"
        if result.state != "COMPLETE":
            return
        directory = TrialDirectory(self._trials, result.number)
        box, key = self._box(result.flags), self._key(result.flags)
        ours = self._of_search(result.flags)
        if ours and not result.linear:
            self.nonlinear = f"trial {result.number}: its scores do not tell all their parts"
        elif result.linear and directory.nbest.exists():
            nbest = read_nbest(directory.nbest, key=key)
            known = self._merged.get(key)
            silence = "silscore" in self._linear or bool(box.fixed[4])
            self._merged[key] = merge([known, nbest] if known else [nbest], silence=silence)
            self._pools = {place: pool for place, pool in self._pools.items() if place[0] != key}
        if not ours:
            return
        counts = read_utterance_counts(directory.utterances, total=result.counts, shuffled=False)
        typed = decoder_flags(result.flags)
        values = np.array([float(getattr(typed, name)) for name in self._linear])
        if not np.isfinite(values).all():
            return  # a baseline with an unknown-word score of minus infinity
        self.seen.append(
            Seen(
                number=result.number,
                setting=setting,
                key=key,
                point=Point(unit=box.unit(values), errors=counts[:, :3].sum(axis=1)),
                target=note.get("target", ""),
                how=note.get("how", ""),
            )
        )
        self.seen.sort(key=lambda seen: seen.number)

    def _of_search(self, flags: Mapping[str, str]) -> bool:
        """Whether a trial has the search's fixed flags; a baseline may have a beam of its own."""
        searched = {n: flags[n] for n in (*self._linear, *self._others) if n in flags}
        asked = {**self._fixed, **searched}
        return self._key(asked) == self._key(flags) and same_but_searched(asked, flags)

    def setting_of(self, flags: Mapping[str, str]) -> Setting:
        """Return the setting that a trial's flags belong to."""
        return tuple((name, flags.get(name, "")) for name in self._others)

    def of_setting(self, setting: Setting) -> list[Seen]:
        """Return the decodes of a setting."""
        return [seen for seen in self.seen if seen.setting == setting]

    def errors(self, seen: Seen, target: str) -> int:
        """Return a decode's errors on a target."""
        return int(self._utterance_errors(seen, target).sum())

    def _utterance_errors(self, seen: Seen, target: str) -> npt.NDArray[np.integer]:
        return seen.point.errors[self._targets[target]]

    def points(self, setting: Setting, target: str) -> list[Point]:
        """Return the decodes of a setting with their errors on a target."""
        return [
            Point(unit=seen.point.unit, errors=self._utterance_errors(seen, target))
            for seen in self.of_setting(setting)
        ]

    def best(self, target: str) -> Seen:
        """Return the decode with the fewest errors on a target; there must be one."""
        return min(self.seen, key=lambda seen: (self.errors(seen, target), seen.number))

    def has_pool(self, key: str) -> bool:
        """Whether there are n-best lists of a key."""
        return key in self._merged

    def pool(self, key: str, target: str) -> Pool:
        """Return all n-best lists of a key, of the utterances of a target."""
        if (key, target) not in self._pools:
            whole = Pool(self._merged[key])
            utterances = self._targets[target]
            everything = len(utterances) == whole.utterances
            self._pools[key, target] = whole if everything else whole.subset(utterances)
        return self._pools[key, target]

    def whole_pool(self, key: str) -> Pool | None:
        """Return all n-best lists of a key, of all utterances; None while there are none."""
        return Pool(self._merged[key]) if key in self._merged else None
