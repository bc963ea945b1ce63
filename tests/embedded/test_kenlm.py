"""Sentence scores of KenLM, held against the back-off computation on the ARPA file."""

from __future__ import annotations

import math
import random
from pathlib import Path

import numpy as np
import pytest
from conftest import REPOSITORY, VOICE_COMMANDS

from w2ltune.embedded.kenlm import SentenceLM
from w2ltune.embedded.ngram import estimate, read_arpa, sentence_log10, write_arpa
from w2ltune.errors import InputError


def random_sentences(words: list[str], count: int, seed: int) -> list[list[str]]:
    choose = random.Random(seed)
    return [choose.choices(words, k=choose.randrange(9)) for _ in range(count)]


@pytest.mark.parametrize("order", [2, 3, 4])
def test_scores_are_those_of_the_arpa_file(tmp_path: Path, order: int) -> None:
    words = ["yes", "no", "maybe", "grün", "日本", "'tis"]
    path = tmp_path / "an lm;'.arpa"
    write_arpa(path, estimate([*random_sentences(words, 60, seed=1), words], order=order))
    arpa = read_arpa(path)
    sentences = [*random_sentences([*words, "never", "seen"], 200, seed=2), [], ["never"]]
    found = SentenceLM(path, [w for s in sentences for w in s]).score(sentences)
    expected = [sentence_log10(arpa, sentence) * math.log(10) for sentence in sentences]
    assert found[:, 0] == pytest.approx(expected, abs=1e-4)
    unknown = [sum(word in ("never", "seen") for word in sentence) for sentence in sentences]
    assert found[:, 1].tolist() == unknown
    assert found[:, 2].tolist() == [len(sentence) for sentence in sentences]


def test_a_sentence_has_its_score_in_whatever_company() -> None:
    arpa = VOICE_COMMANDS / "lm.arpa"
    words = [ngram[0] for ngram in read_arpa(arpa).probabilities_log10[0] if "<" not in ngram[0]]
    sentences = random_sentences(words[:8], 300, seed=3)
    together = SentenceLM(arpa, words).score(sentences)
    alone = [SentenceLM(arpa, s).score([s])[0] for s in sentences[:5]]
    assert np.array_equal(together[:5], alone)
    order = random.Random(4).sample(range(300), 300)
    shuffled = SentenceLM(arpa, words).score([sentences[n] for n in order])
    assert np.array_equal(shuffled, together[order])


def test_binary_and_arpa_agree() -> None:
    arpa, binary = VOICE_COMMANDS / "lm.arpa", REPOSITORY / "tests/data/voice_commands.klm"
    words = [ngram[0] for ngram in read_arpa(arpa).probabilities_log10[0] if "<" not in ngram[0]]
    sentences = random_sentences([*words[:20], "xyzzy"], 100, seed=5)
    both = [SentenceLM(path, [*words, "xyzzy"]).score(sentences) for path in (arpa, binary)]
    assert both[0] == pytest.approx(both[1], abs=1e-3)
    assert both[0][:, 1:].tolist() == both[1][:, 1:].tolist()


def test_a_cut_lm_is_named(tmp_path: Path) -> None:
    path = tmp_path / "cut.arpa"
    path.write_text((VOICE_COMMANDS / "lm.arpa").read_text()[:2000])
    with pytest.raises(InputError, match=r"cut\.arpa: the ARPA file has no"):
        SentenceLM(path, ["yes"])
