from __future__ import annotations

import math
import random
import re
from pathlib import Path

import jiwer
import numpy as np
import pytest

from w2ltune.formats.beamdump import iterate_numbered
from w2ltune.scoring.wer import ErrorCounts, count_errors, count_list, count_matrix, total

WEAK = Path(__file__).parents[1] / "data" / "weak"


def transcripts(path: Path) -> dict[str, list[str]]:
    """Read `words (id)` lines as the decoder writes them with --sclite."""
    found = {}
    for line in path.read_text().splitlines():
        match = re.fullmatch(r"(.*) \((\S+)\)", line)
        assert match
        found[match.group(2)] = match.group(1).split()
    return found


def counts(substitutions: int, deletions: int, insertions: int, length: int) -> ErrorCounts:
    return ErrorCounts(
        substitutions=substitutions,
        deletions=deletions,
        insertions=insertions,
        reference_words=length,
    )


@pytest.mark.parametrize(
    ("reference", "hypothesis", "expected"),
    [
        ("a b c", "a b c", counts(0, 0, 0, 3)),
        ("a b c", "a x c", counts(1, 0, 0, 3)),
        ("a b c", "a c", counts(0, 1, 0, 3)),
        ("a b c", "a b b c", counts(0, 0, 1, 3)),
        ("a b c", "", counts(0, 3, 0, 3)),
        ("", "a b", counts(0, 0, 2, 0)),
        ("", "", counts(0, 0, 0, 0)),
        ("a b c d", "x a b d", counts(0, 1, 1, 4)),
        ("aa", "a a", counts(1, 0, 1, 1)),  # a word is one unit, whatever its letters
    ],
)
def test_counts(reference: str, hypothesis: str, expected: ErrorCounts) -> None:
    assert count_errors(reference.split(), hypothesis.split()) == expected


def test_any_units_are_counted() -> None:
    assert count_errors(["a b", " "], ["a b", "", " "]) == counts(0, 0, 1, 2)
    assert count_errors(("h", "é"), ["h", "e"]) == counts(1, 0, 0, 2)


def test_arithmetic_of_counts() -> None:
    both = counts(1, 2, 3, 10) + counts(1, 0, 0, 4)
    assert both == counts(2, 2, 3, 14)
    assert (both.errors, both.wer) == (7, 0.5)
    assert ErrorCounts.zero() + both == both
    assert math.isnan(ErrorCounts.zero().wer)
    assert math.isnan(counts(0, 0, 3, 0).wer)


def test_the_binary_counts_the_same() -> None:
    found = count_list(transcripts(WEAK / "decode.ref"), transcripts(WEAK / "decode.hyp"))
    assert found.missing == ()
    assert f"{100 * total(found.matrix).wer:.4f}" == "63.4146"  # of its log


def test_the_binary_counts_the_same_for_each_hypothesis() -> None:
    references = transcripts(WEAK / "decode.ref")
    for row in iterate_numbered(WEAK / "beamdump.hyp"):
        ours = count_errors(references[row.id], row.hypothesis.words).wer
        assert ours == pytest.approx(row.hypothesis.wer, abs=1e-8)


def test_jiwer_counts_the_same() -> None:
    draw = random.Random(1)
    texts = [
        [" ".join(draw.choices("abcde", k=draw.randint(1, 12))) for _ in range(300)]
        for _ in range(2)
    ]
    theirs = jiwer.process_words(texts[0], texts[1])
    ours = total(count_matrix(*([text.split() for text in side] for side in texts)))
    assert ours.errors == theirs.substitutions + theirs.deletions + theirs.insertions
    assert (ours.substitutions, ours.deletions, ours.insertions) == (
        theirs.substitutions,
        theirs.deletions,
        theirs.insertions,
    )


def test_the_matrix_of_a_list() -> None:
    matrix = count_matrix([["a", "b"], [], ["c"]], [["a"], ["x"], ["c"]])
    assert matrix.dtype == np.int32
    assert matrix.tolist() == [[0, 1, 0, 2], [0, 0, 1, 0], [0, 0, 0, 1]]
    assert total(matrix) == counts(0, 1, 1, 3)
    assert count_matrix([], []).shape == (0, 4)
    assert total(count_matrix([], [])) == ErrorCounts.zero()
    with pytest.raises(ValueError, match="argument 2 is longer"):
        count_matrix([["a"]], [["a"], ["b"]])


def test_a_total_does_not_overflow() -> None:
    assert total(np.full((3, 4), 2**30, np.int32)).reference_words == 3 * 2**30


def test_a_missing_hypothesis_is_all_deletions() -> None:
    found = count_list({"u1": ["a", "b"], "u2": ["c"], "u3": []}, {"zz": ["q"], "u2": ["c"]})
    assert found.ids == ("u1", "u2", "u3")
    assert found.missing == ("u1", "u3")
    assert found.matrix.tolist() == [[0, 2, 0, 2], [0, 0, 0, 1], [0, 0, 0, 0]]
