"""Which weights are the answer of rescoring: the middle of the plateau, unless it is worse."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from w2ltune.runs.outcome import Comparison
from w2ltune.runs.rescored import ByK, Candidate, Rating
from w2ltune.scoring.nbest import cut
from w2ltune.scoring.significance import bootstrap_interval, paired_difference
from w2ltune.scoring.weighing import RescoreList
from w2ltune.search.choice import compare_errors

NONE = "no rescoring"
MIDDLE = "middle of the plateau"
FEWEST = "fewest errors found"


@dataclass(frozen=True, kw_only=True, eq=False)
class Weighted:
    """Weights with what they choose of the list that is tuned on.

    Attributes:
        name: What they are.
        vector: float64 [columns], that of the acoustic model first.
        k: How many hypotheses of each utterance take part.
        errors: int32 [utterances].
    """

    name: str
    vector: npt.NDArray[np.float64]
    k: int
    errors: npt.NDArray[np.int32]

    @property
    def total(self) -> int:
        """All errors."""
        return int(self.errors.sum(dtype=np.int64))


def weighted(of: RescoreList, name: str, vector: npt.NDArray[np.float64], k: int) -> Weighted:
    """Return weights with what they choose of a list."""
    return Weighted(name=name, vector=vector, k=k, errors=of.errors(of.chosen(vector, k)))


def choose(
    of: RescoreList,
    *,
    none: Weighted,
    fewest: Weighted,
    middles: Sequence[Weighted],
    height: float,
) -> tuple[Weighted, str]:
    """Return the answer, and the rule in words.

    Args:
        of: The list that is tuned on.
        none: The decoder's own best hypotheses.
        fewest: The weights with the fewest errors found.
        middles: Those in the middle of the plateau, for each k, that of all hypotheses last. As k
            is tuned on the same list, fewer hypotheses must be better by more than a standard
            error of the paired difference.
        height: The errors on the plateau, on average. The fewest found are a spike of chance, and
            no measure for its middle; this is.
    """
    chosen = middles[-1]
    for other in middles[:-1]:
        if other.total < chosen.total:
            difference, error = _difference(of, other.errors, middles[-1].errors)
            chosen = other if difference < -error else chosen
    why = MIDDLE
    if middles[-1].total > height and chosen.total > fewest.total:
        chosen, why = fewest, "fewest errors found, as between valleys there is no plateau"
    if chosen.total >= none.total:
        return none, "no weights are better on this list"
    return chosen, why


def _difference(
    of: RescoreList, a: npt.NDArray[np.int32], b: npt.NDArray[np.int32]
) -> tuple[float, float]:
    found = paired_difference(a, b, of.nbest.reference_words, of.clusters)
    return found.difference, 0.0 if math.isnan(found.standard_error) else found.standard_error


def rate_candidates(
    dev: RescoreList,
    test: RescoreList | None,
    answer: Weighted,
    others: Sequence[Weighted],
    names: Sequence[str],
) -> tuple[Candidate, ...]:
    """Return the answer and what it is compared with, on both lists.

    Args:
        dev: The list that was tuned on.
        test: The other one.
        answer: The answer.
        others: What it is compared with; no rescoring among them.
        names: Of the weights, without that of the acoustic model.
    """
    rows = [answer, *others]
    on_dev = _ratings(dev, rows)
    on_test = [None] * len(rows) if test is None else _ratings(test, rows)
    found = [
        Candidate(
            name=row.name,
            weights=dict(zip(names, row.vector[1:].tolist(), strict=True)),
            k=row.k,
            dev=of_dev,
            test=of_test,
        )
        for row, of_dev, of_test in zip(rows, on_dev, on_test, strict=True)
    ]
    where = dev if test is None else test
    ours = where.errors(where.chosen(answer.vector, answer.k))
    for number, row in enumerate(others, start=1):
        theirs = where.errors(where.chosen(row.vector, row.k))
        found[number] = replace(found[number], chosen_against=_compare(where, ours, theirs))
    return tuple(found)


def _compare(
    of: RescoreList, ours: npt.NDArray[np.int32], theirs: npt.NDArray[np.int32]
) -> Comparison:
    return compare_errors(ours, theirs, of.nbest.reference_words, of.clusters)


def _ratings(of: RescoreList, rows: Sequence[Weighted]) -> list[Rating]:
    chosen = [of.chosen(row.vector, row.k) for row in rows]
    none = of.errors(of.chosen(rows[0].vector, 1))
    return [
        rate(of, picked, None if row.k == 1 else none)
        for row, picked in zip(rows, chosen, strict=True)
    ]


def rate(
    of: RescoreList, chosen: npt.NDArray[np.intp], none: npt.NDArray[np.int32] | None
) -> Rating:
    """Return what chosen rows come to.

    Args:
        of: The list.
        chosen: int [utterances].
        none: int32 [utterances], errors of the decoder's own; None where these are rated.
    """
    errors, total = of.errors(chosen), of.counts(chosen).sum(axis=0, dtype=np.int64).tolist()
    found = bootstrap_interval(errors, of.nbest.reference_words, of.clusters)
    return Rating(
        counts=(total[0], total[1], total[2], total[3]),
        interval=found.ends,
        unit=found.drawn,
        against_none=None if none is None else _compare(of, errors, none),
    )


def by_k(
    dev: RescoreList, test: RescoreList | None, vector: npt.NDArray[np.float64], ks: Sequence[int]
) -> Iterator[ByK]:
    """Yield what weights come to with the k best hypotheses of the decoder.

    Args:
        dev: The list that was tuned on.
        test: The other one.
        vector: float64 [columns].
        ks: Rising.
    """
    for k in ks:
        yield ByK(
            k=k,
            rate=_rate(dev, vector, k),
            oracle=oracle_rate(dev, k),
            test_rate=None if test is None else _rate(test, vector, k),
        )


def _rate(of: RescoreList, vector: npt.NDArray[np.float64], k: int) -> float:
    return _part(int(of.errors(of.chosen(vector, k)).sum(dtype=np.int64)), of)


def oracle_rate(of: RescoreList, k: int | None = None) -> float:
    """Return the rate of the best hypotheses, of all or of the decoder's k best."""
    nbest = of.nbest if k is None else cut(of.nbest, k)
    return _part(int(np.minimum.reduceat(nbest.errors, nbest.offsets[:-1]).sum(dtype=np.int64)), of)


def _part(errors: int, of: RescoreList) -> float:
    words = int(of.nbest.reference_words.sum(dtype=np.int64))
    return errors / words if words else float("nan")
