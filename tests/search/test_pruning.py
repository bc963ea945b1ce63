import numpy as np
import optuna
import pytest

from w2ltune.errors import UsageError
from w2ltune.runs.trialdir import TrialResult
from w2ltune.search import pruning
from w2ltune.search.pruning import PRUNED, EpochPruner, PairedPruner

UTTERANCES = 200


@pytest.fixture
def study():
    return optuna.create_study()


@pytest.fixture
def random():
    return np.random.default_rng(5)


@pytest.fixture
def incumbent(random):
    """Errors of each utterance under the best weights so far."""
    return random.poisson(1.0, UTTERANCES)


@pytest.fixture
def pruner(incumbent):
    pruner = PairedPruner()
    pruner.take_incumbent(incumbent.sum() / 1000, incumbent)
    return pruner


@pytest.fixture
def verdicts(study):
    """What a pruner says at each prefix of a trial, given its errors."""

    def verdicts(pruner, errors, prefixes=range(10, UTTERANCES + 1, 10)):
        study.ask()
        trial = study.get_trials()[-1]
        found = {}
        for prefix in prefixes:
            pruner.observe(trial.number, errors[:prefix])
            found[prefix] = pruner.prune(study, trial)
        return found

    return verdicts


def test_a_clearly_worse_trial_stops_early_but_not_before_the_least_share(
    pruner, incumbent, verdicts
):
    found = verdicts(pruner, incumbent + 3)
    assert not any(found[prefix] for prefix in (10, 20))
    assert found[30]
    assert not found[UTTERANCES]  # nothing is saved at the end


def test_a_somewhat_worse_trial_stops_later(pruner, incumbent, random, verdicts):
    found = verdicts(pruner, incumbent + random.poisson(0.1, UTTERANCES))
    assert not found[30]
    assert any(found.values())


def test_an_equal_trial_is_never_stopped(pruner, incumbent, verdicts):
    assert not any(verdicts(pruner, incumbent).values())


def test_a_better_trial_is_never_stopped(pruner, incumbent, verdicts):
    assert not any(verdicts(pruner, np.maximum(incumbent - 1, 0)).values())


def test_one_error_more_is_no_reason(pruner, incumbent, verdicts):
    worse = incumbent.copy()
    worse[:2] += 1
    assert not any(verdicts(pruner, worse).values())


def test_trials_as_good_as_the_incumbent_are_seldom_stopped(random, verdicts):
    # Errors at other places, as often: at each of the looks the level is 1 %.
    stopped = 0
    for _ in range(50):
        pruner = PairedPruner()
        best, other = random.poisson(0.5, (2, UTTERANCES))
        pruner.take_incumbent(0.1, best)
        stopped += any(verdicts(pruner, other).values())
    assert stopped < 10


def test_without_an_incumbent_nothing_is_stopped(verdicts):
    pruner = PairedPruner()
    bad = np.full(UTTERANCES, 9)
    assert not any(verdicts(pruner, bad).values())
    for state in ("FAIL", "PRUNED"):  # of a pruned one there are errors of a part only
        pruner.finish(TrialResult(number=0, attempt=1, state=state, value=0.0), {})
    assert not any(verdicts(pruner, bad).values())


def test_the_best_complete_trial_is_the_incumbent(pruner, incumbent, verdicts):
    better = np.zeros(UTTERANCES, int)
    assert not any(verdicts(pruner, incumbent).values())
    pruner.take_incumbent(0.0, better)
    pruner.take_incumbent(0.9, incumbent + 5)
    assert any(verdicts(pruner, incumbent).values())


def test_a_trial_that_did_not_report_is_not_stopped(pruner, study):
    study.ask()
    assert not pruner.prune(study, study.get_trials()[-1])


@pytest.mark.parametrize(("limit", "least", "stopped"), [(1.0, 0.05, True), (50.0, 0.15, False)])
def test_limits(incumbent, verdicts, monkeypatch, limit, least, stopped):
    monkeypatch.setattr(pruning, "LIMIT", limit)
    monkeypatch.setattr(pruning, "LEAST", least)
    worse = incumbent + (np.arange(UTTERANCES) % 5 == 0)
    pruner = PairedPruner()
    pruner.take_incumbent(0.1, incumbent)
    found = verdicts(pruner, worse)
    assert found[20] if stopped else not any(found.values())


def test_epoch_pruners_stop_what_falls_behind(study):
    good = [0.9, 0.5, 0.4, 0.3, 0.3, 0.2, 0.2, 0.1, 0.1]
    bad = [1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0]
    for name in ("asha", "median"):
        study = optuna.create_study()
        pruner = EpochPruner(name, min_epochs=2)
        ends = []
        for curve in (good, good, good, good, good, bad):
            trial = study.ask()
            end = len(curve)
            for epoch in range(1, len(curve)):
                result = {"by_epoch": list(enumerate(curve[:epoch], start=1))}
                if pruner.stops(study, trial, result, after=epoch - 1):
                    end = epoch
                    break
            ends.append(end)
            state = optuna.trial.TrialState.COMPLETE
            study.tell(trial, min(curve[:end]), state=state)
        assert ends[0] == len(good), name
        assert 2 <= ends[-1] < len(bad), name


def test_epochs_known_to_the_study_are_not_reported_again(study):
    trial = study.ask()
    pruner = EpochPruner("asha", min_epochs=50)
    pruner.stops(study, trial, {"by_epoch": [(1, 0.5), (2, 0.4)]}, after=-1)
    pruner.stops(study, trial, {"by_epoch": [(1, 0.9), (2, 0.9), (3, float("inf"))]}, after=2)
    assert study.get_trials()[-1].intermediate_values == {1: 0.5, 2: 0.4}


def test_an_unknown_epoch_pruner_is_refused():
    with pytest.raises(UsageError, match="asha, median, hyperband or none"):
        EpochPruner("ashaa", min_epochs=1)


class Killed(BaseException):
    pass


def judged(pruner, study, trial, errors, ends, after=-1):
    """The step that a pruner stops at, with reports that come at these places."""
    counts = np.stack([errors, errors * 0, errors * 0, errors * 0 + 5], axis=1)
    for end in ends:
        if found := pruner.stops(study, trial, {"utterance_counts": counts[:end]}, after=after):
            return found
        after = end
    return 0


def test_when_reports_come_does_not_decide(study, random, incumbent):
    found, reports = set(), set()
    errors = incumbent + random.poisson(0.1, UTTERANCES)
    for ends in ([200], [37, 111, 180, 200], range(1, 201), [199]):
        pruner, trial = PairedPruner(), study.ask()
        pruner.take_incumbent(0.1, incumbent)
        found.add(judged(pruner, study, trial, errors, ends))
        frozen = study.get_trials()[-1]
        reports.add(tuple(frozen.intermediate_values.items()))
        assert frozen.user_attrs[PRUNED] in found
    assert len(found) == len(reports) == 1
    assert 0 < found.pop() < UTTERANCES


def test_of_equal_trials_the_first_is_the_incumbent_whichever_ends_first(incumbent):
    pruners = PairedPruner(), PairedPruner()
    other = incumbent[::-1]
    for pruner, order in zip(pruners, (1, -1), strict=True):
        for number, errors in [(3, incumbent), (5, other)][::order]:
            pruner.take_incumbent(0.1, errors, number=number)
    assert (pruners[0]._errors == pruners[1]._errors).all()


@pytest.mark.parametrize("name", ["asha", "median", "hyperband"])
@pytest.mark.parametrize("write", range(1, 6))
def test_a_verdict_that_a_kill_cut_off_is_found_again(name, write, monkeypatch):
    good, bad = [0.5, 0.4, 0.3, 0.2, 0.1, 0.1], [0.9, 0.9, 0.9, 0.9, 0.9, 0.9]

    def run(killed_at):
        study = optuna.create_study(study_name="same")
        storage, left = study._storage, [killed_at]
        found = []

        def dying(method):
            def write(*arguments):
                left[0] -= 1
                if left[0] == 0:
                    raise Killed
                method(*arguments)

            return write

        for number, curve in enumerate([good] * 8 + [bad] * 4):
            trial, pruner = study.ask(), EpochPruner(name, min_epochs=1)
            if number == 8:
                for write in (
                    "set_trial_intermediate_value", "set_trial_user_attr", "set_trial_system_attr"
                ):  # fmt: skip
                    monkeypatch.setattr(storage, write, dying(getattr(storage, write)))
            end, epoch = 0, 1
            while not end and epoch <= len(curve):
                frozen = study.get_trials()[number]
                last = max(frozen.intermediate_values, default=0)
                result = {"by_epoch": [*enumerate(curve[:epoch], start=1)]}
                try:
                    end = frozen.user_attrs.get(PRUNED, 0) or pruner.stops(
                        study, trial, result, after=last - 1
                    )
                    epoch += 1
                except Killed:
                    pruner, trial = EpochPruner(name, min_epochs=1), optuna.Trial(study, number)
            state = optuna.trial.TrialState.PRUNED if end else optuna.trial.TrialState.COMPLETE
            study.tell(number, None if end else curve[-1], state=state)
            found.append(end)
        return found

    undisturbed = run(0)
    assert any(undisturbed[8:]) or name == "hyperband"
    assert run(write) == undisturbed


def test_the_last_epoch_of_all_decides_nothing(study):
    pruner = EpochPruner("asha", min_epochs=1)
    for value in (0.1, 0.1, 0.1, 0.9):
        trial = study.ask()
        stopped = pruner.stops(study, trial, {"by_epoch": [(1, value)], "done": True}, after=-1)
        assert not stopped
