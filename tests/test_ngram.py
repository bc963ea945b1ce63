from __future__ import annotations

import itertools
from pathlib import Path

import pytest
from ngram import (
    LanguageModel,
    estimate,
    read_arpa,
    sentence_log10,
    word_log10,
    write_arpa,
)

from w2ltune.errors import InputError, UsageError

TEXT = [
    line.split()
    for line in (
        "turn on the light",
        "turn off the light",
        "turn on the big light in the hall",
        "play the next song",
        "play the song again",
        "stop",
        "stop the song",
        "",
    )
]
WORDS = sorted({word for sentence in TEXT for word in sentence})


def vocabulary_sum(model: LanguageModel, history: tuple[str, ...]) -> float:
    words = [word for (word,) in model.probabilities_log10[0] if word != "<s>"]
    return sum(10 ** word_log10(model, word, history) for word in words)


def histories(order: int) -> list[tuple[str, ...]]:
    """Every history of words, seen or not, with and without the start of a sentence."""
    inner = itertools.chain.from_iterable(
        itertools.product([*WORDS, "<unk>"], repeat=length) for length in range(order)
    )
    return [history for words in inner for history in (words, ("<s>", *words))]


@pytest.mark.parametrize("minimum_count", [1, 2])
@pytest.mark.parametrize("order", [1, 2, 3])
def test_probabilities_sum_to_one_after_every_history(order, minimum_count):
    model = estimate(TEXT, order=order, vocabulary=["unheard"], minimum_count=minimum_count)
    assert model.order == order
    for history in histories(order):
        assert vocabulary_sum(model, history) == pytest.approx(1, abs=1e-9)


def test_kneser_ney_by_hand():
    # Bigrams: "a b" twice, "a c", "<s> a" three times, "b </s>" twice, "c </s>" once.
    model = estimate([["a", "b"], ["a", "b"], ["a", "c"]], order=2)
    bigram_discount = 2 / (2 + 2 * 2)
    # Left neighbours: a 1 (<s>), b 1, c 1, </s> 2; the vocabulary is a, b, c, </s>, <unk>.
    unigram_discount = 3 / (3 + 2 * 1)
    b = (1 - unigram_discount) / 5 + (4 * unigram_discount / 5) / 5
    expected = (2 - bigram_discount) / 3 + (2 * bigram_discount / 3) * b
    assert 10 ** word_log10(model, "b", ["a"]) == pytest.approx(expected)


def test_kneser_ney_prefers_words_with_many_neighbours():
    # "york" is as frequent as "tea", but only ever follows "new".
    model = estimate(
        [["new", "york"]] * 3 + [["hot", "tea"], ["green", "tea"], ["my", "tea"]], order=2
    )
    assert word_log10(model, "tea", ["play"]) > word_log10(model, "york", ["play"])


def test_unseen_words():
    model = estimate(TEXT, vocabulary=["unheard"])
    assert word_log10(model, "unheard", []) == word_log10(model, "<unk>", [])
    assert word_log10(model, "not in it", ["turn"]) == word_log10(model, "<unk>", ["turn"])


def test_arpa_round_trip(tmp_path):
    model = estimate(TEXT, minimum_count=2)
    path = tmp_path / "lm.arpa"
    write_arpa(path, model)
    again = read_arpa(path)
    for order, ngrams in enumerate(model.probabilities_log10):
        assert again.probabilities_log10[order] == pytest.approx(ngrams, rel=1e-4)
    for order, backoffs in enumerate(model.backoffs_log10):
        assert again.backoffs_log10[order] == pytest.approx(backoffs, rel=1e-4)
    write_arpa(tmp_path / "again.arpa", again)
    assert (tmp_path / "again.arpa").read_text() == path.read_text()


@pytest.mark.parametrize("minimum_count", [1, 2])
@pytest.mark.parametrize("order", [2, 3, 4])
def test_kenlm_reads_the_same_scores(tmp_path, order, minimum_count):
    kenlm = pytest.importorskip("flashlight.lib.text.decoder.kenlm")
    dictionary = pytest.importorskip("flashlight.lib.text.dictionary")
    path = tmp_path / "lm.arpa"
    write_arpa(path, estimate(TEXT, order=order, minimum_count=minimum_count))
    model = read_arpa(path)
    words = dictionary.Dictionary([*WORDS, "<unk>"])
    lm = kenlm.KenLM(str(path), words)
    sentences = [*TEXT, ["song", "turn", "turn"], ["the", "<unk>", "light"], ["big", "stop", "on"]]
    for sentence in sentences:
        state, total = lm.start(False), 0.0
        for position, word in enumerate(sentence):
            state, score = lm.score(state, words.get_index(word))
            total += score
            history = ("<s>", *sentence[:position])
            assert score == pytest.approx(word_log10(model, word, history), abs=1e-5)
        _, score = lm.finish(state)
        assert total + score == pytest.approx(sentence_log10(model, sentence), abs=1e-4)


@pytest.mark.parametrize(
    ("sentences", "order", "message"),
    [
        ([], 3, "empty"),
        ([["a", "<s>"]], 3, "'<s>' is reserved"),
        ([["a"]], 0, "order 0"),
    ],
)
def test_refused_texts(sentences, order, message):
    with pytest.raises(UsageError, match=message):
        estimate(sentences, order=order)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "holds {}"),
        ("no arpa\n", "holds {}"),
        ("\\data\\\nngram 1=1\n\n\\1-grams:\n-1 a b c\n\\end\\\n", ":5: '-1 a b c' is no line"),
        ("\\data\\\nngram 1=1\n\n\\1-grams:\nx a\n\\end\\\n", ":5: 'x a' is no line"),
        ("\\data\\\nngram 1=2\n\n\\1-grams:\n-1 a\n", "but holds"),
        ("\\data\\\nngram 2=1\n\n\\2-grams:\n-1 a b\n\\end\\\n", "but holds"),
    ],
)
def test_refused_arpa_files(tmp_path: Path, text, message):
    path = tmp_path / "lm.arpa"
    path.write_text(text)
    with pytest.raises(InputError) as error:
        read_arpa(path)
    assert message in str(error.value)
    assert str(path) in str(error.value)


def test_missing_arpa_file(tmp_path):
    with pytest.raises(InputError, match=r"language model: no such file"):
        read_arpa(tmp_path / "none.arpa")
