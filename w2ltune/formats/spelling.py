"""Lexicons: words spelled by the tokens of a model, letters or word pieces.

Word pieces come in several habits; all are spelled, and written, with ``▁`` at the edge of a word:

================  ==================  ========================================
pieces of yester  with ``▁``          habit
================  ==================  ========================================
``▁yes ter``      the same            SentencePiece; also ``yes ter▁``
``_yes ter``      ``▁yes ter``        wav2letter's recipes
``yes ##ter``     ``▁yes ter``        BERT's WordPiece marks what goes on
``yes@@ ter``     ``yes ter▁``        subword-nmt marks what does not end
``yes ter</w>``   ``yes ter▁``        BPE as of CLIP marks what ends
``Ġyes ter``      ``▁yes ter``        GPT-2 marks what begins
================  ==================  ========================================
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence

PIECE_BEGIN = "▁"
"""How SentencePiece marks a piece that begins a word."""

WORD_END = "</w>"


def piece_mark(tokens: Iterable[str]) -> str:
    """Return how the tokens mark the edges of words, as ``▁``; "" where they are no word pieces.

    Example:
        >>> [piece_mark(["y", "e", more]) for more in ("▁yes", "##ter", "yes@@", "r</w>", "|")]
        ['▁', '##', '@@', '</w>', '']
    """
    marks: Counter[str] = Counter()
    names = list(tokens)
    for token in names:
        if token.startswith(PIECE_BEGIN) or token.endswith(PIECE_BEGIN):
            return PIECE_BEGIN
        marks.update(mark for mark in ("##", "Ġ", "_") if token.startswith(mark) and token != mark)
        marks.update(mark for mark in ("@@", WORD_END) if token.endswith(mark) and token != mark)
    if 10 * marks["_"] < len(names):  # an underscore may be anything
        del marks["_"]
    return next((mark for mark in ("##", "@@", WORD_END, "Ġ", "_") if mark in marks), "")


def with_edges(token: str, mark: str) -> str:
    """Return a token with ``▁`` where a word begins or ends.

    Example:
        >>> [with_edges(token, "##") for token in ("yes", "##ter")]
        ['▁yes', 'ter']
        >>> [with_edges(token, "@@") for token in ("yes@@", "ter")]
        ['yes', 'ter▁']
        >>> [with_edges(token, "</w>") for token in ("yes", "ter</w>")]
        ['yes', 'ter▁']
    """
    if mark == "##":
        return token[2:] if token.startswith(mark) and token != mark else PIECE_BEGIN + token
    if mark == "@@":
        return token[:-2] if token.endswith(mark) and token != mark else token + PIECE_BEGIN
    if mark == WORD_END:
        return token.removesuffix(mark) + PIECE_BEGIN if token.endswith(mark) else token
    if mark in ("Ġ", "_") and token.startswith(mark):
        return PIECE_BEGIN + token[1:]
    return token


def spell(word: str, tokens: Iterable[str], *, separator: str = "|") -> list[str] | None:
    """Return the tokens of a word; None where they cannot spell it. See `speller`.

    Example:
        >>> spell("yes", ["|", "y", "e", "s"])
        ['y', 'e', 's', '|']
        >>> spell("yesterday", ["▁yes", "▁yesterday's", "ter", "day", "t", "er"])
        ['▁yes', 'ter', 'day']
        >>> spell("yester", ["yes@@", "yes", "ter"])
        ['yes@@', 'ter']
        >>> spell("no", ["▁yes"])
    """
    return speller(tokens, separator=separator)(word)


def speller(tokens: Iterable[str], *, separator: str = "|") -> Callable[[str], list[str] | None]:
    """Return what spells words by tokens; it returns None where they cannot spell a word.

    With word pieces, a spelling has the fewest of them, and of several it is the one whose first
    pieces are longer, which is what SentencePiece mostly gives.

    Args:
        tokens: Of the model.
        separator: Stands at the end of a word that is spelled by letters, where it is a token; a
            word with it inside cannot be spelled, as it would be two.
    """
    names = list(tokens)
    mark = piece_mark(names)
    token_of = {with_edges(name, mark): name for name in names}
    pieces = [name for name in token_of if name != PIECE_BEGIN]
    begins = any(name.startswith(PIECE_BEGIN) for name in pieces)
    ends = not begins and any(name.endswith(PIECE_BEGIN) for name in pieces)
    begin, end = ("", PIECE_BEGIN) if ends else (PIECE_BEGIN if mark else "", "")
    closing = [separator] if not mark and separator in token_of else []
    known = frozenset(token_of).difference(closing)
    longest = max(map(len, known), default=0)

    def spelled(word: str) -> list[str] | None:
        if not word or (mark and PIECE_BEGIN in word):
            return None
        found = _fewest(begin + word + end, known, longest)
        return [*(token_of[name] for name in found), *closing] if found else None

    return spelled


def _fewest(text: str, known: frozenset[str], longest: int) -> Sequence[str] | None:
    """Return the fewest tokens that make a text."""
    best: list[Sequence[str] | None] = [None] * len(text) + [()]
    for begin in range(len(text) - 1, -1, -1):
        for end in range(min(len(text), begin + longest), begin, -1):  # the longest first
            rest = best[end]
            if rest is None or text[begin:end] not in known:
                continue
            found = best[begin]
            if found is None or len(rest) + 1 < len(found):
                best[begin] = (text[begin:end], *rest)
    return best[0]
