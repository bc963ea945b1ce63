"""Draw sentences from a grammar of phrases, as in ``grammar.txt``."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np

ITEM = re.compile(r"<(\w+)>|\[([^\]]*)\]|([a-z']+)")


@dataclass(frozen=True, kw_only=True)
class Grammar:
    """Rules with a probability for each of their phrases.

    Attributes:
        phrases: For each rule's name, its phrases as written.
        weights: For each rule's name, one probability per phrase.
    """

    phrases: dict[str, tuple[str, ...]]
    weights: dict[str, np.ndarray]


def read_grammar(path: Path, *, seed: int, spread: float) -> Grammar:
    """Read rules and give their phrases random weights.

    Args:
        path: Lines ``name = phrase | phrase``; ``#`` starts a comment line.
        seed: Of the weights. Two seeds make two speakers of the same language.
        spread: Standard deviation of the logarithm of a weight; 0 makes all phrases equal.
    """
    phrases = {}
    for line in path.read_text(encoding="utf-8").splitlines():
        if line.strip() and not line.startswith("#"):
            name, _, right = line.partition("=")
            phrases[name.strip()] = tuple(phrase.strip() for phrase in right.split("|"))
    random = np.random.default_rng(seed)
    weights = {}
    for name, choices in phrases.items():
        weight = np.exp(spread * random.standard_normal(len(choices)))
        weights[name] = weight / weight.sum()
    return Grammar(phrases=phrases, weights=weights)


def draw(grammar: Grammar, random: np.random.Generator, rule: str = "command") -> list[str]:
    """Draw the words of one sentence."""
    choice = random.choice(len(grammar.phrases[rule]), p=grammar.weights[rule])
    return expand(grammar, random, grammar.phrases[rule][choice])


def expand(grammar: Grammar, random: np.random.Generator, phrase: str) -> list[str]:
    """Replace the rules and options of a phrase by words."""
    words: list[str] = []
    for rule, option, word in ITEM.findall(phrase):
        if rule:
            words += draw(grammar, random, rule)
        elif option:
            words += expand(grammar, random, option) if random.random() < 0.5 else []
        else:
            words.append(word)
    return words


def vocabulary(grammar: Grammar) -> list[str]:
    """Return every word that the grammar can say, sorted."""
    text = " ".join(phrase for choices in grammar.phrases.values() for phrase in choices)
    text = re.sub(r"<\w+>|\[|\]", " ", text)
    return sorted(set(text.split()))
