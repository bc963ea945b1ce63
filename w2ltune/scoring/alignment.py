"""Which reference unit became which hypothesis unit, for people to read."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, NamedTuple, TypeAlias

from rapidfuzz.distance import Levenshtein

Kind: TypeAlias = Literal["correct", "substitution", "deletion", "insertion"]

_KINDS: dict[str, Kind] = {
    "equal": "correct",
    "replace": "substitution",
    "delete": "deletion",
    "insert": "insertion",
}


class AlignedUnit(NamedTuple):
    """One column of an alignment.

    Attributes:
        kind: What happened.
        reference: The unit spoken (a word, or a character); "" for an insertion.
        hypothesis: The unit recognised; "" for a deletion.
    """

    kind: Kind
    reference: str
    hypothesis: str


def align(reference: Sequence[str], hypothesis: Sequence[str]) -> list[AlignedUnit]:
    """Return the least-edits alignment that :func:`w2ltune.scoring.wer.count_errors` counts.

    Args:
        reference: The units spoken (see :func:`w2ltune.scoring.text.split_units`).
        hypothesis: The units recognised.

    Example:
        >>> [tuple(unit) for unit in align(["the", "cat"], ["the", "mat"])]
        [('correct', 'the', 'the'), ('substitution', 'cat', 'mat')]
    """
    units: list[AlignedUnit] = []
    for code in Levenshtein.opcodes(reference, hypothesis):
        # A block is as long in both sequences, or is empty in one of them.
        for step in range(max(code.src_end - code.src_start, code.dest_end - code.dest_start)):
            units.append(
                AlignedUnit(
                    kind=_KINDS[code.tag],
                    reference="" if code.tag == "insert" else reference[code.src_start + step],
                    hypothesis="" if code.tag == "delete" else hypothesis[code.dest_start + step],
                )
            )
    return units
