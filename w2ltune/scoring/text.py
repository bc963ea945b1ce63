"""What is done to a text before its errors are counted: normalise, then split into units."""

from __future__ import annotations

import re
import traceback
import unicodedata
from collections.abc import Callable
from pathlib import Path
from typing import Literal, TypeAlias

from w2ltune.errors import InputError, did_you_mean, existing_file
from w2ltune.scoring.glm import load_glm

Metric: TypeAlias = Literal["wer", "cer"]

_ALTERNATIVES = re.compile(r"\{[^{}]*\s/\s[^{}]*\}")  # sclite's `{ colour / color }`
_ZERO_WIDTH_JOINER = "\u200d"


def load_normalizer(path: Path | None, *, ignore_case: bool) -> Callable[[str], str]:
    """Return what is applied to each reference and hypothesis before any count.

    Args:
        path: ``--normalize``: a Python file with a function ``normalize(text: str) -> str``, or
            a word-mapping file of NIST, ``.glm``. None leaves the text as it is.
        ignore_case: ``--ignore_case``: lower the case of what ``normalize`` returned.

    Returns:
        A function from text to text. It raises InputError when ``normalize`` raises or returns
        anything but a string.

    Raises:
        InputError: The file is missing, cannot be run, or has no function ``normalize``.

    Example:
        >>> load_normalizer(None, ignore_case=True)("Ça va")
        'ça va'
    """
    function: Callable[[str], str] | None = None
    if path is not None:
        function = load_glm(path) if path.suffix == ".glm" else _load_function(path)

    def normalize(text: str) -> str:
        if function is not None:
            text = function(text)
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
        except Exception as error:
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


def split_units(text: str, metric: Metric) -> list[str]:
    """Split a text into what is counted.

    Args:
        text: A normalised reference or hypothesis.
        metric: ``"wer"``: words, separated by white space. ``"cer"``: characters as a reader
            sees them (grapheme clusters of the NFC form), with one blank between words.

    Example:
        >>> split_units("le  thé", "wer")
        ['le', 'thé']
        >>> split_units("le  the\u0301", "cer")
        ['l', 'e', ' ', 't', 'h', 'é']
    """
    words = text.split()
    return words if metric == "wer" else _grapheme_clusters(" ".join(words))


def _grapheme_clusters(text: str) -> list[str]:
    """Split into user-perceived characters, after Unicode Standard Annex 29.

    The general categories of the standard library stand in for the annex's own property tables.
    That covers combining marks, emoji sequences and flags; Hangul syllables are single code
    points in NFC.
    """
    if text.isascii():
        return list(text)
    clusters: list[str] = []
    for character in unicodedata.normalize("NFC", text):
        if clusters and clusters[-1] != " " and _continues(clusters[-1], character):
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


def refuse_alternatives(text: str, *, path: Path, line: int | None = None) -> None:
    """Refuse a reference that allows several readings, as in ``{ colour / color }``.

    Args:
        text: The reference.
        path: The list that it is in.
        line: Its line there, from 1.

    Raises:
        InputError: It has alternatives, which only sclite counts rightly.
    """
    found = _ALTERNATIVES.search(text)
    if found:
        raise InputError(
            f"the reference has alternatives {found.group()!r}, which cannot be counted here; "
            "keep one of them, or score the hypotheses with sclite",
            path=path,
            line=line,
        )
