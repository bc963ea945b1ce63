"""Beam dumps as columns, read many times faster than line by line.

The separators are found in the bytes of the whole file at once. Where that is not sure to give
what the careful reader of :mod:`w2ltune.formats.beamdump` gives, that one does the work, and it
says what is wrong with a file.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from numpy.typing import ArrayLike, NDArray

from w2ltune.errors import existing_file
from w2ltune.formats.beamdump import Separator, detect_separator, iterate_numbered
from w2ltune.formats.bytefields import (
    Positions,
    Ranges,
    blank_gaps,
    count_within,
    find_lines,
    has_other_blanks,
    parse_numbers,
    same_as_before,
    strip,
)
from w2ltune.formats.compressed import BYTE_ORDER_MARK, DAMAGE, read_unpacked

_BAR = ord("|")
_BLOCK = 1 << 20  # bytes taken at once: what is made of them fits the processor's cache


@dataclass(frozen=True, kw_only=True, eq=False)
class Texts:
    """The words of many hypotheses, as they lie in a file; none is a Python object until asked for.

    Args:
        content: The bytes of the whole file, UTF-8.
        begin: int64 [texts], where each begins in the content.
        end: int64 [texts], the byte after its end.
    """

    content: bytes
    begin: Positions
    end: Positions

    def __len__(self) -> int:
        return len(self.begin)

    def __iter__(self) -> Iterator[bytes]:
        """Yield each text in UTF-8, its words separated by one blank."""
        bounds = map(slice, self.begin.tolist(), self.end.tolist())
        texts = map(self.content.__getitem__, bounds)
        return map(_single_blanks, texts) if b"  " in self.content else texts

    def text(self, row: int) -> str:
        """Return the words of a hypothesis, separated by one blank."""
        return _single_blanks(self.content[self.begin[row] : self.end[row]]).decode()

    def raw(self, row: int) -> str:
        """Return the words of a hypothesis with the blanks that are in the file."""
        return self.content[self.begin[row] : self.end[row]].decode()

    def take(self, rows: ArrayLike) -> Texts:
        """Return some of the texts, int [taken], without a copy of the content."""
        taken = np.asarray(rows, dtype=np.intp)
        return Texts(content=self.content, begin=self.begin[taken], end=self.end[taken])


@dataclass(frozen=True, kw_only=True, eq=False)
class DumpColumns:
    """A beam dump; the rows of the arrays are its hypotheses in the order of the file.

    Args:
        path: The dump.
        form: What separates its fields.
        ids: Utterances in the order of their first line.
        utterance: int32 [hypotheses], index of the utterance in ``ids``.
        line: int64 [hypotheses], line number in the file, from 1.
        score: float64 [hypotheses], the decoder's total.
        am_score: float64 [hypotheses].
        lm_score: float64 [hypotheses], without its weight.
        wer: float64 [hypotheses], as a fraction; nan where the program did not know it.
        words: int32 [hypotheses], number of words.
        letters: int32 [hypotheses], number of characters of the words.
        texts: The words [hypotheses].
    """

    path: Path
    form: Separator
    ids: tuple[str, ...]
    utterance: NDArray[np.int32]
    line: Positions
    score: NDArray[np.float64]
    am_score: NDArray[np.float64]
    lm_score: NDArray[np.float64]
    wer: NDArray[np.float64]
    words: NDArray[np.int32]
    letters: NDArray[np.int32]
    texts: Texts

    def __len__(self) -> int:
        return len(self.score)

    def text(self, row: int) -> str:
        """Return the words of a hypothesis, separated by one blank."""
        return self.texts.text(row)


def read_dump_columns(path: Path, *, form: Separator | None = None) -> DumpColumns:
    """Read a beam dump.

    Args:
        path: The dump; ``.gz`` and ``.zst`` are unpacked on the way.
        form: What separates the fields; None tells it from the first line.

    Raises:
        InputError: As for :func:`w2ltune.formats.beamdump.iterate_numbered`.
    """
    existing_file(path, "beam dump")
    try:
        content = read_unpacked(path)
        columns = _split(path, content, form)
    except (*DAMAGE, ValueError):  # of which UnicodeDecodeError is one
        columns = None
    return columns or _read_carefully(path, form)


def _split(path: Path, content: bytes, form: Separator | None) -> DumpColumns | None:
    """Return the columns; None or a ValueError when something is unusual."""
    if not content.isascii():
        content.decode()
        if BYTE_ORDER_MARK in content:
            return None
    first_line = re.search(rb"[^ \r\n][^\n]*", content)
    if not first_line:
        return None
    form = form or detect_separator(first_line.group().decode().strip(" \r"))
    if form is None or has_other_blanks(content):
        return None
    numbers: dict[bytes, int] = {}
    blocks: list[dict[str, NDArray[Any]]] = []
    lines = start = 0
    while start < len(content):
        stop = content.find(b"\n", start + _BLOCK) + 1 or len(content)
        block = _split_block(content[start:stop], form, numbers)
        if block is None:
            return None
        block["line"] += lines
        block["begin"] += start
        block["end"] += start
        blocks.append(block)
        lines += content.count(b"\n", start, stop)
        start = stop
    columns = {name: np.concatenate([block[name] for block in blocks]) for name in blocks[0]}
    texts = Texts(content=content, begin=columns.pop("begin"), end=columns.pop("end"))
    ids = tuple(name.decode() for name in numbers)
    return DumpColumns(path=path, form=form, ids=ids, texts=texts, **columns)


def _split_block(
    content: bytes, form: Separator, numbers_of_ids: dict[bytes, int]
) -> dict[str, NDArray[Any]] | None:
    """Return the columns of whole lines by name, and where their texts begin and end."""
    data = np.frombuffer(content, dtype=np.uint8)
    line, lines = find_lines(data)
    blanks, gaps = blank_gaps(data)
    if form == "bar":
        fields = _find_fields(data, lines, np.flatnonzero(data == _BAR), least=5)
    else:
        fields = _find_fields(data, lines, gaps, least=4)
    if fields is None:
        return None
    name, *numbers, words = fields
    score, am_score, lm_score, wer = (parse_numbers(content, data, field) for field in numbers)
    if (name[0] == name[1]).any() or not np.isfinite(score + am_score + lm_score).all():
        return None
    # Of lines with the same id one after the other, only the first is looked at in Python.
    heads = np.flatnonzero(~same_as_before(data, name))
    bounds = map(slice, *(positions[heads].tolist() for positions in name))
    number = _number_ids(map(content.__getitem__, bounds), numbers_of_ids)
    length = words[1] - words[0]
    inner_blanks = count_within(blanks, words)
    inner_gaps = inner_blanks if gaps is blanks else count_within(gaps, words)
    letters = length - inner_blanks
    if not content.isascii():  # bytes that go on with a character
        letters -= count_within(np.flatnonzero((data & 0xC0) == 0x80), words)
    return {
        "line": line,
        "utterance": np.repeat(number, np.diff(heads, append=len(line))),
        "score": score,
        "am_score": am_score,
        "lm_score": lm_score,
        "wer": wer / 100,
        "words": ((inner_gaps + 1) * (length > 0)).astype(np.int32),
        "letters": letters.astype(np.int32),
        "begin": words[0],
        "end": words[1],
    }


def _find_fields(
    data: NDArray[np.uint8], lines: Ranges, separators: Positions, *, least: int
) -> list[Ranges] | None:
    """Return the six fields of each line; None when one has fewer separators than the least."""
    begin, end = lines
    first = np.searchsorted(separators, begin)
    count = np.searchsorted(separators, end) - first
    if (count < least).any():
        return None
    bounds = [separators[first + number] for number in range(4)]
    # The empty hypothesis of the form with blanks has nothing after its WER.
    bounds.append(np.where(count > 4, separators.take(first + 4, mode="clip"), end))
    starts = [begin, *(np.minimum(bound + 1, end) for bound in bounds)]
    return [strip(data, ranges) for ranges in zip(starts, [*bounds, end], strict=True)]


def _read_carefully(path: Path, form: Separator | None) -> DumpColumns:
    """Return the columns of what the careful reader reads; it raises what is to be raised."""
    rows = list(iterate_numbered(path, form=form))
    hypotheses = [row.hypothesis for row in rows]
    texts = [" ".join(hypothesis.words) for hypothesis in hypotheses]
    ids: dict[str, int] = {}
    utterance = _number_ids((row.id for row in rows), ids)
    raw = [text.encode() for text in texts]
    end = np.cumsum([len(text) for text in raw], dtype=np.int64)
    return DumpColumns(
        path=path,
        form=rows[0].form if rows else form or "bar",
        ids=tuple(ids),
        utterance=utterance,
        line=np.array([row.line for row in rows], dtype=np.int64),
        score=_floats([hypothesis.score for hypothesis in hypotheses]),
        am_score=_floats([hypothesis.am_score for hypothesis in hypotheses]),
        lm_score=_floats([hypothesis.lm_score for hypothesis in hypotheses]),
        wer=_floats([hypothesis.wer for hypothesis in hypotheses]),
        words=np.array([len(hypothesis.words) for hypothesis in hypotheses], dtype=np.int32),
        letters=np.array([len(text) - text.count(" ") for text in texts], dtype=np.int32),
        texts=Texts(content=b"".join(raw), begin=np.append(0, end)[:-1], end=end),
    )


def _floats(values: Sequence[float | None]) -> NDArray[np.float64]:
    return np.array(values, dtype=np.float64)  # None becomes nan


_Id = TypeVar("_Id", str, bytes)


def _number_ids(names: Iterable[_Id], numbers: dict[_Id, int]) -> NDArray[np.int32]:
    """Return the number of each id, int32 [names]; new ones get the next."""
    return np.array([numbers.setdefault(name, len(numbers)) for name in names], dtype=np.int32)


def _single_blanks(text: bytes) -> bytes:
    return text if b"  " not in text else re.sub(b" +", b" ", text)
