"""Lexicons: words spelled by the tokens of a model, letters or word pieces."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

PIECE_BEGIN = "▁"
"""How SentencePiece marks a piece that begins a word."""


def spell(word: str, tokens: Iterable[str], *, separator: str = "|") -> list[str] | None:
    """Return the tokens of a word; None where they cannot spell it.

    With word pieces, that spelling has the fewest of them, and of several the one whose first
    pieces are longer, which is what SentencePiece mostly gives.

    Args:
        word: The word.
        tokens: Of the model.
        separator: Stands at the end of a word that is spelled by letters, where it is a token; a
            word with it inside cannot be spelled, as it would be two.

    Example:
        >>> spell("yes", ["|", "y", "e", "s"])
        ['y', 'e', 's', '|']
        >>> spell("yesterday", ["▁yes", "▁yesterday's", "ter", "day", "t", "er"])
        ['▁yes', 'ter', 'day']
        >>> spell("no", ["▁yes"])
    """
    known = frozenset(tokens)
    pieces = any(token.startswith(PIECE_BEGIN) for token in known)
    if not word or (pieces and PIECE_BEGIN in word):
        return None
    end = [] if pieces or separator not in known else [separator]
    spelled = _fewest(PIECE_BEGIN + word if pieces else word, known.difference(end))
    return [*spelled, *end] if spelled else None


def _fewest(text: str, known: frozenset[str]) -> list[str] | None:
    """Return the fewest tokens that make a text."""
    longest = max(map(len, known), default=0)
    best: list[Sequence[str] | None] = [None] * len(text) + [()]
    for begin in range(len(text) - 1, -1, -1):
        for end in range(min(len(text), begin + longest), begin, -1):  # the longest first
            rest = best[end]
            if rest is None or text[begin:end] not in known:
                continue
            found = best[begin]
            if found is None or len(rest) + 1 < len(found):
                best[begin] = (text[begin:end], *rest)
    return None if best[0] is None else list(best[0])
