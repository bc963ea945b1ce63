"""Sentence scores of KenLM, held against the back-off computation on the ARPA file."""

from __future__ import annotations

import gzip
import math
import random
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from conftest import REPOSITORY, VOICE_COMMANDS
from ngram import estimate, read_arpa, sentence_log10, write_arpa

from w2ltune.embedded.kenlm import SentenceLM, lm_words
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


def small_arpa(path: Path) -> str:
    """Write an LM in which "rare" has the score of an unknown word; return its text."""
    write_arpa(path, estimate([["yes", "no"], ["no", "yes", "yes"]], order=2, vocabulary=["rare"]))
    unigrams = read_arpa(path).probabilities_log10[0]
    assert unigrams["rare",] == unigrams["<unk>",]
    return path.read_text()


@pytest.mark.parametrize(
    "form",
    ["{}", "\n \n\n{}", "{}\n \n\n" + 70000 * " " + "\n", "# by hand\n{}"],
    ids=["as it is", "blanks before", "blanks behind", "a comment"],
)
@pytest.mark.parametrize("packed", [False, True])
def test_what_kenlm_loads_is_loaded(tmp_path: Path, form: str, packed: bool) -> None:
    path = tmp_path / "lm.arpa"
    text = form.format(small_arpa(path))
    plain = SentenceLM(path, ["yes", "no"]).score([["no", "yes"]])
    path.write_bytes(gzip.compress(text.encode()) if packed else text.encode())
    assert SentenceLM(path, ["yes", "no"]).score([["no", "yes"]]).tolist() == plain.tolist()
    assert lm_words(path) == {"<s>", "</s>", "yes", "no", "rare"}


def test_a_word_with_the_score_of_unknown_ones_is_not_unknown(tmp_path: Path) -> None:
    path = tmp_path / "lm.arpa"
    small_arpa(path)
    model = SentenceLM(path, ["yes", "rare", "never", "<unk>"])
    assert model.score([["yes", "rare", "never", "<unk>"]])[0, 1:].tolist() == [2, 4]


def test_the_words_of_a_binary_are_those_of_its_arpa_file(tmp_path: Path) -> None:
    binary = REPOSITORY / "tests/data/voice_commands.klm"
    arpa = read_arpa(VOICE_COMMANDS / "lm.arpa")
    words = {ngram[0] for ngram in arpa.probabilities_log10[0]} - {"<unk>"}
    assert lm_words(binary) == lm_words(VOICE_COMMANDS / "lm.arpa") == words
    without = tmp_path / "without.klm"
    content = bytearray(binary.read_bytes())
    content[100] = 0  # has_vocabulary
    without.write_bytes(content)
    assert lm_words(without) is None
    without.write_bytes(binary.read_bytes()[:-100])
    assert lm_words(without) is None


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t: "iARPA\n" + t, r"'iARPA' stands where an ARPA file begins with \\data\\"),
        (lambda t: "\ufeff" + t, r"stands where an ARPA file begins with \\data\\"),
        (lambda t: t + "more\n", r"lines stand behind \\end\\"),
        (lambda t: t[: len(t) // 2], r"no \\end\\ line; it is cut short"),
        (lambda t: t.replace("ngram 2=", "ngram 2=1"), r"KenLM .*; it announces 1\d 2-grams, and"),
        (lambda t: t.replace("\tyes\t", " yes yes\t", 1), r"KenLM cannot load .*: [^;]*$"),
        (lambda t: t.replace("<s>", "<S>"), r"KenLM .*: The ARPA file is missing <s> and [^;]*$"),
    ],
)  # fmt: skip
def test_what_is_wrong_with_an_lm_is_what_kenlm_says(
    tmp_path: Path, change: Callable[[str], str], message: str
) -> None:
    path = tmp_path / "lm.arpa"
    path.write_text(change(small_arpa(path)))
    with pytest.raises(InputError, match=message) as caught:
        SentenceLM(path, ["yes"])
    assert "\n" not in str(caught.value)
    assert "lm/" not in str(caught.value)
    assert ("cut short" in str(caught.value)) == ("cut" in message)


def test_a_binary_that_kenlm_dies_of_costs_no_more_than_a_child(tmp_path: Path) -> None:
    whole = (REPOSITORY / "tests" / "data" / "voice_commands.klm").read_bytes()
    words = sorted(lm_words(REPOSITORY / "tests" / "data" / "voice_commands.klm") or ())
    damaged = tmp_path / "lm.bin"
    for begin in (3664, 7228):
        damaged.write_bytes(whole[:begin] + b"\xff" * 200 + whole[begin + 200 :])
        with pytest.raises(InputError, match=r"lm.bin: damaged: KenLM dies of it \(SIG\w+\)"):
            SentenceLM(damaged, words)
