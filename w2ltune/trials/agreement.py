"""The decoder in process and the binary on the same utterances: do they give the same?"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from w2ltune.embedded.beamsearch import Decoder
from w2ltune.embedded.decoderflags import decoder_flags
from w2ltune.formats.beamdump import Hypothesis
from w2ltune.trials.binarydecoder import BinaryDecoder, refuse_ids
from w2ltune.trials.dataset import Dataset, DecodeProgram, shuffled_order

SAMPLE_UTTERANCES = 20
"""At each setting before the first trial."""

ANSWER_UTTERANCES = 100
"""At the answer."""

NBEST = 50
PRINTED = 2e-6
"""A dump has six decimals, of single precision."""

RELATIVE = 1e-5


@dataclass(frozen=True, kw_only=True)
class Agreement:
    """What a comparison found.

    Attributes:
        utterances: Compared, at all settings together.
        settings: Of weights and beam.
        hypotheses: Compared.
        ties: Utterances with other words of just the same score: the search takes any of them.
        differences: Utterances that differ.
        example: The first of them, in words; "" without one.
        largest: Largest difference of the best scores of utterances that do not differ.
    """

    utterances: int
    settings: int
    hypotheses: int
    ties: int
    differences: int
    example: str
    largest: float

    def __str__(self) -> str:
        where = f" at {self.settings} settings" if self.settings > 1 else ""
        if self.differences:
            of = f"{self.differences} of {self.utterances} utterances{where}"
            return f"{of} differ: {self.example}"
        same = f"same words (but for {self.ties} ties)" if self.ties else "same words"
        return (
            f"{self.utterances} utterances{where} with {self.hypotheses} hypotheses, {same}, "
            f"scores within {self.largest:.1g}"
        )


def compare(
    program: DecodeProgram,
    dataset: Dataset,
    settings: Sequence[Mapping[str, str]],
    scratch: Path,
    *,
    utterances: int = SAMPLE_UTTERANCES,
    look: Callable[[float], None] = lambda part: None,
) -> Agreement:
    """Decode samples of the dev lists with both.

    Args:
        program: The binary.
        dataset: The utterances.
        settings: All flags of each setting; each has other utterances, while there are some.
        scratch: A folder for lists and dumps.
        utterances: So many at each setting.
        look: Called again and again with the part that is done; what it raises ends the comparison.

    Raises:
        TrialFailedError: The binary failed.
        InputError: It could not bear the list, or a file of the decoder is damaged.
    """
    refuse_ids(dataset)
    order = shuffled_order(dataset.dev_count)
    utterances = min(utterances, len(order))
    compared, hypotheses, ties, differences, example, largest = 0, 0, 0, 0, "", 0.0
    decoder = None
    for number, flags in enumerate(settings):
        here = partial(look, number / len(settings))
        weights = decoder_flags(flags)
        if decoder is None or decoder.flags.loaded != weights.loaded:
            decoder = Decoder(weights)
        block = [order[(number * utterances + i) % len(order)] for i in range(utterances)]
        binary = BinaryDecoder(program, dataset, scratch, look=here)
        theirs, _ = binary.decode(flags, weights, block, nbest=NBEST)
        for index, other in zip(block, theirs, strict=True):
            here()
            own = decoder.decode(dataset.emission(index), weights, nbest=NBEST)
            compared += 1
            hypotheses += len(other)
            problem = _difference(own, other)
            if problem:
                differences += 1
                example = example or f"{dataset.ids[index]}: {problem}"
            elif own and other:
                ties += own[0].words != other[0].words
                largest = max(largest, abs(own[0].score - other[0].score))
    return Agreement(
        utterances=compared,
        settings=len(settings),
        hypotheses=hypotheses,
        ties=ties,
        differences=differences,
        example=example,
        largest=largest,
    )


def _difference(own: list[Hypothesis], other: list[Hypothesis]) -> str:
    """Return how the best of two n-best lists differ, or "".

    Of equal scores the search takes any first: the binary's best may be one of ours that ties.
    """
    if not own or not other:
        return "" if own == other else f"{len(own)} hypotheses, the binary {len(other)}"
    theirs = other[0]
    near = PRINTED + RELATIVE * abs(theirs.score)
    ties = (entry for entry in own if own[0].score - entry.score <= near)
    if any(entry.words == theirs.words and _apart(entry, theirs) <= near for entry in ties):
        return ""
    if own[0].words != theirs.words:
        return f"{' '.join(own[0].words)!r}, the binary {' '.join(theirs.words)!r}"
    return f"scores {_scores(own[0])}, the binary {_scores(theirs)}"


def _apart(one: Hypothesis, two: Hypothesis) -> float:
    parts = ((one.score, two.score), (one.am_score, two.am_score), (one.lm_score, two.lm_score))
    return max(abs(a - b) for a, b in parts)


def _scores(entry: Hypothesis) -> str:
    return f"{entry.score:.6f} (AM {entry.am_score:.6f}, LM {entry.lm_score:.6f})"
