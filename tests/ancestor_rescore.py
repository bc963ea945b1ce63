"""The arithmetic of the ancestor's rescore.py, in its own plain way: dicts and loops.

For each utterance the hypotheses are sorted by the decoder's score; for each k the best of the
first k by ``am + w_tr * tr + w_convlm * convlm + w_len * (words + letters)`` is chosen, the first
of equals; its WER, a percentage, times the length of the reference counts. The oracle is computed
again with each weights, as it was there.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TypedDict

SMALL_KS = (*range(2, 11), 15, 20, 30, 40, 50, 75, 100, 200, 250)


class Entry(TypedDict):
    """A line of a beam dump with the scores of the LMs."""

    decoder_score: float
    am_score: float
    tr_score: float
    convlm_score: float
    wer: float  # in per cent
    length: int  # words and letters


def topk_errors(
    dump: Mapping[str, Sequence[Entry]],
    reference_length: Mapping[str, int],
    weights: Mapping[str, float],
    ks: Sequence[int] = SMALL_KS,
) -> tuple[list[int], int]:
    """Return the errors at each k for the weights tr, convlm and len, and those of the oracle."""
    totals = dict.fromkeys(ks, 0.0)
    oracle = 0.0
    for name, entries in dump.items():
        scored = []
        for entry in sorted(entries, key=lambda entry: -entry["decoder_score"]):
            score = (
                entry["am_score"]
                + weights["tr"] * entry["tr_score"]
                + weights["convlm"] * entry["convlm_score"]
                + weights["len"] * entry["length"]
            )
            scored.append((score, entry["wer"]))
        oracle += min(wer for _, wer in scored) * reference_length[name] / 100
        for k in ks:
            _, wer = max(scored[:k], key=lambda pair: pair[0])
            totals[k] += wer * reference_length[name] / 100
    return [round(totals[k]) for k in ks], round(oracle)
