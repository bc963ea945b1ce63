"""The rows of lists of utterances, in three formats, and which one a list has.

=============  ========================  ====================================================
format         chosen for                a row
=============  ========================  ====================================================
JSON lines     ``*.json``, ``*.jsonl``,  ``{"audio_filepath": "a.wav", "duration": 1.5,
               or a first ``{``          "text": "one two"}``, the duration in seconds
Kaldi          ``text``, ``*.text``      ``id one two``
wav2letter     all others                ``id path duration one two``, the duration in
                                         milliseconds
=============  ========================  ====================================================

Kaldi's list of digits has rows that could be wav2letter's, ``id 6 8 0 2``; all rows are looked at
then, and what cannot be told is refused. An id that JSON lines do not give is the name of the audio
file, with its folder and the offset where several rows would have the same.
"""

from __future__ import annotations

import json
import math
import os
import re
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, TypeVar

from w2ltune.errors import InputError
from w2ltune.formats.blanks import BLANKS, split_words
from w2ltune.formats.compressed import BYTE_ORDER_MARK, MARKED
from w2ltune.formats.distributions import parse_float

JSON_ID_KEYS = ("id", "utt_id", "utterance_id")
JSON_PATH_KEYS = ("audio_filepath", "audio", "wav")


@dataclass(frozen=True, kw_only=True)
class Utterance:
    """A row of a list.

    Args:
        id: Unique in its list, without blanks.
        path: Of the audio file; empty where the list does not tell.
        duration_milliseconds: Length of the audio; None where the list does not tell.
        reference: The words of the transcript; may be empty.
        offset: Where in its audio file it begins, in seconds, as JSON lines tell it; "" else.
        renamed: The name of its audio file is not enough for an id, and was made longer.
    """

    id: str
    path: str
    duration_milliseconds: float | None
    reference: tuple[str, ...]
    offset: str = field(default="", compare=False, repr=False)
    renamed: bool = field(default=False, compare=False, repr=False)


_Parsed = TypeVar("_Parsed")


def is_column(text: str) -> bool:
    """Whether a text can be a column of a row: there is some, without blanks."""
    return split_words(text) == [text]


def nonblank_rows(path: Path) -> Iterator[tuple[int, bytes]]:
    """Yield the rows that are not blank, and their numbers."""
    with path.open("rb") as file:
        for number, raw in enumerate(file, start=1):
            row = raw.strip(BLANKS.encode())
            if row:
                yield number, row


def parsed_rows(path: Path) -> Iterator[tuple[int, Utterance]]:
    """Yield the utterances of a list, and their lines.

    Raises:
        InputError: A row cannot be read, or could be of two formats.
    """
    first = next(nonblank_rows(path), (0, b""))[1]
    if path.suffix in (".json", ".jsonl") or first.startswith(b"{"):
        yield from _told_apart(_parsed(path, _json_row))
    else:
        yield from _parsed(path, _parser(path))


def _parsed(path: Path, parse: Callable[[str], _Parsed]) -> Iterator[tuple[int, _Parsed]]:
    for number, raw in nonblank_rows(path):
        try:
            row = raw.decode("utf-8")
            if row.startswith(BYTE_ORDER_MARK.decode()):
                raise ValueError(MARKED)
            yield number, parse(row)
        except UnicodeDecodeError:
            raise InputError("not UTF-8 text", path=path, line=number) from None
        except ValueError as error:
            raise InputError(str(error), path=path, line=number) from None


def _parser(path: Path) -> Callable[[str], Utterance]:
    """Choose between wav2letter's rows and Kaldi's by the list's name, and by all its rows."""
    kaldi = path.name == "text" or path.name.endswith(".text")
    row, sounds, digits = "", set[str](), True
    for _, raw in nonblank_rows(path):
        row = raw.decode("utf-8", "replace")
        columns = split_words(row)
        rowlike = len(columns) > 2 and _is_duration(columns[2])
        if kaldi and not (rowlike and _is_path(columns[1])):
            return _kaldi_row
        if not kaldi and (not rowlike or is_sound(columns[1], columns[0])):
            return _wav2letter_row  # which tells what is wrong with a row
        sounds.add(columns[1])
        digits &= all(parse_float(column) is not None for column in columns[1:])
    if kaldi and sounds:
        raise InputError(
            f"{_short(row)}: all rows are 'id path duration words...', wav2letter's, but a list "
            "called text or *.text is one of Kaldi, 'id words...'; call it *.lst",
            path=path,
        )
    digits &= len(sounds) > 1
    if digits and path.suffix != ".lst":
        return _kaldi_row
    if sounds and (digits or path.suffix != ".lst"):
        raise InputError(ambiguous(row), path=path)
    return _wav2letter_row


def ambiguous(row: str) -> str:
    """Return that a row is of wav2letter or of Kaldi, and how to say which."""
    _, sound, duration, *words = split_words(row)
    return (
        f"{_short(row)} may be wav2letter's 'id path duration words...', with the audio {sound!r}, "
        f"{duration} ms and the words {_short(' '.join(words))}, or Kaldi's 'id words...': call a "
        "list of Kaldi *.text; in one of wav2letter, *.lst, write the audio with its folder or "
        "ending, as ./a.wav"
    )


def _is_path(column: str) -> bool:
    return "/" in column or re.search(r"\.[A-Za-z]\w*$", column) is not None


def is_sound(column: str, name: str) -> bool:
    """Whether a second column is an audio file, or stands for one, and cannot be a word."""
    is_file = os.path.isfile(column)  # noqa: PTH113 (False too where no file may have that name)
    return _is_path(column) or column == name or is_file


def _is_duration(column: str) -> bool:
    number = parse_float(column)
    return number is not None and 0 <= number < math.inf


def _wav2letter_row(row: str) -> Utterance:
    columns = split_words(row)
    if len(columns) < 3:
        raise ValueError(
            f"{_short(row)}: a row is 'id path duration words...'; a list of Kaldi, 'id words...', "
            "must be called text or *.text"
        )
    name, path, duration, *words = columns
    milliseconds = parse_float(duration)
    if milliseconds is None or not _is_duration(duration):
        raise ValueError(
            f"{_short(row)}: the third column, {duration!r}, is no duration in milliseconds; "
            "does the path hold a blank? A list of Kaldi must be called text or *.text"
        )
    return Utterance(id=name, path=path, duration_milliseconds=milliseconds, reference=tuple(words))


def _kaldi_row(row: str) -> Utterance:
    name, *words = split_words(row)
    return Utterance(id=name, path="", duration_milliseconds=None, reference=tuple(words))


def _json_row(row: str) -> tuple[Utterance, bool]:
    """Return the utterance, and whether its id is only the name of its audio file."""
    try:
        fields = json.loads(row)
    except (json.JSONDecodeError, RecursionError):
        fields = None
    if not isinstance(fields, dict):
        raise ValueError(f"{_short(row)} is no JSON object; each line holds a whole one")
    if not isinstance(fields.get("text"), str):
        raise ValueError(f'{_short(row)} has no "text": "words..."')
    path = _first_text(fields, JSON_PATH_KEYS)
    given = _first_text(fields, JSON_ID_KEYS)
    name = given or Path(path).stem
    if not is_column(name):
        raise ValueError(
            f"{_short(row)} needs an id without blanks in one of {', '.join(JSON_ID_KEYS)}, "
            f"or the name of its audio file in one of {', '.join(JSON_PATH_KEYS)}"
        )
    utterance = Utterance(
        id=name,
        path=path,
        duration_milliseconds=_milliseconds(fields.get("duration"), row),
        reference=tuple(split_words(fields["text"])),
        offset="" if fields.get("offset") is None else str(fields["offset"]),
    )
    return utterance, not given


def _told_apart(
    rows: Iterable[tuple[int, tuple[Utterance, bool]]],
) -> Iterator[tuple[int, Utterance]]:
    """Yield utterances of JSON lines; equal names of audio files get their folder or offset too."""
    read = list(rows)
    segments = Counter(utterance.path for _, (utterance, by_file) in read if by_file)
    paths: dict[str, dict[str, tuple[str, ...]]] = defaultdict(dict)
    for _, (utterance, by_file) in read:
        if by_file:
            paths[utterance.id][utterance.path] = Path(utterance.path).with_suffix("").parts
    depth = {name: _depth([*own.values()]) for name, own in paths.items()}
    for number, (utterance, by_file) in read:
        several = by_file and segments[utterance.path] > 1
        if several or (by_file and depth[utterance.id] > 1):
            parts = paths[utterance.id][utterance.path][-depth[utterance.id] :]
            parts += (utterance.offset,) if several and utterance.offset else ()
            name = "-".join("_".join(split_words(part.replace("/", ""))) for part in parts)
            utterance = replace(utterance, id=name, renamed=name != utterance.id)
        yield number, utterance


def _depth(paths: Sequence[tuple[str, ...]]) -> int:
    """Return how many of their last parts tell paths apart."""
    longest = max(map(len, paths))
    different = (n for n in range(1, longest) if len({p[-n:] for p in paths}) == len(paths))
    return next(different, longest)


def _first_text(fields: dict[str, Any], keys: Iterable[str]) -> str:
    """Return the first of the fields that is a text or a whole number, as text, or ``""``."""
    for key in keys:
        value = fields.get(key)
        if isinstance(value, str | int) and not isinstance(value, bool):
            return str(value)
    return ""


def _milliseconds(seconds: Any, row: str) -> float | None:
    if seconds is None:
        return None
    number = isinstance(seconds, int | float) and not isinstance(seconds, bool)
    if not number or not 0 <= seconds < 1e9:
        raise ValueError(f"{_short(row)}: {seconds!r} is no duration in seconds")
    # Without the digits that the product makes up: 1.001 * 1000 is 1000.9999999999999.
    milliseconds: float = round(seconds * 1000, 6)
    return milliseconds


def _short(row: str) -> str:
    return repr(row if len(row) <= 60 else row[:59] + "…")
