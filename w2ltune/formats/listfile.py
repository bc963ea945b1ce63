"""Lists of utterances: wav2letter's own rows, Kaldi's ``text``, and JSON lines.

=============  ========================  ====================================================
format         chosen for                a row
=============  ========================  ====================================================
JSON lines     ``*.json``, ``*.jsonl``,  ``{"audio_filepath": "a.wav", "duration": 1.5,
               or a first ``{``          "text": "one two"}``, the duration in seconds
Kaldi          ``text``, ``*.text``      ``id one two``
wav2letter     all others                ``id path duration one two``, the duration in
                                         milliseconds
=============  ========================  ====================================================
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

from w2ltune.errors import InputError, existing_file
from w2ltune.files import replacing
from w2ltune.formats.blanks import BLANKS, split_words
from w2ltune.formats.compressed import BYTE_ORDER_MARK, MARKED
from w2ltune.formats.distributions import format_value, parse_float

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
    """

    id: str
    path: str
    duration_milliseconds: float | None
    reference: tuple[str, ...]


def iterate_list(path: str | os.PathLike[str]) -> Iterator[Utterance]:
    """Yield the utterances of a list, one line in memory at a time.

    Args:
        path: The list, in UTF-8; its name or its first character tells the format.

    Raises:
        InputError: The file is missing, empty or not UTF-8, a row cannot be read, or an id
            comes twice.
    """
    found = existing_file(path, "list")
    parse: _RowParser | None = None
    line_of: dict[str, int] = {}
    with found.open("rb") as file:
        for number, raw in enumerate(file, start=1):
            try:
                row = raw.decode("utf-8").strip(BLANKS)
                if not row:
                    continue
                if row.startswith(BYTE_ORDER_MARK.decode()):
                    raise ValueError(MARKED)
                parse = parse or _parser(found, row)
                utterance = parse(row)
                if utterance.id in line_of:
                    first = line_of[utterance.id]
                    raise ValueError(f"id {utterance.id!r} is already on line {first}")
            except UnicodeDecodeError:
                raise InputError("not UTF-8 text", path=found, line=number) from None
            except ValueError as error:
                raise InputError(str(error), path=found, line=number) from None
            line_of[utterance.id] = number
            yield utterance
    if not line_of:
        # The binaries never end, or crash, on such a list.
        raise InputError("the list has no utterances", path=found)


def read_list(path: str | os.PathLike[str]) -> list[Utterance]:
    """Return the utterances of a list, in its order.

    Args:
        path: The list, in UTF-8; its name or its first character tells the format.

    Raises:
        InputError: The file is missing, empty or not UTF-8, a row cannot be read, or an id
            comes twice.
    """
    return list(iterate_list(path))


def write_list(path: str | os.PathLike[str], utterances: Iterable[Utterance]) -> None:
    """Write a list in wav2letter's format, in one step.

    A duration that is not known is written as 0: the binaries only order utterances by it.

    Args:
        path: The file to replace.
        utterances: The rows.

    Raises:
        InputError: An utterance has no path, or one with a blank, which the format cannot hold.
    """
    with replacing(Path(path)) as file:
        for utterance in utterances:
            if not is_column(utterance.path):
                raise InputError(
                    f"utterance {utterance.id!r} cannot be written to {os.fspath(path)!r}: a list "
                    f"for the binary needs an audio path without blanks, not {utterance.path!r}"
                )
            duration = format_value(utterance.duration_milliseconds or 0).removesuffix(".0")
            row = (utterance.id, utterance.path, duration, *utterance.reference)
            file.write(" ".join(row) + "\n")


def is_column(text: str) -> bool:
    """Whether a text can be a column of a row: there is some, without blanks."""
    return split_words(text) == [text]


_RowParser: TypeAlias = Callable[[str], Utterance]


def _parser(path: Path, first_row: str) -> _RowParser:
    """Choose the format by the name of the list and its first row."""
    if path.suffix in (".json", ".jsonl") or first_row.startswith("{"):
        return _json_row
    if path.name == "text" or path.suffix == ".text":
        return _kaldi_row
    return _wav2letter_row


def _wav2letter_row(row: str) -> Utterance:
    columns = split_words(row)
    if len(columns) < 3:
        raise ValueError(f"{_short(row)}: a row is 'id path duration words...'")
    name, path, duration, *words = columns
    milliseconds = parse_float(duration)
    if milliseconds is None or not 0 <= milliseconds < math.inf:
        raise ValueError(
            f"{_short(row)}: the third column, {duration!r}, is no duration in milliseconds; "
            "does the path hold a blank? A list of Kaldi must be called text or *.text"
        )
    return Utterance(id=name, path=path, duration_milliseconds=milliseconds, reference=tuple(words))


def _kaldi_row(row: str) -> Utterance:
    name, *words = split_words(row)
    return Utterance(id=name, path="", duration_milliseconds=None, reference=tuple(words))


def _json_row(row: str) -> Utterance:
    try:
        fields = json.loads(row)
    except (json.JSONDecodeError, RecursionError):
        fields = None
    if not isinstance(fields, dict):
        raise ValueError(f"{_short(row)} is no JSON object; each line holds a whole one")
    if not isinstance(fields.get("text"), str):
        raise ValueError(f'{_short(row)} has no "text": "words..."')
    path = _first_text(fields, JSON_PATH_KEYS)
    name = _first_text(fields, JSON_ID_KEYS) or Path(path).stem
    if not is_column(name):
        raise ValueError(
            f"{_short(row)} needs an id without blanks in one of {', '.join(JSON_ID_KEYS)}, "
            f"or the name of its audio file in one of {', '.join(JSON_PATH_KEYS)}"
        )
    return Utterance(
        id=name,
        path=path,
        duration_milliseconds=_milliseconds(fields.get("duration"), row),
        reference=tuple(split_words(fields["text"])),
    )


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
