"""Estimate small n-gram language models, and read and write them as ARPA files.

Interpolated Kneser-Ney smoothing with one discount per order (Chen and Goodman, "An empirical
study of smoothing techniques for language modeling", 1998). All in memory: made for texts of up
to about a million words; KenLM's ``lmplz`` is the tool for more.
"""

from __future__ import annotations

import math
import os
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from w2ltune.errors import InputError, UsageError, existing_file
from w2ltune.files import replacing
from w2ltune.formats.blanks import BLANKS, split_words

SENTENCE_START = "<s>"
SENTENCE_END = "</s>"
UNKNOWN = "<unk>"
NEVER_LOG10 = -99.0  # what ARPA files write for the probability of <s>

Ngram = tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class LanguageModel:
    """A back-off n-gram model.

    Attributes:
        probabilities_log10: For each order from 1, log10 of the last word's probability given
            the words before it.
        backoffs_log10: For each order below the highest, log10 of the weight of the shorter
            history when an n-gram with this history is absent; 0 where absent.
    """

    probabilities_log10: tuple[dict[Ngram, float], ...]
    backoffs_log10: tuple[dict[Ngram, float], ...]

    @property
    def order(self) -> int:
        """Length of the longest n-grams."""
        return len(self.probabilities_log10)


def estimate(
    sentences: Iterable[Sequence[str]],
    *,
    order: int = 3,
    vocabulary: Collection[str] = (),
    minimum_count: int = 1,
) -> LanguageModel:
    """Estimate an interpolated Kneser-Ney model.

    Args:
        sentences: The words of each sentence, without ``<s>`` and ``</s>``.
        order: Length of the longest n-grams, at least 1.
        vocabulary: Words that get a probability although the text may lack them.
        minimum_count: Leave out n-grams of the highest order that are rarer; the shorter
            histories get what they had, so that all still sums to 1.

    Returns:
        The model; its words are those of the text and the vocabulary, ``</s>`` and ``<unk>``.

    Raises:
        UsageError: The text is empty or holds a reserved word, or the order is below 1.

    Example:
        >>> model = estimate([["turn", "on"], ["turn", "off"]], order=2)
        >>> round(10 ** word_log10(model, "on", ["turn"]), 3)
        0.284
    """
    if order < 1:
        raise UsageError(f"order {order} of the language model is below 1; give 1 or more")
    counts = _counts(sentences, order)
    words = {ngram[0] for ngram in counts[0]} | set(vocabulary) | {SENTENCE_END, UNKNOWN}
    lower: dict[Ngram, float] = {(word,): 1 / len(words) for word in words}
    probabilities, backoffs = [], []
    for length, ngrams in enumerate(counts, start=1):
        discount = _discount(ngrams)
        totals: Counter[Ngram] = Counter()
        for ngram, count in ngrams.items():
            totals[ngram[:-1]] += count
        kept = {
            ngram: max(count - discount, 0) / totals[ngram[:-1]]
            for ngram, count in ngrams.items()
            if length < order or count >= minimum_count
        }
        # What the kept n-grams leave of a history's probability goes to the shorter history.
        left = dict.fromkeys(totals, 1.0)
        for ngram, share in kept.items():
            left[ngram[:-1]] -= share
        current = {
            ngram: share + left[ngram[:-1]] * lower[ngram[1:] if length > 1 else ngram]
            for ngram, share in kept.items()
        }
        if length == 1:
            current.update({ngram: left[()] * lower[ngram] for ngram in lower if ngram not in kept})
        else:
            backoffs.append({history: math.log10(share) for history, share in left.items()})
        probabilities.append({ngram: math.log10(value) for ngram, value in current.items()})
        lower = current
    probabilities[0][(SENTENCE_START,)] = NEVER_LOG10
    return LanguageModel(probabilities_log10=tuple(probabilities), backoffs_log10=tuple(backoffs))


def _counts(sentences: Iterable[Sequence[str]], order: int) -> list[Counter[Ngram]]:
    """Count occurrences at the highest order and different left neighbours below it."""
    counts: list[Counter[Ngram]] = [Counter() for _ in range(order)]
    for sentence in sentences:
        for word in sentence:
            if word in (SENTENCE_START, SENTENCE_END, UNKNOWN):
                raise UsageError(f"{word!r} is reserved and may not be in a sentence; remove it")
        words = (SENTENCE_START, *sentence, SENTENCE_END)
        for end in range(1, len(words)):
            for length in range(1, min(order, end + 1) + 1):
                counts[length - 1][words[end + 1 - length : end + 1]] += 1
    if not counts[0]:
        raise UsageError("the text for the language model is empty; give at least one sentence")
    for length in range(1, order):
        # Nothing stands to the left of <s>: such n-grams keep their occurrences.
        neighbours = Counter(ngram[1:] for ngram in counts[length])
        for ngram in counts[length - 1]:
            if ngram[0] != SENTENCE_START:
                counts[length - 1][ngram] = neighbours[ngram]
    return counts


def _discount(ngrams: Counter[Ngram]) -> float:
    """Return n1 / (n1 + 2 n2), kept inside (0, 1) for texts with no rare n-grams or only such."""
    frequency = Counter(ngrams.values())
    once, twice = frequency[1], frequency[2]
    return min(max(once / max(once + 2 * twice, 1), 0.1), 0.9)


def word_log10(model: LanguageModel, word: str, history: Sequence[str]) -> float:
    """Return log10 of a word's probability.

    Args:
        model: The language model.
        word: The word; ``</s>`` for the end of the sentence; one not in the model is ``<unk>``.
        history: The words before it, from ``<s>``; older ones than the model's order are unused.
    """
    unigrams = model.probabilities_log10[0]
    known = [name if (name,) in unigrams else UNKNOWN for name in (*history, word)]
    ngram = tuple(known[-model.order :])
    backoff = 0.0
    while ngram not in model.probabilities_log10[len(ngram) - 1]:
        backoff += model.backoffs_log10[len(ngram) - 2].get(ngram[:-1], 0.0)
        ngram = ngram[1:]
    return backoff + model.probabilities_log10[len(ngram) - 1][ngram]


def sentence_log10(model: LanguageModel, words: Sequence[str]) -> float:
    """Return log10 of the probability of a sentence, its end included."""
    text = [SENTENCE_START, *words, SENTENCE_END]
    return sum(word_log10(model, text[end], text[:end]) for end in range(1, len(text)))


def write_arpa(path: Path, model: LanguageModel) -> None:
    """Write a model as an ARPA file, in one step, n-grams sorted."""
    with replacing(path) as file:
        file.write("\\data\\\n")
        for length, ngrams in enumerate(model.probabilities_log10, start=1):
            file.write(f"ngram {length}={len(ngrams)}\n")
        for length, ngrams in enumerate(model.probabilities_log10, start=1):
            file.write(f"\n\\{length}-grams:\n")
            backoffs = model.backoffs_log10[length - 1] if length < model.order else {}
            for ngram in sorted(ngrams):
                row = f"{ngrams[ngram]:.5g}\t{' '.join(ngram)}"
                file.write(f"{row}\t{backoffs[ngram]:.5g}\n" if ngram in backoffs else f"{row}\n")
        file.write("\n\\end\\\n")


def read_arpa(path: str | os.PathLike[str]) -> LanguageModel:
    """Read an ARPA file.

    Raises:
        InputError: The file is missing, is no ARPA file, or holds other n-grams than it announces.
    """
    found = existing_file(path, "language model")
    announced: dict[int, int] = {}
    probabilities: defaultdict[int, dict[Ngram, float]] = defaultdict(dict)
    backoffs: defaultdict[int, dict[Ngram, float]] = defaultdict(dict)
    length = 0
    with found.open(encoding="utf-8", errors="replace") as file:
        for number, line in enumerate(file, start=1):
            text = line.strip(BLANKS)
            try:
                if text == "\\end\\":
                    break
                if text.startswith("ngram ") and not length:
                    announced[int(text[6:].split("=")[0])] = int(text.split("=")[1])
                elif text.startswith("\\") and text.endswith("-grams:"):
                    length = int(text[1:-7])
                elif length and text:
                    fields = split_words(text)
                    ngram = tuple(fields[1 : length + 1])
                    if len(fields) not in (length + 1, length + 2):
                        raise ValueError
                    probabilities[length][ngram] = float(fields[0])
                    if len(fields) == length + 2:
                        backoffs[length][ngram] = float(fields[-1])
            except (ValueError, IndexError):
                raise InputError(
                    f"{text[:60]!r} is no line of an ARPA file; expected "
                    f"'log10 probability, {length or 'n'} words, [log10 back-off]'",
                    path=found,
                    line=number,
                ) from None
    read = {length: len(ngrams) for length, ngrams in probabilities.items()}
    orders = range(1, max(read, default=0) + 1)
    if not read or read != announced or set(read) != set(orders):
        raise InputError(
            f"announces n-grams {announced or 'of no order'} but holds {read}: "
            "it is cut short, or put together by hand",
            path=found,
        )
    return LanguageModel(
        probabilities_log10=tuple(probabilities[order] for order in orders),
        backoffs_log10=tuple(backoffs[order] for order in orders[:-1]),
    )
