"""Which trial is the answer: counts of utterances, by hand and of real decodes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pytest
from realdecodes import Decodes

from w2ltune.runs.outcome import Choice
from w2ltune.runs.trialdir import TrialResult
from w2ltune.scoring.significance import Clusters, clusters_from_ids
from w2ltune.search.choice import Decoded, choose, compare

COUNT = 40
ALL = np.arange(COUNT)
HALVES = {"first": np.arange(20), "second": np.arange(20, 40)}
BASE = np.array([3, 0, 1, 2] * 10)
"""Errors of the best decode, of 10 words in each utterance."""


def decoded(number: int, errors: Sequence[int] | np.ndarray) -> Decoded:
    """A trial with these errors: substitutions, and insertions where there are more than 2."""
    substitutions = np.minimum(errors, 2)
    zeros = np.zeros(COUNT)
    counts = np.column_stack([substitutions, zeros, errors - substitutions, zeros + 10])
    return of_counts(number, counts.astype(np.int32))


def of_counts(number: int, counts: np.ndarray, note: Mapping[str, str] | None = None) -> Decoded:
    total = counts.sum(axis=0).tolist()
    value = sum(total[:3]) / total[3]
    result = TrialResult(number=number, attempt=1, state="COMPLETE", value=value)
    return Decoded(result=result, counts=counts, note=note or {})


def clusters(utterances: np.ndarray) -> Clusters:
    return clusters_from_ids([f"utterance {i}" for i in utterances], None)


def choice(trials: Sequence[Decoded], utterances: np.ndarray = ALL, **options: Any) -> Choice:
    options = {"target": "", "baseline": None, **options}
    return choose(trials, utterances=utterances, clusters=clusters(utterances), **options)


def worse(more: int, fewer: int) -> np.ndarray:
    """The best errors with one more in some utterances and one less in others that have some."""
    errors = BASE.copy()
    with_errors = np.flatnonzero(errors)
    errors[with_errors[:fewer]] -= 1
    errors[with_errors[fewer : fewer + more]] += 1
    return errors


@pytest.mark.parametrize(
    ("more", "fewer", "taken"),
    [
        (0, 0, True),  # the same errors
        (5, 5, True),  # as many
        (9, 7, True),  # 2 more where chance gives or takes 4
        (12, 9, True),
        (9, 0, False),  # 9 more in 9 utterances and none less anywhere: not chance
        (14, 4, False),
        (30, 0, False),
    ],
)
def test_the_middle_is_taken_within_one_standard_error(more: int, fewer: int, taken: bool) -> None:
    trials = [decoded(0, worse(more, fewer)), decoded(1, BASE)]
    # By hand: the standard error of a sum of independent differences.
    differences = trials[0].errors(ALL) - trials[1].errors(ALL)
    assert differences.sum() == more - fewer
    standard_error = np.sqrt(COUNT) * differences.std()
    assert (differences.sum() <= standard_error) is np.bool_(taken)
    found = choice(trials, middle=0)
    assert found.trial == (0 if taken else 1)
    assert found.best_trial == (0 if more == fewer else 1)
    assert found.why == ("middle of the plateau" if taken else "fewest errors")


def test_without_a_middle_the_fewest_errors_are_taken() -> None:
    trials = [decoded(0, worse(9, 7)), decoded(1, BASE)]
    for middle in (None, 17):  # unknown: it failed, or was pruned
        found = choice(trials, middle=middle)
        assert (found.trial, found.best_trial, found.why) == (1, 1, "fewest errors")


def test_where_the_best_is_the_middle_it_is_said() -> None:
    found = choice([decoded(0, worse(9, 7)), decoded(1, BASE)], middle=1)
    assert (found.trial, found.why) == (1, "middle of the plateau")


@pytest.mark.parametrize("order", [(2, 5, 9), (9, 5, 2), (5, 9, 2)])
def test_of_several_best_trials_the_earliest(order: tuple[int, ...]) -> None:
    trials = [decoded(number, BASE) for number in order]
    trials.insert(1, decoded(0, worse(9, 0)))
    found = choice(trials)
    assert (found.trial, found.best_trial) == (2, 2)


def test_each_target_has_its_own_utterances() -> None:
    one, other = BASE.copy(), BASE.copy()
    one[20:] += 3
    other[:20] += 4
    trials = [decoded(0, one), decoded(1, other)]
    baseline = decoded(2, BASE + 1)
    for (target, utterances), best in zip(HALVES.items(), (0, 1), strict=True):
        found = choice(trials, utterances, target=target, baseline=baseline, oracle=0.05)
        assert (found.target, found.trial, found.oracle) == (target, best, 0.05)
        assert found.counts == (25, 0, 5, 200)
        assert found.interval[0] < 30 / 200 < found.interval[1]
        assert found.unit == "utterance (20)"
        assert found.against_baseline is not None
        assert found.against_baseline.difference == pytest.approx(-20 / 200)
        assert found.against_baseline.unit == "utterance (20)"
    together = choice(trials)
    assert together.trial == 0  # 60 errors more, not 80
    assert together.counts[3] == 400


@pytest.mark.parametrize(
    ("baseline", "sign"), [(worse(25, 0), -1), (worse(0, 25), 1), (worse(5, 5), 0), (BASE, 0)]
)
def test_below_zero_is_better_than_the_baseline(baseline: np.ndarray, sign: int) -> None:
    found = choice([decoded(1, BASE)], baseline=decoded(0, baseline)).against_baseline
    assert found is not None
    assert found.difference == pytest.approx((BASE.sum() - baseline.sum()) / 400)
    low, high = found.interval
    assert low <= found.difference <= high
    assert np.sign(low) + np.sign(high) == 2 * sign  # on both sides of 0 where nothing is sure


def test_no_baseline_no_comparison() -> None:
    assert choice([decoded(0, BASE)]).against_baseline is None


def test_speakers_are_drawn_together() -> None:
    a, b = decoded(0, BASE).counts, decoded(1, worse(9, 7)).counts
    speakers = clusters_from_ids([f"{i // 4}-1-{i}" for i in range(COUNT)], None)
    found = compare(a, b, speakers)
    assert found.unit == "speaker (10)"
    assert found.difference == pytest.approx(-2 / 400)


def test_real_decodes() -> None:
    decodes = Decodes()
    settings = ((0.5, -4.0), (3.3, 3.6), (2.5, 1.5))
    trials = [
        of_counts(number, decodes(lmweight=lm, wordscore=word).counts)
        for number, (lm, word) in enumerate(settings)
    ]
    totals = [int(trial.errors(ALL).sum()) for trial in trials]
    found = choice(trials, baseline=trials[0], middle=2)
    assert found.best_trial == int(np.argmin(totals))
    assert found.trial == 2
    assert sum(found.counts[:3]) == totals[2]
    assert found.counts[3] == sum(map(len, decodes.references))
    assert found.against_baseline is not None
    assert found.against_baseline.interval[1] < 0  # surely better than bad weights
