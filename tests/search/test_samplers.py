import importlib.util
import itertools
import math
import os

import pytest
from optuna.trial import TrialState

from w2ltune.errors import UsageError
from w2ltune.formats.distributions import Choice, FloatRange, IntegerRange
from w2ltune.runs.lock import StudyLock, this_process
from w2ltune.runs.trialdir import TrialResult
from w2ltune.search.samplers import SAMPLERS, check_sampler, grid_points, make_sampler
from w2ltune.search.space import SearchSpace
from w2ltune.search.study import counted, lose, open_study, tell

NUMBERS = {
    "lmweight": FloatRange(0.0, 4.0),
    "wordscore": FloatRange(-2.0, 2.0),
    "beamsize": IntegerRange(1, 64, log=True),
}
MIXED = {**NUMBERS, "smearing": Choice(("none", "max"))}
SMALL = {"lmweight": FloatRange(0.0, 1.0, step=0.5), "smearing": Choice(("none", "max"))}
SPACES = {"tpe": MIXED, "random": MIXED, "qmc": MIXED, "cmaes": NUMBERS, "grid": SMALL}
TRIALS = 12


@pytest.fixture
def study(tmp_path, monkeypatch):
    """Open a study of a name, again and again."""
    monkeypatch.setattr(os, "fsync", lambda descriptor: None)  # no power cut here, and many trials
    lock = StudyLock(tmp_path / "lock", this_process())
    lock.acquire()

    def open_again(name):
        (tmp_path / name).mkdir(exist_ok=True)
        return open_study(tmp_path / name, lock)

    yield open_again
    lock.release()


def needs(name):
    for package in SAMPLERS[name]:
        pytest.importorskip(package)


def ask(study, name, distributions, *, seed=1, trial_count=TRIALS):
    number = len(study.get_trials(deepcopy=False))
    study.sampler = make_sampler(
        name, seed=seed, number=number, distributions=distributions, trial_count=trial_count
    )
    return SearchSpace(fixed={}, distributions=distributions).ask(study)[0]


def objective(params):
    value = sum((value - 1) ** 2 for value in params.values() if not isinstance(value, str))
    return value + (params.get("smearing") == "none")


def go_on(study, name, count, **options):
    for _ in range(count):
        trial = ask(study, name, SPACES[name], **options)
        value = objective(trial.params)
        tell(
            study,
            trial.number,
            TrialResult(number=trial.number, attempt=1, state="COMPLETE", value=value),
        )
    return [trial.params for trial in study.get_trials()]


@pytest.mark.parametrize("name", list(SPACES))
def test_repeatable_across_a_restart(study, name):
    needs(name)
    in_one_go = go_on(study("one"), name, TRIALS)
    assert len(in_one_go) == TRIALS
    assert all(params.keys() == SPACES[name].keys() for params in in_one_go)
    go_on(study("two"), name, 5)
    assert go_on(study("two"), name, TRIALS - 5) == in_one_go
    other = go_on(study("three"), name, TRIALS, seed=2)
    if name == "grid":
        assert other == in_one_go
    else:
        assert all(mine != theirs for mine, theirs in zip(in_one_go, other, strict=True))
        different = {tuple(params.items()) for params in in_one_go}
        assert len(different) == TRIALS


@pytest.mark.parametrize("name", ["tpe", "cmaes"])
def test_samplers_that_learn_do_better_than_chance(study, name):
    needs(name)
    values = [objective(params) for params in go_on(study(name), name, 60)]
    assert min(values[30:]) < min(values[:10])


def test_no_sampler_complains(study, caplog):
    # Python's warnings are errors here; Optuna has a log.
    for name, space in SPACES.items():
        needs(name)
        opened = study(name)
        for _ in range(6):
            trial = ask(opened, name, space)
            opened.tell(trial, objective(trial.params))
    assert caplog.messages == []


def test_grid_covers_each_point_once_though_asks_were_lost(study):
    opened = study("grid")
    for number in range(8):
        trial = ask(opened, "grid", SMALL, trial_count=6)
        if number in (0, 4):  # killed after its values were recorded, before its flags were
            lose(opened, opened.get_trials()[trial.number])
        else:
            opened.tell(trial, 0.5)
    done = [tuple(trial.params.values()) for trial in counted(opened)]
    assert sorted(done) == sorted(itertools.product([0.0, 0.5, 1.0], ["none", "max"]))


def test_grid_with_several_trials_at_a_time_and_failures(study):
    opened = study("grid")
    live = [ask(opened, "grid", SMALL) for _ in range(3)]
    opened.tell(live[2], 0.5)
    opened.tell(live[0], state=TrialState.FAIL)
    live += [ask(opened, "grid", SMALL) for _ in range(3)]
    points = [tuple(trial.params.values()) for trial in live]
    assert len(set(points)) == 6


def test_a_grid_that_grows_does_not_repeat_itself(study):
    space = {"lmweight": FloatRange(0.0, 1.0)}
    opened = study("grid")
    for trial_count in (3, 3, 3, 5, 5):
        opened.tell(ask(opened, "grid", space, trial_count=trial_count), 0.5)
    weights = [trial.params["lmweight"] for trial in opened.get_trials()]
    assert sorted(weights) == [0.0, 0.25, 0.5, 0.75, 1.0]


def test_a_grid_that_is_done_begins_again(study):
    opened = study("grid")
    params = [ask(opened, "grid", SMALL).params for _ in range(12)]
    assert params[:6] == params[6:]


@pytest.mark.parametrize(
    ("space", "trial_count", "points"),
    [
        ({"x": FloatRange(0.0, 1.0)}, 3, [0.0, 0.5, 1.0]),
        ({"x": FloatRange(0.01, 1.0, log=True)}, 3, [0.01, 0.1, 1.0]),
        ({"x": FloatRange(0.0, 0.3, step=0.1)}, 99, [0.0, 0.1, 0.2, 0.3]),
        ({"x": IntegerRange(1, 3)}, 99, [1, 2, 3]),
        ({"x": IntegerRange(0, 1000)}, 3, [0, 500, 1000]),
        ({"x": IntegerRange(1, 100, log=True)}, 3, [1, 10, 100]),
        ({"x": Choice(("a", "b"))}, 1, ["a", "b"]),
        ({"x": FloatRange(0.0, 1.0)}, 1, [0.0, 1.0]),
    ],
)
def test_points_of_a_grid(space, trial_count, points):
    found = [point["x"] for point in grid_points(space, trial_count)]
    assert found == points if isinstance(points[0], str) else found == pytest.approx(points)
    assert all(space["x"].contains(value) for value in found)
    assert {type(value) for value in found} == {type(points[0])}


def test_a_grid_keeps_to_the_budget_where_it_can():
    for trial_count in range(4, 100):
        points = grid_points({"x": FloatRange(0.0, 1.0), "y": FloatRange(0.0, 1.0)}, trial_count)
        side = math.isqrt(trial_count)
        assert len(points) == side * side


def test_a_sampler_that_does_not_exist():
    with pytest.raises(UsageError, match=r"--sampler=tpee: unknown; did you mean 'tpe'\?"):
        check_sampler("tpee", {}, script=False)


@pytest.mark.skipif(importlib.util.find_spec("torch") is not None, reason="torch is installed")
def test_a_package_that_is_missing_is_named_with_the_line_that_installs_it():
    with pytest.raises(UsageError, match=r"needs torch.*, not installed: pip install 'w2ltune\[gp"):
        check_sampler("gp", NUMBERS, script=False)


@pytest.mark.parametrize(
    ("name", "space", "script", "message"),
    [
        ("grid", SMALL, True, "cannot lay a grid over a --space script"),
        ("cmaes", MIXED, False, r"cannot search --smearing=choice\(none, max\)"),
    ],
)
def test_spaces_that_do_not_fit_a_sampler(name, space, script, message):
    needs(name)
    with pytest.raises(UsageError, match=message):
        check_sampler(name, space, script=script)


@pytest.mark.parametrize("name", list(SPACES))
def test_spaces_that_fit(name):
    needs(name)
    check_sampler(name, SPACES[name], script=name != "grid")
