"""Words spelled by the tokens of a model, and why words of two files are not the same."""

from __future__ import annotations

import unicodedata
from collections.abc import Callable, Collection, Iterable, Sequence

PIECE_BEGIN = "▁"
"""How SentencePiece marks a piece that begins a word."""


def spell(word: str, tokens: Iterable[str], *, separator: str = "|") -> list[str] | None:
    """Return the tokens of a word; None where they cannot spell it.

    With word pieces, that spelling has the fewest of them, and of several the one whose first
    pieces are longer, which is what SentencePiece mostly gives. Where the tokens cannot spell a
    word as it is, its letters are composed or decomposed (Unicode's NFC and NFD) for them.

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
    for form in dict.fromkeys((word, composed(word), unicodedata.normalize("NFD", word))):
        spelled = _fewest(PIECE_BEGIN + form if pieces else form, known.difference(end))
        if spelled:
            return [*spelled, *end]
    return None


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


def why_unspelled(words: Iterable[str], tokens: Collection[str]) -> str:
    r"""Return why words cannot be spelled by letters, as :func:`why_unlike` says it of the letters.

    Example:
        >>> why_unspelled(["e\u0301te\u0301"], ["é", "t", "e"])
        'they are decomposed (NFD), the known ones composed (NFC)'
    """
    letters: list[str] = []
    for word in words:
        for place, character in enumerate(word):
            if place and unicodedata.combining(character):
                letters[-1] += character
            else:
                letters.append(character)
    return why_unlike({letter for letter in letters if letter not in tokens}, tokens)


def why_unlike(words: Collection[str], known: Collection[str]) -> str:
    """Return the cause that most words are not among the known ones for, as a clause.

    Only what would make them match is named: the case of the letters, composed against decomposed
    letters (Unicode's NFC and NFD), characters that nobody sees, or all of these together.

    Args:
        words: Words that were looked for, without the ones found.
        known: Where they were looked for.

    Returns:
        The clause, with the number of words that it is true of where not all are; "" when none of
        them would match.

    Example:
        >>> why_unlike(["YES", "NO"], {"yes", "no"})
        'they differ in the case of the letters'
    """
    found = [(_matching(words, known, fold), clause) for fold, clause in _CAUSES]
    matching, clause = max(found, key=lambda each: len(each[0]))  # the first one of equals
    if not matching:
        return ""
    if clause == _FORMS:
        clause = _forms(matching, known)
    return ("they " if len(matching) == len(words) else f"{len(matching)} of them ") + clause


def _matching(words: Iterable[str], known: Iterable[str], fold: Callable[[str], str]) -> list[str]:
    """Return the words that are known when both are folded."""
    folded = {fold(word) for word in known}
    # A blank is in no word but for what a fold put there: then all the parts may be known.
    return [w for w in words if fold(w) in folded or folded.issuperset(fold(w).split(" "))]


def composed(word: str) -> str:
    """Return a text with composed letters (Unicode's NFC), as all texts are counted."""
    return unicodedata.normalize("NFC", word)


def _parts(letter: str) -> str:
    """Put blanks between the parts of a letter, for tokens that are such parts."""
    return " ".join(unicodedata.normalize("NFD", letter)) if len(composed(letter)) == 1 else letter


def _seen(word: str) -> str:
    """Leave out what has no shape (a byte-order mark, a soft hyphen), and make all blanks one."""
    if word.isascii():
        return word
    kept = "".join(each for each in word if unicodedata.category(each) != "Cf")
    return " ".join(kept.split())


def _all_folds(word: str) -> str:
    return _seen(composed(word.casefold()))


_FORMS = "are composed of other characters (NFC and NFD)"
_CAUSES: tuple[tuple[Callable[[str], str], str], ...] = (
    (composed, _FORMS),
    (_parts, "are composed (NFC), the known ones their parts (NFD)"),
    (str.casefold, "differ in the case of the letters"),
    (_seen, "differ in characters that are not seen, as a no-break space (U+00A0) in a word"),
    (_all_folds, "differ in the case of the letters and in how these are composed (NFC and NFD)"),
)


def _forms(words: Iterable[str], known: Collection[str]) -> str:
    """Say which ones are decomposed, if it is all of them on one side."""
    if all(unicodedata.is_normalized("NFC", word) for word in words):
        return "are composed (NFC), the known ones decomposed (NFD)"
    if all(composed(word) in known for word in words):
        return "are decomposed (NFD), the known ones composed (NFC)"
    return _FORMS
