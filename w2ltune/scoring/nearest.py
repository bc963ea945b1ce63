"""Of all ways to spell a reference, the one that is nearest to the tokens heard."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray


def nearest_spelling(words: Sequence[Sequence[Sequence[str]]], heard: Sequence[str]) -> list[str]:
    """Return the tokens of some words, spelled with the fewest errors against those heard.

    Args:
        words: The spellings of each word, one or more.
        heard: Tokens.

    Example:
        >>> nearest_spelling([[["dh", "ah"], ["dh", "iy"]], [["eh", "n", "d"]]], ["dh", "iy", "n"])
        ['dh', 'iy', 'eh', 'n', 'd']
    """
    if all(len(spellings) == 1 for spellings in words):
        return [token for spellings in words for token in spellings[0]]
    ids = {token: n for n, token in enumerate(dict.fromkeys(heard))}
    numbers = [[[ids.get(token, -1) for token in one] for one in spellings] for spellings in words]
    row = np.array([ids[token] for token in heard])
    nothing = np.arange(len(row) + 1)
    behind = [nothing]  # errors of the last words, whichever spellings are best for them
    for spellings in reversed(numbers):
        options = [_errors_with(behind[-1], one[::-1], row[::-1]) for one in spellings]
        behind.append(np.minimum.reduce(options))
    before, text = nothing, list[str]()
    for number, spellings in enumerate(numbers):
        options = [_errors_with(before, one, row) for one in spellings]
        after = behind[len(words) - number - 1][::-1]
        best = int(np.argmin([(errors + after).min() for errors in options]))
        before = options[best]
        text += words[number][best]
    return text


def _errors_with(
    errors: NDArray[np.int64], tokens: Sequence[int], heard: NDArray[np.int64]
) -> NDArray[np.int64]:
    """Return the least errors against each beginning of what was heard, with more tokens."""
    places = np.arange(len(errors))
    for token in tokens:
        deleted = errors + 1
        deleted[1:] = np.minimum(deleted[1:], errors[:-1] + (heard != token))
        errors = np.minimum.accumulate(deleted - places) + places
    return errors
