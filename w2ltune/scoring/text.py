"""What is done to a text before its errors are counted: normalise, then split into units."""

from __future__ import annotations

import re
import traceback
import unicodedata
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Literal, TypeAlias

from w2ltune.errors import InputError, did_you_mean, existing_file
from w2ltune.formats.blanks import BLANKS, split_words
from w2ltune.scoring.glm import load_glm

Metric: TypeAlias = Literal["wer", "cer"]

_READ_OTHERWISE = re.compile(r"@|\{.*|\(.*\)|.*[;\\].*")
_ZERO_WIDTH_JOINER = "\u200d"


def load_normalizer(path: Path | None, *, ignore_case: bool) -> Callable[[str], str]:
    """Return what is applied to each reference and hypothesis before any count.

    Args:
        path: ``--normalize``: a Python file with a function ``normalize(text: str) -> str``, or
            a word-mapping file of NIST, ``.glm``. None leaves the text as it is.
        ignore_case: ``--ignore_case``: lower the case of what ``normalize`` returned.

    Returns:
        A function from text to text, which gives ``normalize`` composed letters (Unicode's NFC).
        It raises InputError when ``normalize`` raises or returns
        anything but a string.

    Raises:
        InputError: The file is missing, cannot be run, or has no function ``normalize``.

    Example:
        >>> load_normalizer(None, ignore_case=True)("Ça va")
        'ça va'
    """
    function: Callable[[str], str] | None = None
    if path is not None:
        function = load_glm(path) if path.suffix.lower() == ".glm" else _load_function(path)

    def normalize(text: str) -> str:
        if function is not None:
            text = function(unicodedata.normalize("NFC", text))
        return text.lower() if ignore_case else text

    return normalize


def _load_function(path: Path) -> Callable[[str], str]:
    existing_file(path, "text normaliser (--normalize)")
    namespace: dict[str, object] = {"__name__": "w2ltune_normalize", "__file__": str(path)}
    try:
        exec(compile(path.read_bytes(), str(path), "exec"), namespace)
    except (Exception, SystemExit) as error:
        raise InputError(
            f"this file of --normalize cannot be run: {_describe(error)}",
            path=path,
            line=_line(error, path),
        ) from error
    function = namespace.get("normalize")
    if not callable(function):
        hint = did_you_mean("normalize", [name for name in namespace if name[:2] != "__"])
        raise InputError(
            f"the file of --normalize has no function normalize(text: str) -> str{hint}", path=path
        )

    def checked(text: str) -> str:
        try:
            result = function(text)
        except (Exception, SystemExit) as error:
            raise InputError(
                f"normalize({text!r}) raised {_describe(error)}", path=path, line=_line(error, path)
            ) from error
        if not isinstance(result, str):
            raise InputError(
                f"normalize({text!r}) returned {result!r}; it must return a string", path=path
            )
        return result

    return checked


def _describe(error: BaseException) -> str:
    reason = error.msg if isinstance(error, SyntaxError) else str(error)
    return f"{type(error).__name__}: {reason}" if reason else type(error).__name__


def _line(error: BaseException, path: Path) -> int | None:
    """Return the line of the user's file in which the error arose."""
    if isinstance(error, SyntaxError) and error.filename == str(path):
        return error.lineno
    frames = traceback.extract_tb(error.__traceback__)
    return next((frame.lineno for frame in reversed(frames) if frame.filename == str(path)), None)


def split_units(text: str, metric: Metric, *, blanks: bool = False) -> list[str]:
    r"""Split a text into what is counted, in Unicode's NFC.

    So composed and decomposed letters are the same. A no-break space is a part of its word.

    Args:
        text: A normalised reference or hypothesis.
        metric: ``"wer"``: words, separated by ASCII's blanks. ``"cer"``: characters as a reader
            sees them (grapheme clusters), without the blanks between words, as ``sclite -c``.
        blanks: Of ``"cer"``: one blank between words is a character too.

    Example:
        >>> split_units("le  thé", "wer")
        ['le', 'thé']
        >>> split_units("le  the\u0301", "cer")
        ['l', 'e', 't', 'h', 'é']
        >>> split_units("le  thé", "cer", blanks=True)
        ['l', 'e', ' ', 't', 'h', 'é']
    """
    words = split_words(unicodedata.normalize("NFC", text))
    if metric == "wer":
        return words
    characters: list[str] = []
    for number, word in enumerate(words):
        characters += [" "] * (blanks and number > 0) + _grapheme_clusters(word)
    return characters


def what_is_counted(
    metric: str, references: Iterable[Sequence[str]], *, blanks: bool = False
) -> str:
    """Return a line about what :func:`split_units` makes of texts; "" of words.

    Args:
        metric: What is counted.
        references: The units of each reference.
        blanks: Whether blanks between words are counted.
    """
    if metric != "cer":
        return ""
    marked = next((unit for units in references for unit in units if len(unit) > 1), "")
    return (
        "CER: characters, "
        + ("one blank between words too" if blanks else "blanks left out")
        + (f", each with its marks, as {marked!r}, which sclite takes apart" if marked else "")
    )


def join_units(units: Iterable[str]) -> str:
    """Return units as the text of a ``.trn`` file, so that sclite counts the same ones.

    Example:
        >>> join_units(["l", "e", " ", "t"])
        'l e <space> t'
    """
    return " ".join("<space>" if unit == " " else unit for unit in units)


def _grapheme_clusters(text: str) -> list[str]:
    """Split a word in NFC into user-perceived characters, after Unicode Standard Annex 29.

    The general categories of the standard library stand in for the annex's own property tables.
    """
    if text.isascii():
        return list(text)
    clusters: list[str] = []
    for character in text:
        if clusters and _continues(clusters[-1], character):
            clusters[-1] += character
        else:
            clusters.append(character)
    return clusters


def _continues(cluster: str, character: str) -> bool:
    return (
        unicodedata.category(character) in ("Mn", "Mc", "Me")  # variation selectors are Mn
        or character in ("\u200c", _ZERO_WIDTH_JOINER)
        or "\U0001f3fb" <= character <= "\U0001f3ff"  # skin tones
        or "\U000e0020" <= character <= "\U000e007f"  # tags of the flags of regions
        or (cluster.endswith(_ZERO_WIDTH_JOINER) and _is_symbol(cluster[0], character))
        or (len(cluster) == 1 and _is_regional_indicator(cluster, character))
    )


def _is_symbol(*characters: str) -> bool:
    return all(unicodedata.category(character) == "So" for character in characters)


def _is_regional_indicator(*characters: str) -> bool:
    return all("\U0001f1e6" <= character <= "\U0001f1ff" for character in characters)


def refuse_alternatives(
    text: str, *, path: Path, line: int | None = None, what: str = "reference", utterance: str = ""
) -> None:
    """Refuse a text that allows several readings, as in ``{ colour / color }`` or ``{a/b}``.

    Args:
        text: The text, normalised.
        path: The file that it is in.
        line: Its line there, from 1.
        what: It is.
        utterance: Its id.

    Raises:
        InputError: It has alternatives, which only sclite counts rightly.
    """
    found = _alternatives(text) if "{" in text and "/" in text else ""
    if found:
        raise InputError(
            f"the {what} has alternatives {found!r}"
            + (f" (utterance {utterance!r})" if utterance else "")
            + ", which cannot be counted here; keep one of them, or score the hypotheses with "
            "sclite",
            path=path,
            line=line,
        )


def _alternatives(text: str) -> str:
    """Return the first alternatives as sclite finds them: from a word that begins with ``{``."""
    start, depth, begins = 0, 0, True
    for place, character in enumerate(text):
        if depth:
            depth += (character == "{") - (character == "}")
            begins = not depth
            if begins and "/" in text[start:place]:
                return text[start : place + 1]
        elif begins and character == "{":
            start, depth = place, 1
        else:
            begins = character in BLANKS
    return ""


def read_otherwise(words: Iterable[str]) -> str:
    """Return a line about words that sclite does not take as they stand; "" if there are none.

    It takes ``@`` for nothing, ``{laugh}`` for ``laugh``, ``(um)`` for a word that may be missing
    (with ``-D``), and leaves out a backslash and what is behind a semicolon.
    """
    found = [word for word in words if _READ_OTHERWISE.fullmatch(word)]
    if not found:
        return ""
    shown = ", ".join(map(repr, dict.fromkeys(found[:3])))
    what = "reference words counted as they stand, which sclite reads otherwise"
    return f"{what}: {len(found)}, as {shown}"
