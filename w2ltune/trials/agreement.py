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
        differences: Utterances that differ.
        example: The first of them, in words; "" without one.
        largest: Largest difference of a score.
    """

    utterances: int
    settings: int
    hypotheses: int
    differences: int
    example: str
    largest: float

    def __str__(self) -> str:
        where = f" at {self.settings} settings" if self.settings > 1 else ""
        if self.differences:
            of = f"{self.differences} of {self.utterances} utterances{where}"
            return f"{of} differ: {self.example}"
        return (
            f"{self.utterances} utterances{where} with {self.hypotheses} hypotheses, same words, "
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
    compared, hypotheses, differences, example, largest = 0, 0, 0, "", 0.0
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
            largest = max([largest, *(_apart(*pair) for pair in zip(own, other, strict=False))])
            problem = _difference(own, other)
            if problem:
                differences += 1
                example = example or f"{dataset.ids[index]}: {problem}"
    return Agreement(
        utterances=compared,
        settings=len(settings),
        hypotheses=hypotheses,
        differences=differences,
        example=example,
        largest=largest,
    )


def _difference(own: list[Hypothesis], other: list[Hypothesis]) -> str:
    """Return how two n-best lists differ, or ""; of equal scores the search takes any first."""
    if not own or not other:
        return "" if own == other else f"{len(own)} hypotheses, the binary {len(other)}"
    theirs = other[0]
    near = PRINTED + RELATIVE * abs(theirs.score)
    twin = next((entry for entry in own if entry.words == theirs.words), None)
    if twin is None or own[0].score - twin.score > near:
        return f"{' '.join(own[0].words)!r}, the binary {' '.join(theirs.words)!r}"
    if _apart(twin, theirs) > near:
        return f"scores {_scores(twin)}, the binary {_scores(theirs)}"
    return ""


def _scores(entry: Hypothesis) -> str:
    return f"{entry.score:.6f} (AM {entry.am_score:.6f}, LM {entry.lm_score:.6f})"


def _apart(one: Hypothesis, two: Hypothesis) -> float:
    parts = ((one.score, two.score), (one.am_score, two.am_score), (one.lm_score, two.lm_score))
    return max(abs(a - b) for a, b in parts) if one.words == two.words else 0.0
