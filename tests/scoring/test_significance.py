from __future__ import annotations

import math
import random
import statistics

import numpy as np
import pytest

from w2ltune.errors import InputError
from w2ltune.scoring import significance
from w2ltune.scoring.significance import (
    Clusters,
    bootstrap_interval,
    clusters_from_ids,
    paired_difference,
)


def utterances(count: int) -> Clusters:
    return Clusters(unit="utterance", index=np.arange(count), count=count)


@pytest.mark.parametrize(
    ("ids", "pattern", "unit", "index"),
    [
        (["84-1-0", "84-2-0", "7-1-0", "84-1-1"], None, "speaker", [0, 0, 1, 0]),
        (["84-1-0", "a-1-0"], None, "utterance", [0, 1]),
        (["84-1-0", "84-1-1"], None, "utterance", [0, 1]),  # one speaker tells nothing
        (["x84-1-0", "x7-1-0"], None, "utterance", [0, 1]),
        (["a_1", "b_1", "a_2"], "^[^_]+", "cluster", [0, 1, 0]),
        (["a_1", "b_1", "a_2"], "_(.)", "cluster", [0, 0, 1]),
        (["84-1-0", "84-1-1"], r"^\d+", "cluster", [0, 0]),
        ([], None, "utterance", []),
    ],
)
def test_clusters(ids: list[str], pattern: str | None, unit: str, index: list[int]) -> None:
    clusters = clusters_from_ids(ids, pattern)
    assert (clusters.unit, clusters.index.tolist()) == (unit, index)
    assert clusters.count == len(set(index))


@pytest.mark.parametrize(
    ("pattern", "message"),
    [
        ("(a", r"--cluster=\(a is no regular expression"),
        ("^b", r"--cluster=\^b does not match the utterance id 'a_1'"),
        ("^a|(b)", "does not match the utterance id 'a_1'"),
    ],
)
def test_a_wrong_pattern_is_refused(pattern: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        clusters_from_ids(["a_1"], pattern)


def test_the_interval_agrees_with_a_plain_bootstrap() -> None:
    draw = random.Random(3)
    words = [draw.randint(3, 30) for _ in range(120)]
    errors = [sum(draw.random() < 0.1 for _ in range(length)) for length in words]
    speakers = [number % 15 for number in range(120)]
    groups = [[n for n in range(120) if speakers[n] == speaker] for speaker in range(15)]
    ratios = []
    for _ in range(4000):
        drawn = [n for group in draw.choices(groups, k=15) for n in group]
        ratios.append(sum(errors[n] for n in drawn) / sum(words[n] for n in drawn))
    cuts = statistics.quantiles(ratios, n=40)
    interval = bootstrap_interval(
        np.array(errors),
        np.array(words),
        Clusters(unit="speaker", index=np.array(speakers), count=15),
        resamples=4000,
    )
    assert interval.low == pytest.approx(cuts[0], abs=0.003)
    assert interval.high == pytest.approx(cuts[-1], abs=0.003)
    assert (interval.unit, interval.count, interval.drawn) == ("speaker", 15, "speaker (15)")


def speech(
    generator: np.random.Generator, speakers: int, per_speaker: int
) -> tuple[np.ndarray, np.ndarray, Clusters]:
    """Draw a list whose speakers differ; its expected WER is 0.1."""
    rates = np.repeat(generator.beta(4, 36, speakers), per_speaker)
    words = generator.integers(5, 25, speakers * per_speaker)
    index = np.repeat(np.arange(speakers), per_speaker)
    errors = generator.binomial(words, rates)
    return errors, words, Clusters(unit="speaker", index=index, count=speakers)


def test_the_interval_covers_the_truth_as_often_as_it_says() -> None:
    generator = np.random.default_rng(5)
    lists = 300
    by_speaker = by_utterance = 0
    for seed in range(lists):
        errors, words, clusters = speech(generator, 40, 10)
        interval = bootstrap_interval(errors, words, clusters, resamples=400, seed=seed)
        by_speaker += interval.low <= 0.1 <= interval.high
        interval = bootstrap_interval(errors, words, utterances(400), resamples=400, seed=seed)
        by_utterance += interval.low <= 0.1 <= interval.high
    assert 0.90 <= by_speaker / lists <= 0.98
    assert by_utterance / lists < 0.80  # why speakers are drawn


def test_the_same_seed_gives_the_same_interval(monkeypatch: pytest.MonkeyPatch) -> None:
    errors, words, clusters = speech(np.random.default_rng(1), 20, 5)
    first = bootstrap_interval(errors, words, clusters, seed=4)
    assert bootstrap_interval(errors, words, clusters, seed=4) == first
    assert bootstrap_interval(errors, words, clusters, seed=5) != first
    monkeypatch.setattr(significance, "_MOST_KEPT_DRAWS", 0)
    monkeypatch.setattr(significance, "_CHUNK_DRAWS", 30)  # the memory bound changes nothing
    assert bootstrap_interval(errors, words, clusters, seed=4) == first


def test_degenerate_lists() -> None:
    none, words = np.zeros(20, int), np.full(20, 9)
    interval = bootstrap_interval(none, words, utterances(20))
    assert (interval.low, interval.high) == (0, 0)
    one = Clusters(unit="cluster", index=np.zeros(20, int), count=1)
    interval = bootstrap_interval(none + 3, words, one)
    assert interval.ends == pytest.approx((1 / 3, 1 / 3))
    for empty in (utterances(0), utterances(3)):
        nothing = np.zeros(empty.count, np.int32)
        interval = bootstrap_interval(nothing, nothing, empty)
        assert math.isnan(interval.low) and math.isnan(interval.high)
        difference = paired_difference(nothing, nothing, nothing, empty)
        assert math.isnan(difference.difference) and math.isnan(difference.standard_error)


def test_samples_without_words_are_left_out() -> None:
    interval = bootstrap_interval(np.array([2, 1]), np.array([4, 0]), utterances(2))
    assert 0.5 <= interval.low <= interval.high < 2  # 2/4 alone, or 3/4 with the insertion
