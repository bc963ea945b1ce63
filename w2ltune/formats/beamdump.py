"""Beam dumps: the n-best lists that the decoder writes with ``--isbeamdump=true``.

One line is one hypothesis, best first within an utterance::

    tstb-0011 | 1373.065742 | 1377.156859 | -3.060744 | 80.000000 | yes
    id          score         AM score      LM score    WER (%)     words

``score`` is the decoder's total, the LM score is unweighted. Older programs wrote the same six
fields without the blanks (``id|score|...``) or separated by blanks alone. With several decoder
threads the lines of different utterances interleave.
"""

from __future__ import annotations

import math
import re
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, NamedTuple, TypeAlias

from w2ltune.errors import InputError, existing_file
from w2ltune.files import replacing
from w2ltune.formats.blanks import BLANKS, split_words
from w2ltune.formats.compressed import (
    BYTE_ORDER_MARK,
    DAMAGE,
    LONGEST_BYTES,
    MARKED,
    open_unpacked,
    packing,
)

Separator: TypeAlias = Literal["bar", "blank"]

BAR = "|"
"""Between the fields; no utterance id may hold it."""

_FORMS: dict[Separator, str] = {
    "bar": "'id | score | AM score | LM score | WER (%) | words'",
    "blank": "'id score AM-score LM-score WER words'",
}


@dataclass(frozen=True, slots=True)
class Hypothesis:
    """One entry of an n-best list.

    Args:
        words: The words recognised; none for an empty hypothesis.
        score: The decoder's total score.
        am_score: Score of the acoustic model.
        lm_score: Score of the language model, without its weight.
        wer: Against the reference, as a fraction; None when the program did not know it.
        unknown_words: Unknown words besides; the programs leave them out of words and dumps.
        silence_frames: Frames that took the silence score; not written in a dump.
    """

    words: tuple[str, ...]
    score: float
    am_score: float
    lm_score: float
    wer: float | None = None
    unknown_words: int = 0
    silence_frames: int = 0


class DumpLine(NamedTuple):
    """A line of a dump: its number from 1, how its fields are separated, and what it says."""

    line: int
    form: Separator
    id: str
    hypothesis: Hypothesis


def iterate_numbered(path: Path, *, form: Separator | None = None) -> Iterator[DumpLine]:
    """Read a beam dump line by line.

    Args:
        path: The dump, in any of the three forms; ``.gz`` and ``.zst`` are unpacked on the way.
        form: What separates the fields; None tells it from the first line.

    Yields:
        The lines that are not empty.

    Raises:
        InputError: The file is missing or cut, or a line is no hypothesis (file and line named).
    """
    existing_file(path, "beam dump")
    for line, text in _lines(path):
        form = form or detect_separator(text)
        try:
            if form is None:
                raise ValueError(text)
            yield DumpLine(line, form, *_parse(text, form))
        except _NoNumberError as error:
            raise InputError(f"{text[:100]!r}: {error}", path=path, line=line) from None
        except ValueError:
            forms = " or ".join(_FORMS.values()) if form is None else _FORMS[form]
            raise InputError(
                f"{text[:100]!r} is no hypothesis of a beam dump (--isbeamdump=true); "
                f"expected {forms}",
                path=path,
                line=line,
            ) from None


def read_beam_dump(path: Path) -> dict[str, list[Hypothesis]]:
    """Read a beam dump into n-best lists by utterance id.

    Args:
        path: The dump, as for :func:`iterate_numbered`.

    Returns:
        Utterances in the order of their first line, hypotheses in the order of the file.

    Raises:
        InputError: As for :func:`iterate_numbered`.
    """
    lists: dict[str, list[Hypothesis]] = {}
    for row in iterate_numbered(path):
        lists.setdefault(row.id, []).append(row.hypothesis)
    return lists


def write_beam_dump(path: Path, items: Iterable[tuple[str, Hypothesis]]) -> None:
    """Write a beam dump as flashlight does, to the byte.

    Args:
        path: The file to replace; compressed when its name ends in ``.gz`` or ``.zst``.
        items: Utterance id and hypothesis of each line. An unknown WER is written as ``nan``,
            which is read back as unknown.

    Raises:
        InputError: An id holds a bar, so that the line could not be read back.
    """
    rows = (
        (
            name, one.score, one.am_score, one.lm_score,
            math.nan if one.wer is None else 100 * one.wer, " ".join(one.words),
        )
        for name, one in items
    )  # fmt: skip
    write_dump_rows(path, rows)


def write_dump_rows(
    path: Path, rows: Iterable[tuple[str, float, float, float, float, str]]
) -> None:
    """Write what :func:`write_beam_dump` writes, from the fields of each line.

    Args:
        path: The file to replace.
        rows: Utterance id, score, AM and LM score, WER in per cent, words.
    """
    form = f" {BAR} ".join(("%s", *["%f"] * 4, "%s\n"))
    with replacing(path, binary=True) as file, packing(file, path) as out:
        for row in rows:
            if BAR in row[0]:
                raise InputError(
                    f"utterance id {row[0]!r} holds {BAR!r}, which separates the fields",
                    path=path,
                )
            out.write((form % row).encode())


def _lines(path: Path) -> Iterator[tuple[int, str]]:
    """Yield line number and text of the lines that are not empty."""
    line = 0
    try:
        # Bytes, because text files would also break lines at a lone carriage return.
        with open_unpacked(path) as file:
            for line, raw in enumerate(iter(lambda: file.readline(LONGEST_BYTES), b""), start=1):
                if len(raw) == LONGEST_BYTES:
                    message = f"a line of more than {LONGEST_BYTES} bytes"
                    raise InputError(message, path=path, line=line)
                text = raw.decode("utf-8").strip(BLANKS)
                if text.startswith(BYTE_ORDER_MARK.decode()):
                    raise InputError(MARKED, path=path, line=line)
                if text:
                    yield line, text
    except UnicodeDecodeError as error:
        raise InputError(f"no UTF-8 text: {error}", path=path, line=line) from error
    except DAMAGE as error:
        raise InputError(f"cut or damaged after line {line}: {error}", path=path) from error


def detect_separator(text: str) -> Separator | None:
    """Tell the form from a line, None when it has neither.

    Words may hold bars, so a bar alone does not tell it.
    """
    for separator in _FORMS:
        try:
            _parse(text, separator)
        except _NoNumberError:
            return separator
        except ValueError:
            continue
        return separator
    return None


class _NoNumberError(ValueError):
    """A line has the form, but a score that is no number."""


def _parse(text: str, separator: Separator) -> tuple[str, Hypothesis]:
    """Return utterance id and hypothesis; ValueError when the line does not have the form."""
    between = "[|]" if separator == "bar" else f"[{BLANKS}]+"
    fields = re.split(between, text, maxsplit=5)
    if separator == "blank" and len(fields) == 5:
        fields.append("")  # the empty hypothesis
    name, *numbers, words = (field.strip(BLANKS) for field in fields)
    score, am_score, lm_score, wer_percent = map(float, numbers)
    if not name:
        raise ValueError(text)
    for what, value in (("score", score), ("AM score", am_score), ("LM score", lm_score)):
        if not math.isfinite(value):
            raise _NoNumberError(
                f"the {what} is {value}, with which nothing can be weighed; decode the utterance "
                "anew, or remove the line"
            )
    return name, Hypothesis(
        # The words of a dump come again and again: interned, each is in memory once.
        words=tuple(map(sys.intern, split_words(words))),
        score=score,
        am_score=am_score,
        lm_score=lm_score,
        wer=None if math.isnan(wer_percent) else wer_percent / 100,
    )
