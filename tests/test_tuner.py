"""What Ray Tune keeps of trials that are over."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
from ray import tune
from ray.tune.experiment import Trial
from ray.tune.registry import register_trainable

from w2ltune import tuner
from w2ltune.tuner import StudyScheduler


def test_tune_forgets_what_is_over(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its statistics of 1,000 trials would take 50 MB."""
    monkeypatch.setattr(tuner, "TRIALS_REMEMBERED", 2)
    register_trainable("nothing", tune.Trainable)
    trials = [Trial("nothing", stub=True) for _ in range(6)]
    for trial in (*trials[:2], *trials[3:]):  # the third one still runs
        trial.set_status(Trial.TERMINATED)
    left = [trials[2], *trials[4:]]
    controller = SimpleNamespace(
        _stopped_trials={*trials} - {trials[2]},
        _failed_trials=set(),
        _trials_to_cache={trials[0], trials[5]},
        _trial_metadata={trial.trial_id: "{}" for trial in trials},
        get_trials=lambda: trials,
    )
    StudyScheduler.on_trial_complete(object(), controller, trials[5], {})  # type: ignore[arg-type]
    assert trials == left
    assert controller._stopped_trials == {*left[1:]}
    assert controller._trials_to_cache == {left[2]}
    assert controller._trial_metadata.keys() == {trial.trial_id for trial in left}
