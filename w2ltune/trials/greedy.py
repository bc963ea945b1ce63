"""Greedy decoding: whether emissions tell anything of their references, and how much."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from w2ltune.embedded.beamsearch import Decoder
from w2ltune.formats.spelling import composed
from w2ltune.scoring.nearest import nearest_spelling
from w2ltune.scoring.text import Metric, split_units
from w2ltune.scoring.wer import count_matrix, total
from w2ltune.trials.dataset import Dataset, shuffled_order

MOST_UTTERANCES = 1000
MOST_SPELLED = 200
ABSURD_ERRORS = 0.8
LEAST_HEARD = 20
FREQUENT_BLANK, RARE_BLANK = 0.3, 0.1
"""Of the frames, at least and at most."""

_METRICS: tuple[Metric, ...] = ("wer", "cer")


@dataclass(frozen=True, kw_only=True)
class Finding:
    """One line about the inputs.

    Attributes:
        text: What was found.
        advice: What it means; "" when all is well.
        absurd: Whether a sweep would be wasted.
        value: The greedy error rate in the study's metric; None for other findings.
    """

    text: str
    advice: str = ""
    absurd: bool = False
    value: float | None = None

    def __str__(self) -> str:
        return f"{self.text}; {self.advice}" if self.advice else self.text


def decode_greedily(dataset: Dataset, decoder: Decoder) -> Finding:
    """Tell how many errors the best tokens make.

    They are held against the spellings of the words in the lexicon, and read as words where they
    are letters or pieces of words.
    """
    sample = shuffled_order(dataset.dev_count)[:MOST_UTTERANCES]
    tokens = [decoder.best_tokens(dataset.emission(index)) for index in sample]
    words, heard = _spelled(dataset, decoder, sample[:MOST_SPELLED], tokens)
    said = [nearest_spelling(*pair) for pair in zip(words, heard, strict=True)]
    rate = total(count_matrix(said, heard)).wer if said else math.nan
    by_token = f"token error rate {rate:.1%}{_part(len(said), dataset)}"
    if not _readable(dataset, decoder, sample):
        text = f"greedy (no LM): {by_token}, against the nearest spellings of the lexicon"
        found = Finding(text=text if said else "")
        return _judged(found, dataset, decoder, rate, words, heard)
    greedy = [" ".join(decoder.words_spelled(own)) for own in tokens]
    read = [
        (" ".join(dataset.utterances[index].reference).lower(), text.lower())
        for index, text in zip(sample, greedy, strict=True)
    ]
    in_words, in_letters = (
        [[split_units(pair[of], metric) for pair in read] for of in (0, 1)] for metric in _METRICS
    )
    wer, cer = (total(count_matrix(*units)).wer for units in (in_words, in_letters))
    text = f"greedy (no LM, no lexicon): WER {wer:.1%}, CER {cer:.1%}{_part(len(read), dataset)}"
    if any(len(token) > 1 for own in said for token in own):
        text += f", {by_token}"
    found = Finding(text=text, value=total(dataset.count(sample, greedy)).wer)
    if decoder.flags.uselexicon:
        return _judged(found, dataset, decoder, rate, words, heard)
    references, heard = in_letters
    return _judged(found, dataset, decoder, cer, [[[own]] for own in references], heard)


def _spelled(
    dataset: Dataset, decoder: Decoder, sample: Sequence[int], tokens: Sequence[list[str]]
) -> tuple[list[list[list[list[str]]]], list[list[str]]]:
    """Return the spellings of each word of references, and what is heard, without word separators.

    Words that are not in the lexicon and cannot be spelled by letters are left out, and references
    with many of them.
    """
    separator = decoder.flags.wordseparator

    def without_separators(spelling: Sequence[str]) -> list[str]:
        return [token for token in spelling if token != separator]

    spelled, heard = [], []
    for index, own in zip(sample, tokens, strict=False):
        reference = dataset.utterances[index].reference
        words = [
            [*map(without_separators, spellings)]
            for word in reference
            if (spellings := decoder.spellings(word) or _by_letters(word, decoder))
        ]
        if words and len(words) > 0.8 * len(reference):
            heard.append(without_separators(own))
            spelled.append(words)
    return spelled, heard


def _by_letters(word: str, decoder: Decoder) -> list[list[str]]:
    known = decoder.flags.uselexicon and {*word}.issubset(decoder.token_names)
    return [[*word]] if known else []


def _readable(dataset: Dataset, decoder: Decoder, sample: Sequence[int]) -> bool:
    """Whether the tokens of most words, written one after the other, are the words."""

    def alike(word: str) -> str:
        return composed(word).lower()

    words = {word for index in sample for word in dataset.utterances[index].reference}
    spelled = {word: spellings for word in words if (spellings := decoder.spellings(word))}
    read = [
        any(alike("".join(decoder.words_spelled(one))) == alike(word) for one in spellings)
        for word, spellings in spelled.items()
    ]
    return 2 * sum(read) >= len(read)


def _judged(
    found: Finding,
    dataset: Dataset,
    decoder: Decoder,
    rate: float,
    words: Sequence[Sequence[Sequence[Sequence[str]]]],
    heard: Sequence[Sequence[str]],
) -> Finding:
    """Refuse emissions that tell nothing of the references, which a weak model's do."""
    if not rate > ABSURD_ERRORS:
        return found
    if not any(heard):
        return replace(found, advice="the blank is the best token of every frame")
    if why := _other_blank(dataset, decoder):
        return replace(
            found, advice=f"these emissions do not spell the references: {why}", absurd=True
        )
    right, of = _right(words, heard)
    if of < LEAST_HEARD:
        return replace(found, advice=f"of {of} tokens, too few to tell whether they are right")
    # Backwards it is as many tokens of the same kinds, in an order that nobody meant.
    by_chance, _ = _right(words, [own[::-1] for own in heard])
    if right > of / 2 or right > max(1.2 * by_chance, by_chance + 3 * math.sqrt(by_chance)):
        return replace(found, advice="little of it is right, yet more than by chance")
    return replace(
        found,
        advice="these emissions do not spell the references, no more of it is right than by "
        "chance: the token list has another order, or the list belongs to other emissions",
        absurd=True,
    )


def _other_blank(dataset: Dataset, decoder: Decoder) -> str:
    """Return which column is the best one as often as a blank is, while the last one is not."""
    if decoder.flags.criterion != "ctc":
        return ""
    best = np.zeros(decoder.token_count, np.int64)
    for index in shuffled_order(dataset.dev_count)[:MOST_SPELLED]:
        best += np.bincount(dataset.emission(index).argmax(axis=1), minlength=len(best))
    shares, most = best / max(1, best.sum()), int(best.argmax())
    if shares[-1] > RARE_BLANK or shares[most] < FREQUENT_BLANK:
        return ""
    return (
        f"column {most} ({decoder.columns[most]!r}) is the best in {shares[most]:.0%} of the "
        f"frames, the last one, which should be the blank, in {shares[-1]:.0%}"
    )


def _right(
    words: Sequence[Sequence[Sequence[Sequence[str]]]], heard: Sequence[Sequence[str]]
) -> tuple[int, int]:
    """Return how many of the units heard are right, and how many there are."""
    said = [nearest_spelling(*pair) for pair in zip(words, heard, strict=True)]
    errors = total(count_matrix(said, heard))
    right = errors.reference_words - errors.substitutions - errors.deletions
    return right, right + errors.substitutions + errors.insertions


def _part(count: int, dataset: Dataset) -> str:
    return "" if count == dataset.dev_count else f" on {count} of the utterances"
