"""Words spelled by the tokens of a model, and why words of two files are not the same.

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

import unicodedata
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Sequence

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


def speller(tokens: Iterable[str], *, separator: str = "|") -> Callable[[str], list[str] | None]:
    """Return what spells words by tokens; it returns None where they cannot spell a word.

    With word pieces, a spelling has the fewest of them, and of several it is the one whose first
    pieces are longer, which is what SentencePiece mostly gives. Where the tokens cannot spell a
    word as it is, its letters are composed or decomposed (Unicode's NFC and NFD) for them.

    Args:
        tokens: Of the model.
        separator: Stands at the end of a word that is spelled by letters, where it is a token; a
            word with it inside cannot be spelled, as it would be two.

    Example:
        >>> speller(["|", "y", "e", "s"])("yes")
        ['y', 'e', 's', '|']
        >>> speller(["▁yes", "▁yesterday's", "ter", "day", "t", "er"])("yesterday")
        ['▁yes', 'ter', 'day']
        >>> speller(["yes@@", "yes", "ter"])("yester")
        ['yes@@', 'ter']
        >>> speller(["▁yes"])("no")
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
        for form in dict.fromkeys((word, composed(word), unicodedata.normalize("NFD", word))):
            found = _fewest(begin + form + end, known, longest)
            if found:
                return [*(token_of[name] for name in found), *closing]
        return None

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
