import unicodedata

import pytest

from w2ltune.formats.spelling import speller, why_unlike

WORDS = ["été", "größe", "yes"]
NFD = [unicodedata.normalize("NFD", word) for word in WORDS]


@pytest.mark.parametrize(
    ("words", "known", "why"),
    [
        (["YES", "No"], ["yes", "no"], "they differ in the case of the letters"),
        (["YES", "maybe"], ["yes", "no"], "1 of them differ in the case of the letters"),
        (NFD[:2], WORDS, "they are decomposed (NFD), the known ones composed (NFC)"),
        (WORDS[:2], NFD, "they are composed (NFC), the known ones decomposed (NFD)"),
        (
            [WORDS[0], NFD[1]],
            [NFD[0], WORDS[1]],
            "they are composed of other characters (NFC and NFD)",
        ),
        (
            [word.upper() for word in NFD[:2]],
            WORDS,
            "they differ in the case of the letters and in how these are composed (NFC and NFD)",
        ),
        (["10\u00a0000"], ["10", "000"], "they differ in characters that are not seen"),
        (["10\u202f000"], ["10\u00a0000"], "they differ in characters that are not seen"),
        (["\ufeffyes"], ["yes"], "they differ in characters that are not seen"),
        (["é"], ["e", "\u0301"], "they are composed (NFC), the known ones their parts (NFD)"),
        (["maybe"], ["yes", "no"], ""),
        (["maybe"], [], ""),
        ([], ["yes"], ""),
    ],
)
def test_why_words_are_not_the_known_ones(words, known, why):
    found = why_unlike(words, known)
    assert found.startswith(why)
    assert bool(found) == bool(why)


@pytest.mark.parametrize("word", [WORDS[0], NFD[0]])
def test_a_word_is_spelled_in_the_form_of_the_tokens(word):
    assert speller([*"éte|"])(word) == ["é", "t", "é", "|"]
    assert speller([*"te\u0301|"])(word) == ["e", "\u0301", "t", "e", "\u0301", "|"]
    assert speller(["▁é", "té"])(word) == ["▁é", "té"]
    assert speller([*"te|"])(word) is None
