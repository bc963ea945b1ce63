"""The decoder in process and the binary on the same utterances: do they give the same?"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from w2ltune.embedded.beamsearch import Decoder
from w2ltune.embedded.decoderflags import decoder_flags
from w2ltune.formats.beamdump import Hypothesis
from w2ltune.trials.binarydecoder import BinaryDecoder, refuse_ids
from w2ltune.trials.dataset import Dataset, DecodeProgram, shuffled_order

SAMPLE_UTTERANCES = 20
NBEST = 50
PRINTED = 2e-6
"""A dump has six decimals, of single precision."""

RELATIVE = 1e-5


@dataclass(frozen=True, kw_only=True)
class Agreement:
    """What a comparison found.

    Attributes:
        utterances: Compared.
        hypotheses: Compared.
        differences: Utterances that differ.
        example: The first of them, in words; "" without one.
        largest: Largest difference of a score.
    """

    utterances: int
    hypotheses: int
    differences: int
    example: str
    largest: float

    def __str__(self) -> str:
        if self.differences:
            return f"{self.differences} of {self.utterances} utterances differ: {self.example}"
        return (
            f"{self.utterances} utterances with {self.hypotheses} hypotheses, same words, scores "
            f"within {self.largest:.1g}"
        )


def compare(
    program: DecodeProgram,
    dataset: Dataset,
    flags: Mapping[str, str],
    scratch: Path,
    *,
    look: Callable[[], None] = lambda: None,
) -> Agreement:
    """Decode a sample of the dev lists with both.

    Args:
        program: The binary.
        dataset: The utterances.
        flags: One setting of all flags.
        scratch: A folder for lists and dumps.
        look: Called again and again; what it raises ends the comparison.

    Raises:
        TrialFailedError: The binary failed.
        InputError: It could not bear the list, or a file of the decoder is damaged.
    """
    refuse_ids(dataset)
    weights = decoder_flags(flags)
    decoder = Decoder(weights)
    block = shuffled_order(dataset.dev_count)[:SAMPLE_UTTERANCES]
    binary = BinaryDecoder(program, dataset, scratch, look=look)
    theirs, _ = binary.decode(flags, weights, block, nbest=NBEST)
    hypotheses, differences, example, largest = 0, 0, "", 0.0
    for index, other in zip(block, theirs, strict=True):
        look()
        own = decoder.decode(dataset.emission(index), weights, nbest=NBEST)
        hypotheses += len(other)
        largest = max([largest, *(_apart(*pair) for pair in zip(own, other, strict=False))])
        problem = _difference(own, other)
        if problem:
            differences += 1
            example = example or f"{dataset.ids[index]}: {problem}"
    return Agreement(
        utterances=len(block),
        hypotheses=hypotheses,
        differences=differences,
        example=example,
        largest=largest,
    )


def _difference(own: list[Hypothesis], other: list[Hypothesis]) -> str:
    """Return how two n-best lists differ, or ""."""
    best, theirs = (entries[0].words if entries else () for entries in (own, other))
    if best != theirs:
        return f"{' '.join(best)!r}, the binary {' '.join(theirs)!r}"
    for one, two in zip(own[:1], other[:1], strict=False):
        if _apart(one, two) > PRINTED + RELATIVE * abs(two.score):
            return f"score {one.score:.6f}, the binary {two.score:.6f}"
    return ""


def _apart(one: Hypothesis, two: Hypothesis) -> float:
    parts = ((one.score, two.score), (one.am_score, two.am_score), (one.lm_score, two.lm_score))
    return max(abs(a - b) for a, b in parts) if one.words == two.words else 0.0
