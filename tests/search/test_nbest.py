"""The n-best search as a sweep drives it, without Ray; every decode is real."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Callable, Collection, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import pytest
from conftest import VOICE_COMMANDS
from realdecodes import FLAGS, Decodes, make_box

from w2ltune.errors import InputError
from w2ltune.formats.distributions import Choice, Distribution, FloatRange, IntegerRange
from w2ltune.formats.nbest import NBest, read_nbest, write_nbest
from w2ltune.runs.lock import StudyLock, this_process
from w2ltune.runs.provenance import fingerprints
from w2ltune.runs.trialdir import TrialDirectory, TrialResult
from w2ltune.scoring.nbest import merge
from w2ltune.search.method import NOTE, GivenSampler
from w2ltune.search.nbest import LEAST_DECODES, MOST_FAILURES, NBestSearch
from w2ltune.search.nbestsampler import (
    MOST_SETTINGS,
    NBestSampler,
    Setting,
    _snap,
    enumerate_settings,
)
from w2ltune.search.poolkey import pool_key
from w2ltune.search.samplers import make_sampler
from w2ltune.search.space import ANCESTOR_RANGES, SearchSpace
from w2ltune.search.study import open_study, tell

COUNT = 24
BUDGET = 20
WEIGHTS = ANCESTOR_RANGES
BEAMS = {**WEIGHTS, "beamsize": Choice(("20", "100"))}
MANY = {**WEIGHTS, "beamsize": IntegerRange(10, 60)}
TWO_LISTS = {"first.lst": np.arange(12), "second.lst": np.arange(12, 24)}
ONE_LIST = {"": np.arange(COUNT)}
BAD_START = {"lmweight": 0.35, "wordscore": -6.0}

_DATA = [VOICE_COMMANDS / "dev.lst", VOICE_COMMANDS / "emissions/dev.npz"]


@pytest.fixture(scope="module")
def decodes() -> Decodes:
    return Decodes(utterances=COUNT)


@pytest.fixture(scope="module")
def key() -> Callable[[Mapping[str, str]], str]:
    inputs = fingerprints([*(Path(FLAGS[name]) for name in ("tokens", "lexicon", "lm")), *_DATA])

    def compute(flags: Mapping[str, str]) -> str:
        return pool_key(flags, data=[*map(str, _DATA)], scoring={"metric": "wer"}, inputs=inputs)

    return compute


class Sweep:
    """A study in a folder and the search over it; made again in the same folder, it goes on.

    Args:
        folder: Of the study; its name is the sweep's.
        distributions: What is searched.
        fixed: Flags beside the usual ones.
        fails: Says whether a trial with these flags fails.
        options: Of the search: targets, trial_count, beam, warm.
    """

    def __init__(
        self,
        folder: Path,
        lock: StudyLock,
        decodes: Decodes,
        key: Callable[[Mapping[str, str]], str],
        distributions: Mapping[str, Distribution] = WEIGHTS,
        *,
        fixed: Mapping[str, str] | None = None,
        fails: Callable[[Mapping[str, str]], bool] = lambda flags: False,
        **options: Any,
    ) -> None:
        self.trials = folder / "trials"
        self.trials.mkdir(parents=True, exist_ok=True)
        self.study = open_study(folder, lock)
        self.space = SearchSpace(fixed=FLAGS | dict(fixed or {}), distributions=distributions)
        self.live: dict[int, dict[str, str]] = {}
        self.results: list[TrialResult] = []
        self.decodes, self.key, self.fails = decodes, key, fails
        options = {"targets": ONE_LIST, "trial_count": BUDGET, **options}
        self.budget = options["trial_count"]
        self.targets = options["targets"]
        self.method = NBestSearch(
            study=self.study,
            trials=self.trials,
            space=self.space,
            box=lambda flags: make_box(distributions, flags),
            key=key,
            seed=1,
            **options,
        )

    @property
    def count(self) -> int:
        return len(self.study.get_trials(deepcopy=False))

    @property
    def notes(self) -> list[dict[str, Any]]:
        return [trial.user_attrs[NOTE] for trial in self.study.get_trials(deepcopy=False)]

    @property
    def asked(self) -> list[tuple[dict[str, Any], dict[str, Any]]]:
        """Values and note of each trial."""
        trials = self.study.get_trials(deepcopy=False)
        return [(trial.params, trial.user_attrs[NOTE]) for trial in trials]

    def ask(self, given: Mapping[str, Any] | None = None, **changes: str) -> int | None:
        """Return the number of the next trial, or None when it is not decided yet.

        Args:
            given: Searched values of a baseline.
            changes: The baseline's own values of flags that are not searched.
        """
        number = self.count
        if given is not None:
            self.study.sampler, note = GivenSampler(given), {"how": "baseline"}
        elif not self.method.ready(self.live):
            return None
        else:
            self.study.sampler = self.method.sampler(number, seed=number)
            note = dict(self.method.note(number))
        trial, flags = self.space.ask(self.study)
        flags |= changes
        trial.set_user_attr(NOTE, note)
        TrialDirectory(self.trials, number).write_flags(flags)
        self.live[number] = flags
        return number

    def complete(self, number: int) -> TrialResult:
        """Decode a live trial and take what came of it."""
        flags = self.live.pop(number)
        directory = TrialDirectory(self.trials, number)
        result = TrialResult(
            number=number, attempt=1, state="FAIL", value=None, flags=flags, reason="no memory"
        )
        if not self.fails(flags):
            found = self.decodes.decode(flags)
            if found.linear:
                write_nbest(directory.nbest, found.nbest, key=self.key(flags))
            rows = ["\t".join(["id", *map(str, row), ""]) + "\n" for row in found.counts.tolist()]
            directory.utterances.write_text("header\n" + "".join(rows), encoding="utf-8")
            total = found.counts.sum(axis=0).tolist()
            result = TrialResult(
                number=number, attempt=1, state="COMPLETE", value=sum(total[:3]) / total[3],
                counts=tuple(total), flags=flags, linear=found.linear,
            )  # fmt: skip
        directory.write_result(result)
        tell(self.study, number, result)
        self.method.observe(result)
        self.results.append(result)
        return result

    def step(self, given: Mapping[str, Any] | None = None, **changes: str) -> TrialResult:
        number = self.ask(given, **changes)
        assert number is not None
        return self.complete(number)

    def run(self) -> str:
        """Go on until the search or its budget ends; return the search's reason."""
        while self.count < self.budget and not self.method.finished():
            self.step()
        return self.method.finished()

    def errors(self, number: int, utterances: np.ndarray | None = None) -> int:
        found = self.decodes.decode(TrialDirectory(self.trials, number).read_flags())
        return int(found.errors[slice(None) if utterances is None else utterances].sum())

    def answer(self, target: str = "") -> int:
        """The middle of the plateau, or the decode with the fewest errors."""
        middle = self.method.middle(target)
        utterances = self.targets[target]
        errors = [self.errors(number, utterances) for number in range(self.count)]
        return errors.index(min(errors)) if middle is None else middle

    def copy(self, folder: Path) -> Path:
        return Path(shutil.copytree(self.trials.parent, folder))


@pytest.fixture
def sweep(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    decodes: Decodes,
    key: Callable[[Mapping[str, str]], str],
) -> Iterator[Callable[..., Sweep]]:
    """Make sweeps in folders of ``tmp_path``."""
    monkeypatch.setattr(os, "fsync", lambda descriptor: None)  # no power cut here
    lock = StudyLock(tmp_path / "lock", this_process())
    lock.acquire()

    def make(
        distributions: Mapping[str, Distribution] = WEIGHTS, *, name: str = "one", **options: Any
    ) -> Sweep:
        options = {"decodes": decodes, **options}
        return Sweep(tmp_path / name, lock, key=key, distributions=distributions, **options)

    yield make
    lock.release()


# One setting.


def test_it_stops_before_its_budget_and_says_why(sweep: Callable[..., Sweep]) -> None:
    one = sweep()
    assert one.method.finished() == ""
    reason = one.run()
    assert re.fullmatch(r"another decode is expected to save [\d.]+ ± [\d.]+ errors", reason)
    assert 2 <= one.count <= 8 < BUDGET
    assert [note["how"] for note in one.notes[:2]] == ["start", "nbest"]
    assert one.study.get_trials()[0].params == {"lmweight": 2.0, "wordscore": 0.0}
    for number, note in enumerate(one.notes):
        if note["how"] == "nbest":
            assert note.keys() == {"how", "target", "gain", "deviation", "residual"}
            # Less than an error is worth no decode, once the lists are to be believed.
            assert note["gain"] >= 1 or number < LEAST_DECODES
    assert not one.method.ready(())
    assert not any(one.method.prunes(number) for number in range(one.count))


def test_it_finds_better_weights_than_a_bad_start(sweep: Callable[..., Sweep]) -> None:
    one = sweep()
    one.step(BAD_START)
    assert one.run()
    errors = [one.errors(number) for number in range(one.count)]
    assert one.notes[0] == {"how": "baseline"}
    assert "start" not in [note["how"] for note in one.notes]  # the baseline is the start
    assert min(errors) < 0.7 * errors[0]
    assert one.errors(one.answer()) < 0.75 * errors[0]


@pytest.mark.parametrize(
    "changes", [{"beamsize": "300"}, {"silscore": "-3"}, {"logadd": "true"}], ids=str
)
def test_a_baseline_with_other_fixed_flags_is_no_point_of_the_search(
    sweep: Callable[..., Sweep], changes: dict[str, str]
) -> None:
    one = sweep(fixed={"beamsize": "20"})
    one.step({"lmweight": 3.3, "wordscore": 3.6}, **changes)
    assert one.run().startswith("another decode is expected to save")
    hows = [note["how"] for note in one.notes]
    assert hows[:2] == ["baseline", "start"]
    assert "tpe" not in hows
    assert {result.flags["beamsize"] for result in one.results[1:]} == {"20"}


@pytest.mark.parametrize(
    ("distributions", "targets", "budget"),
    [(WEIGHTS, TWO_LISTS, 6), pytest.param(BEAMS, ONE_LIST, 12, marks=pytest.mark.main)],
    ids=["two lists", "beams"],
)
def test_it_goes_on_after_any_trial_as_if_nothing_had_been(
    sweep: Callable[..., Sweep],
    tmp_path: Path,
    distributions: dict[str, Distribution],
    targets: dict[str, np.ndarray],
    budget: int,
) -> None:
    options: dict[str, Any] = {"targets": targets, "trial_count": budget}
    one = sweep(distributions, **options)
    while one.count < one.budget and not one.method.finished():
        name = f"after {one.count}"
        one.copy(tmp_path / name)
        again = sweep(distributions, name=name, **options)
        again.step()
        one.step()
        assert again.asked == one.asked
        assert again.method.finished() == one.method.finished()
    again = sweep(distributions, **options)
    assert again.method.finished() == one.method.finished()
    for target in targets:
        assert again.method.middle(target) == one.method.middle(target)


def test_a_run_that_was_cut_goes_on_to_the_same_end(
    sweep: Callable[..., Sweep], tmp_path: Path
) -> None:
    one = sweep()
    one.step(BAD_START)
    one.step()
    one.copy(tmp_path / "cut")
    reason = one.run()
    cut = sweep(name="cut")
    assert cut.run() == reason
    assert cut.asked == one.asked


def test_before_any_decode_there_is_no_answer(
    sweep: Callable[..., Sweep], key: Callable[[Mapping[str, str]], str]
) -> None:
    one = sweep()
    assert one.method.middle("") is None
    assert one.method.pool(key(FLAGS)) is None
    assert one.method.surface(0, "") is None


def test_the_pool_and_the_surface_of_the_answer(
    sweep: Callable[..., Sweep], key: Callable[[Mapping[str, str]], str]
) -> None:
    one = sweep()
    one.run()
    pool = one.method.pool(key(FLAGS))
    assert pool is not None
    assert pool.utterances == COUNT
    assert pool.oracle_errors() <= min(one.errors(number) for number in range(one.count))
    middle = one.answer()
    surface = one.method.surface(middle, "")
    assert surface is not None
    params = one.study.get_trials()[middle].params
    assert surface.chosen == pytest.approx((params["lmweight"], params["wordscore"]))
    assert len(surface.points) == one.count
    assert one.method.surface(99, "") is None


# Begun on a part of the list.


def test_it_begins_where_a_part_of_the_list_told(sweep: Callable[..., Sweep]) -> None:
    begun = {"start": {"lmweight": 2.2, "wordscore": 1.5}, "level": 0.5}
    one = sweep(**begun)
    one.step()
    assert one.asked[0] == ({"lmweight": 2.2, "wordscore": 1.5}, {"how": "start", "target": ""})
    assert one.run().startswith("another decode is expected to save")
    for params, _ in one.asked[1:]:  # from there it does not go far
        assert abs(params["lmweight"] - 2.2) < 1.3
    after = sweep(name="after a baseline", **begun)
    after.step(BAD_START)
    after.step()
    assert after.asked[1][0] == begun["start"]


# Failures.


def test_a_setting_that_fails_three_times_is_given_up(sweep: Callable[..., Sweep]) -> None:
    one = sweep(fails=lambda flags: True)
    assert one.run() == f"{MOST_FAILURES} decodes failed"
    assert one.count == MOST_FAILURES
    assert one.method.middle("") is None
    again = sweep()  # it is not tried once more
    assert again.method.finished() == f"{MOST_FAILURES} decodes failed"


def test_one_failure_is_tried_again(sweep: Callable[..., Sweep]) -> None:
    states = iter([True, False, True])
    one = sweep(fails=lambda flags: next(states, False))
    assert one.run().startswith("another decode is expected")
    tried = [params for params, _ in one.asked]
    assert tried[0] == tried[1]
    assert tried[2] == tried[3] != tried[1]
    assert [result.state for result in one.results[:4]] == ["FAIL", "COMPLETE", "FAIL", "COMPLETE"]


def test_the_other_settings_go_on(sweep: Callable[..., Sweep]) -> None:
    one = sweep(BEAMS, fails=lambda flags: flags["beamsize"] == "20")
    reason = one.run()
    assert reason.startswith(f"{MOST_FAILURES} decodes failed; another decode is expected")
    beams = [params["beamsize"] for params, _ in one.asked]
    assert beams.count("20") == MOST_FAILURES
    assert beams.count("100") >= 2


# Where the n-best lists do not tell enough.


def test_tpe_searches_where_scores_are_not_linear(sweep: Callable[..., Sweep]) -> None:
    one = sweep(fixed={"logadd": "true"}, trial_count=5)
    assert one.step().linear is False
    assert one.method.ready(())
    assert isinstance(one.method.sampler(1, seed=1), optuna.samplers.TPESampler)
    assert one.method.note(1) == {"how": "tpe"}
    assert one.run() == ""  # the budget ends it
    assert [note["how"] for note in one.notes] == ["start", "tpe", "tpe", "tpe", "tpe"]
    assert [one.method.prunes(number) for number in range(5)] == [False] + [True] * 4
    assert one.method.ready({7})  # several at a time
    again = sweep(fixed={"logadd": "true"}, trial_count=5)
    assert again.method.ready(())
    assert again.method.prunes(4) and not again.method.prunes(0)


def test_tpe_takes_over_where_the_beam_loses_too_much(
    sweep: Callable[..., Sweep], monkeypatch: pytest.MonkeyPatch
) -> None:
    # Long utterances at a beam of 1: what the lists promise, the decoder does not find. After how
    # many decodes depends on the last bits of scores, and one start of 60 stops before that.
    monkeypatch.setattr("w2ltune.search.nbest.PATIENCE", 1)
    monkeypatch.setattr("w2ltune.search.nbest.WORTH", 0.0)
    monkeypatch.setattr("w2ltune.search.linear.LITTLE", 0.0)
    long = Decodes(name="dev-long", utterances=COUNT)
    options = {"fixed": {"beamsize": "1"}, "decodes": long}
    for name, start in (("low", (4.74, 1.3)), ("middle", (2.0, 0.0)), ("high", (0.5, 3.0))):
        one = sweep(trial_count=30, name=name, **options)
        one.step({"lmweight": start[0], "wordscore": start[1]})
        while next_how(one) == "nbest":
            one.step()
        if next_how(one) == "tpe":
            break
    assert next_how(one) == "tpe"
    assert isinstance(one.method.sampler(one.count, seed=1), optuna.samplers.TPESampler)
    assert one.method.prunes(one.count)
    assert one.method.ready({one.count})  # several at a time
    errors = [one.errors(number) for number in range(one.count)]
    assert errors[-1] >= min(errors[:-1])  # the last decode was without improvement

    one.copy(one.trials.parent.with_name("several"))
    several = sweep(trial_count=30, name="several", **options)
    first = several.count
    assert [several.ask() for _ in range(3)] == [first, first + 1, first + 2]
    assert {note["how"] for note in several.notes[first:]} == {"tpe"}

    last = sweep(trial_count=one.count + 1, name=name, **options)  # the last one, for the answer
    assert next_how(last) == "plateau"
    last.step()
    assert last.count == last.budget
    assert last.method.middle("") == last.count - 1


def next_how(of: Sweep) -> str:
    """How the next trial is chosen; "" when none comes."""
    if not of.method.ready(()):
        return ""
    of.method.sampler(of.count, seed=1)
    return str(of.method.note(of.count)["how"])


def test_nbest_lists_of_another_model_are_refused(
    sweep: Callable[..., Sweep], key: Callable[[Mapping[str, str]], str]
) -> None:
    one = sweep()
    one.step()
    path = TrialDirectory(one.trials, 0).nbest
    write_nbest(path, read_nbest(path, key=key(FLAGS)), key="another")
    with pytest.raises(InputError, match=r"nbest\.npz: these n-best lists were made with another"):
        sweep()


def test_warm_nbest_lists_make_a_better_first_decode(
    sweep: Callable[..., Sweep],
    key: Callable[[Mapping[str, str]], str],
) -> None:
    decodes = Decodes(utterances=40)
    flags = {"beamsize": "20"}  # where the usual start is far from the best
    places = ((0.35, -6.0), (4.74, 1.3), (0.7, 4.0))
    nbests = [decodes(lmweight=lm, wordscore=word).nbest for lm, word in places]
    warm: dict[str, NBest] = {key(FLAGS | flags): merge(nbests)}
    errors = []
    for name, options in (("cold", {}), ("warm", {"warm": warm})):
        one = sweep(
            {"wordscore": FloatRange(-8.0, 7.0)},
            name=name,
            decodes=decodes,
            targets={"": np.arange(40)},
            fixed={**flags, "lmweight": "4"},
            **options,
        )
        one.step()
        assert one.notes[0]["how"] == "start"
        errors.append(one.errors(0))
    assert errors[1] < errors[0]


# Several lists.


def test_each_list_has_its_own_search_and_answer(sweep: Callable[..., Sweep]) -> None:
    one = sweep(targets=TWO_LISTS)
    one.step(BAD_START)
    one.run()
    wanted = {note["target"] for note in one.notes[1:] if note["how"] != "tpe"}
    assert wanted == set(TWO_LISTS)
    for target, utterances in TWO_LISTS.items():
        middle = one.answer(target)
        own = [one.errors(number, utterances) for number in range(one.count)]
        assert own[middle] < own[0]
        surface = one.method.surface(middle, target)
        assert surface is not None
        words = sum(len(one.decodes.references[i]) for i in utterances)
        assert surface.points[:, 2] * words == pytest.approx(own)


# Settings of the other flags.


def test_each_setting_is_searched(sweep: Callable[..., Sweep]) -> None:
    one = sweep(BEAMS)
    assert one.run().startswith("another decode is expected to save")
    beams = [params["beamsize"] for params, _ in one.asked]
    assert set(beams) == {"20", "100"}
    # Lists of one beam serve the other: the second setting begins where the first came to.
    first = [params for params, note in one.asked if note["how"] == "start"]
    assert [params["beamsize"] for params in first] == ["20", "100"]
    assert first[0]["lmweight"] == 2.0
    assert first[1]["lmweight"] != 2.0
    assert one.key(one.space.flags(first[0])) == one.key(one.space.flags(first[1]))
    middle = one.answer()
    assert one.asked[middle][0]["beamsize"] == "100"  # the wider one is better


def test_one_live_trial_of_each_setting(sweep: Callable[..., Sweep]) -> None:
    one = sweep(BEAMS)

    def beam(number: int | None) -> str:
        return "" if number is None else one.live[number]["beamsize"]

    assert [beam(one.ask()), beam(one.ask()), beam(one.ask())] == ["20", "100", ""]
    assert one.method.ready([0]) and not one.method.ready([0, 1])
    one.complete(1)
    number = one.ask()
    assert beam(number) == "100"  # its second decode, while the other setting's first one runs
    assert one.ask() is None
    one.complete(0)
    assert beam(one.ask()) == "20"


def test_live_trials_of_an_earlier_run_are_known(sweep: Callable[..., Sweep]) -> None:
    one = sweep(BEAMS)
    one.ask()
    again = sweep(BEAMS)
    again.live = one.live
    number = again.ask()
    assert number == 1
    assert again.live[number]["beamsize"] == "100"
    assert again.ask() is None


def test_a_beam_that_is_raised_is_another_setting(
    sweep: Callable[..., Sweep], tmp_path: Path
) -> None:
    one = sweep(fixed={"beamsize": "20"}, beam={"beamsize": "20"})
    one.run()
    before = one.count
    wider = sweep(fixed={"beamsize": "100"}, beam={"beamsize": "100"})
    assert wider.method.finished() == ""
    result = wider.step()
    assert result.flags["beamsize"] == "100"
    assert wider.notes[before]["how"] == "start"
    # The lists of the narrow beam tell where to begin.
    assert wider.asked[before][0] != wider.asked[0][0]
    assert wider.run()


def test_tpe_proposes_a_setting_of_many_and_the_lists_its_weights(
    sweep: Callable[..., Sweep],
) -> None:
    one = sweep(MANY, trial_count=6)
    for number in range(6):
        assert one.method.finished() == ""
        assert one.method.ready(())
        asked = one.ask()
        assert asked == number
        params, note = one.asked[number]
        assert note == {"how": "nbest"}
        # A second search in the same folder, which has not seen this trial, gives the same weights.
        setting: Setting = (("beamsize", str(params["beamsize"])),)
        weights = sweep(MANY, trial_count=6).method.weights_for(setting)
        assert [params["lmweight"], params["wordscore"]] == pytest.approx(weights.tolist())
        one.complete(number)
    assert len({params["beamsize"] for params, _ in one.asked}) > 3
    assert one.asked[0][0]["lmweight"] == 2.0
    assert one.asked[1][0]["lmweight"] != 2.0


# The sampler.


STEPS: dict[str, Distribution] = {
    "lmweight": FloatRange(0.0, 4.8, step=0.3),
    "wordscore": IntegerRange(-7, 7, step=2),
}


def test_weights_are_such_as_their_ranges_can_give(sweep: Callable[..., Sweep]) -> None:
    one = sweep(STEPS, trial_count=4)
    one.step({"lmweight": 0.3, "wordscore": -5})
    one.run()
    for params, note in one.asked:
        assert note["how"] in ("baseline", "nbest", "plateau")
        for name, distribution in STEPS.items():
            assert distribution.contains(params[name])
        assert type(params["wordscore"]) is int
    assert one.errors(1) < one.errors(0)


@pytest.mark.parametrize(
    ("distribution", "value", "expected"),
    [
        (FloatRange(0.0, 5.0), 2.3456, 2.3456),
        (FloatRange(0.0, 5.0), 5.0000001, 5.0),
        (FloatRange(0.0, 5.0), -1.0, 0.0),
        (FloatRange(0.0, 1.0, step=0.25), 0.3, 0.25),
        (FloatRange(0.0, 1.0, step=0.25), 0.99, 1.0),
        (FloatRange(0.0, 0.3, step=0.1), 0.29, 0.3),  # 3 * 0.1 is above 0.3
        (FloatRange(0.5, 1.0, step=0.25), 0.6, 0.5),
        (IntegerRange(-8, 7), -3.4, -3),
        (IntegerRange(-8, 7), 99.0, 7),
        (IntegerRange(-7, 7, step=2), 7.5, 7),
    ],
    ids=str,
)
def test_snapping(distribution: Distribution, value: float, expected: float) -> None:
    found = _snap(distribution, value)
    assert found == pytest.approx(expected)
    assert distribution.contains(found)
    assert type(found) is type(expected)


def test_the_sampler_gives_optuna_a_setting_and_weights() -> None:
    distributions = {**STEPS, "smearing": Choice(("max", "none")), "beamsize": IntegerRange(5, 9)}
    setting: Setting = (("smearing", "none"), ("beamsize", "7"))
    tpe = make_sampler("tpe", seed=1, number=0, distributions=distributions, trial_count=9)

    def never(setting: Setting) -> np.ndarray:
        raise AssertionError("the weights are decided")

    sampler = NBestSampler(setting, np.array([1.26, 0.1]), distributions, never, tpe)
    study = optuna.create_study(sampler=sampler)
    trial, flags = SearchSpace(fixed={}, distributions=distributions).ask(study)
    assert trial.params == {
        "lmweight": pytest.approx(1.2), "wordscore": 1, "smearing": "none", "beamsize": 7,
    }  # fmt: skip
    assert flags["beamsize"] == "7"


@pytest.mark.parametrize(
    ("others", "settings"),
    [
        ({}, [()]),
        ({"beamsize": IntegerRange(5, 9, step=2)}, [(("beamsize", text),) for text in "579"]),
        ({"beamthreshold": FloatRange(10.0, 20.0, step=5.0)}, 3),
        ({"beamthreshold": FloatRange(0.0, 0.3, step=0.1)}, 4),
        ({"beamsize": IntegerRange(1, MOST_SETTINGS)}, MOST_SETTINGS),
        ({"beamsize": IntegerRange(1, MOST_SETTINGS + 1)}, 0),
        ({"beamsize": IntegerRange(1, 7), "smearing": Choice(("max", "none"))}, 14),
        ({"beamsize": IntegerRange(1, 11), "smearing": Choice(("max", "none"))}, 0),
        ({"beamsize": IntegerRange(1, 4, log=True)}, 0),
        ({"beamthreshold": FloatRange(10.0, 20.0)}, 0),
    ],
    ids=str,
)
def test_settings(others: dict[str, Distribution], settings: Collection[Setting] | int) -> None:
    found = enumerate_settings(others)
    if isinstance(settings, int):
        assert len(set(found)) == len(found) == settings
    else:
        assert found == settings
    for setting in found:
        assert SearchSpace(fixed={}, distributions=others).values(dict(setting)) is not None


@pytest.mark.parametrize(
    ("space", "start"),
    [
        ({"lmweight": IntegerRange(0, 5)}, {"lmweight": 5}),
        (
            {
                "lmweight": FloatRange(0.0, 5.0, step=2.5),
                "wordscore": FloatRange(-8.0, 7.0, step=5.0),
            },
            {"lmweight": 5.0, "wordscore": -8.0},
        ),
    ],
    ids=["integers", "two coarse grids"],
)
def test_no_point_is_decoded_twice(
    sweep: Callable[..., Sweep], space: dict[str, Distribution], start: dict[str, Any]
) -> None:
    one = sweep(distributions=space)
    one.step(start)
    one.run()
    asked = [tuple(sorted(params.items())) for params, _ in one.asked]
    assert len(set(asked)) == len(asked) >= 2


def test_an_automatic_beam_is_widened_instead(
    sweep: Callable[..., Sweep], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("w2ltune.search.nbest.PATIENCE", 1)
    monkeypatch.setattr("w2ltune.search.nbest.WORTH", 0.0)
    monkeypatch.setattr("w2ltune.search.linear.LITTLE", 0.0)
    long = Decodes(name="dev-long", utterances=COUNT)
    beam = {"beamsize": "1"}
    one = sweep(fixed=beam, beam=beam, trial_count=20, decodes=long)
    one.step({"lmweight": 4.74, "wordscore": 1.3})
    assert one.run() == "the beam loses more than weights can win"
    assert "tpe" not in [note["how"] for note in one.notes]
