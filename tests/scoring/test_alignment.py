import random

import jiwer
import pytest

from w2ltune.scoring.alignment import align
from w2ltune.scoring.wer import count_errors

MARKS = {"correct": "C", "substitution": "S", "deletion": "D", "insertion": "I"}


@pytest.mark.parametrize(
    ("reference", "hypothesis", "marks"),
    [
        ("the cat sat", "the cat sat", "CCC"),
        ("the cat sat", "the mat sat", "CSC"),
        ("the cat sat", "the sat", "CDC"),
        ("the sat", "the cat sat", "CIC"),
        ("the cat", "", "DD"),
        ("", "the cat", "II"),
        ("", "", ""),
        ("a b c d", "x y c", "SSCD"),
        ("日 本", "日 本 語", "CCI"),
    ],
)
def test_kinds(reference, hypothesis, marks):
    units = align(reference.split(), hypothesis.split())
    assert "".join(MARKS[unit.kind] for unit in units) == marks


def test_units_of_a_wrong_place_are_empty():
    assert [tuple(unit) for unit in align(list("abc"), list("xbcd"))] == [
        ("substitution", "a", "x"),
        ("correct", "b", "b"),
        ("correct", "c", "c"),
        ("insertion", "", "d"),
    ]
    assert tuple(*align(["a b"], [])) == ("deletion", "a b", "")  # a unit may hold a blank


def test_as_many_errors_as_are_counted():
    draw = random.Random(3)
    for _ in range(300):
        reference, hypothesis = (
            [draw.choice("abc") for _ in range(draw.randrange(9))] for _ in range(2)
        )
        units = align(reference, hypothesis)
        assert [unit.reference for unit in units if unit.reference] == reference
        assert [unit.hypothesis for unit in units if unit.hypothesis] == hypothesis
        kinds = [unit.kind for unit in units]
        counts = count_errors(reference, hypothesis)
        assert kinds.count("substitution") == counts.substitutions
        assert kinds.count("deletion") == counts.deletions
        assert kinds.count("insertion") == counts.insertions
        if reference and hypothesis:
            words = jiwer.process_words(" ".join(reference), " ".join(hypothesis))
            assert kinds.count("correct") == words.hits
