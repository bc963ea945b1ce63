"""Lexicons: words spelled by the tokens of a model, letters or word pieces."""

from __future__ import annotations

import unicodedata
from collections.abc import Collection, Iterable, Sequence

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


def why_unlike(words: Collection[str], known: Collection[str]) -> str:
    """Return in a clause how most of the words differ from known ones that are meant, or "".

    Args:
        words: They are not among the known ones.
        known: What they were looked for in.

    Example:
        >>> why_unlike(["YES", "NO"], ["yes", "no"])
        "'YES' stands there as 'yes', in another case"
    """
    for how, alike in (
        ("in another case", str.casefold),
        ("with its letters composed otherwise (NFC, NFD)", _composed),
    ):
        meant = {alike(name): name for name in known}
        found = [word for word in words if alike(word) in meant]
        if 2 * len(found) > len(words):
            return f"{found[0]!r} stands there as {meant[alike(found[0])]!r}, {how}"
    return ""


def _composed(word: str) -> str:
    return unicodedata.normalize("NFC", word)


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
