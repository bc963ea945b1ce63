"""How sure a WER is: bootstrap intervals over speakers or utterances.

What is said by one speaker goes wrong together, so whole speakers are drawn with replacement
where the ids tell them (Bisani and Ney, "Bootstrap estimates for confidence intervals in ASR
performance evaluation", ICASSP 2004; the same paper has the paired difference).
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from w2ltune.errors import InputError

LEVEL = 0.95
RESAMPLES = 2000
FEW_CLUSTERS = 10

_LIBRISPEECH_ID = r"\d+-\d+-\d+"  # speaker-chapter-utterance
_CHUNK_DRAWS = 2_000_000  # bounds the memory of one product to some tens of MB
_MOST_KEPT_DRAWS = 20_000_000  # of two bytes or less


@dataclass(frozen=True, kw_only=True)
class Clusters:
    """Utterances grouped into what is drawn together.

    Args:
        unit: ``"speaker"``, ``"cluster"`` (of ``--cluster``) or ``"utterance"``.
        index: int [utterances], the cluster of each utterance, from 0.
        count: Number of clusters.
    """

    unit: str
    index: NDArray[np.intp]
    count: int


@dataclass(frozen=True, kw_only=True)
class Interval:
    """A percentile bootstrap interval.

    Args:
        low: Lower end, a fraction like the WER itself; nan without reference words.
        high: Upper end.
        unit: What was drawn: see :class:`Clusters`.
        count: Of how many of them.
    """

    low: float
    high: float
    unit: str
    count: int

    @property
    def ends(self) -> tuple[float, float]:
        """Both ends."""
        return self.low, self.high

    @property
    def drawn(self) -> str:
        """What was drawn, and how many of them there are: "speaker (40)"."""
        return f"{self.unit} ({self.count})"


@dataclass(frozen=True, kw_only=True)
class PairedDifference:
    """The WER of a system minus that of another on the same utterances.

    Args:
        difference: WER of a minus WER of b, as a fraction: below 0 when a is better.
        standard_error: Of the difference, from the bootstrap.
        interval: Of the difference.
    """

    difference: float
    standard_error: float
    interval: Interval


def clusters_from_ids(ids: Sequence[str], pattern: str | None) -> Clusters:
    r"""Group utterances by speaker as far as their ids tell it.

    Args:
        ids: The utterances.
        pattern: ``--cluster``: a regular expression found in each id; its first group (without
            one, the whole match) names the cluster. None means LibriSpeech's ids, whose first
            field is the speaker, and single utterances where the ids are others or of one
            speaker only.

    Raises:
        InputError: The pattern is no regular expression, or an id does not match it.

    Example:
        >>> clusters_from_ids(["84-121-0000", "84-121-0001", "174-5-0000"], None).count
        2
        >>> clusters_from_ids(["anna_1", "anna_2", "ben_1"], r"^\w+(?=_)").index.tolist()
        [0, 0, 1]
    """
    if pattern is not None:
        return _group("cluster", [_cluster_name(name, pattern) for name in ids])
    if all(re.match(_LIBRISPEECH_ID, name) for name in ids):
        speakers = _group("speaker", [name.partition("-")[0] for name in ids])
        if speakers.count > 1:
            return speakers
    return Clusters(unit="utterance", index=np.arange(len(ids), dtype=np.intp), count=len(ids))


def _group(unit: str, names: list[str]) -> Clusters:
    numbers = {name: number for number, name in enumerate(dict.fromkeys(names))}
    index = np.array([numbers[name] for name in names], dtype=np.intp)
    return Clusters(unit=unit, index=index, count=len(numbers))


def _cluster_name(name: str, pattern: str) -> str:
    try:
        match = re.search(pattern, name)
    except re.error as error:
        raise InputError(f"--cluster={pattern} is no regular expression: {error}") from error
    found = match and match.group(1 if match.re.groups else 0)
    if found is None:
        raise InputError(
            f"--cluster={pattern} does not match the utterance id {name!r}; "
            "it must name the cluster of every id, as ^[^-]+ does for the part before a '-'"
        )
    return found


def bootstrap_interval(
    errors: NDArray[np.integer],
    reference_words: NDArray[np.integer],
    clusters: Clusters,
    *,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> Interval:
    """Return the percentile bootstrap interval of a WER.

    Args:
        errors: int [utterances].
        reference_words: int [utterances].
        clusters: What is drawn together.
        resamples: Number of bootstrap samples.
        seed: The same seed gives the same interval.
    """
    ratios = _resampled_ratios(errors, reference_words, clusters, resamples, seed)
    return _percentiles(ratios, clusters)


def paired_difference(
    errors_a: NDArray[np.integer],
    errors_b: NDArray[np.integer],
    reference_words: NDArray[np.integer],
    clusters: Clusters,
    *,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> PairedDifference:
    """Compare two systems on the same utterances.

    Args:
        errors_a: int [utterances], of the first system.
        errors_b: int [utterances], of the second.
        reference_words: int [utterances].
        clusters: What is drawn together.
        resamples: Number of bootstrap samples.
        seed: The same seed gives the same answer.
    """
    # int64 first: the difference of unsigned counts would wrap around.
    errors = errors_a.astype(np.int64) - errors_b.astype(np.int64)
    words = int(reference_words.sum())
    ratios = _resampled_ratios(errors, reference_words, clusters, resamples, seed)
    return PairedDifference(
        difference=int(errors.sum()) / words if words else math.nan,
        standard_error=float(ratios.std(ddof=1)) if len(ratios) > 1 else math.nan,
        interval=_percentiles(ratios, clusters),
    )


def _resampled_ratios(
    errors: NDArray[np.integer],
    reference_words: NDArray[np.integer],
    clusters: Clusters,
    resamples: int,
    seed: int,
) -> NDArray[np.float64]:
    """Return sum(errors) / sum(words) of each bootstrap sample that has words, [resamples]."""
    count = clusters.count
    if not reference_words.any():
        return np.empty(0)
    sums = np.stack(
        [np.bincount(clusters.index, values, count) for values in (errors, reference_words)], axis=1
    )
    kept = resamples * count <= _MOST_KEPT_DRAWS
    draws = _kept_draws(count, resamples, seed) if kept else _draws(count, resamples, seed)
    resampled = np.concatenate([times @ sums for times in draws])
    resampled = resampled[resampled[:, 1] > 0]
    return np.asarray(resampled[:, 0] / resampled[:, 1])


def _draws(count: int, resamples: int, seed: int) -> Iterator[NDArray[np.unsignedinteger]]:
    """Yield how often each cluster is drawn, some bootstrap samples at once, [samples, count]."""
    generator = np.random.default_rng(seed)
    step = max(1, _CHUNK_DRAWS // count)
    for start in range(0, resamples, step):
        rows = min(step, resamples - start)
        # Counting draws is several times faster than Generator.multinomial, which takes a
        # binomial for each cell.
        draws = generator.integers(count, size=(rows, count))
        draws += np.arange(rows)[:, None] * count
        times = np.bincount(draws.ravel(), minlength=rows * count).reshape(rows, count)
        yield times.astype(np.min_scalar_type(count))


@lru_cache(maxsize=2)
def _kept_draws(count: int, resamples: int, seed: int) -> tuple[NDArray[np.unsignedinteger], ...]:
    """Return all of `_draws`: each comparison of the same utterances has the same."""
    return tuple(_draws(count, resamples, seed))


def _percentiles(ratios: NDArray[np.float64], clusters: Clusters) -> Interval:
    tail = (1 - LEVEL) / 2
    low, high = np.quantile(ratios, (tail, 1 - tail)) if len(ratios) else (math.nan, math.nan)
    return Interval(low=float(low), high=float(high), unit=clusters.unit, count=clusters.count)
