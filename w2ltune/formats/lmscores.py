"""The scores that a language model gives to the hypotheses of a beam dump: ``.ppl`` files.

One line is one hypothesis, in the order of the dump, ``id score``. Despite the name of the files
the score is the natural logarithm of the sentence's probability; higher is better.

Beside such a file may lie its ``.hash``: the hash of each hypothesis' words (see
:mod:`w2ltune.formats.texthash`), 8 bytes each, little-endian, nothing else. It tells that the
scores belong to the words of a dump, which the ids alone do not.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from w2ltune.errors import InputError, existing_file
from w2ltune.files import replacing
from w2ltune.formats.blanks import split_words
from w2ltune.formats.bytefields import (
    blank_gaps,
    count_within,
    find_lines,
    has_other_blanks,
    parse_numbers,
)
from w2ltune.formats.compressed import BYTE_ORDER_MARK, DAMAGE, MARKED, packing, read_unpacked
from w2ltune.formats.distributions import parse_float

LMScores: TypeAlias = tuple[list[str], NDArray[np.float64]]

_UNDERSCORE = ord("_")


def read_lm_scores(path: Path) -> LMScores:
    """Read the scores of a language model.

    Args:
        path: The file, its two fields separated by blanks or tabs; ``.gz`` and ``.zst`` are
            unpacked on the way.

    Returns:
        The id of each line, and its score, float64 [lines].

    Raises:
        InputError: The file is missing, cut or damaged, or a line is not an id and a finite
            number (file and line named).
    """
    existing_file(path, "LM scores")
    try:
        content = read_unpacked(path).rstrip()
    except DAMAGE as error:
        raise InputError(f"cut or damaged: {error}", path=path) from error
    try:
        found = _split(content.replace(b"\t", b" "))
    except ValueError:  # of which UnicodeDecodeError is one
        found = None
    return found or _read_carefully(path, content)


def write_lm_scores(path: Path, ids: Sequence[str], scores: Iterable[float]) -> None:
    """Write the scores of a language model, so that they come back to the last bit.

    Args:
        path: The file to replace; compressed when its name ends in ``.gz`` or ``.zst``.
        ids: The utterance of each hypothesis.
        scores: As many natural logarithms of probabilities.

    Raises:
        InputError: An id holds a blank or a score is not finite, so that it could not be read.
        ValueError: There are not as many scores as ids.
    """
    with replacing(path, binary=True) as file, packing(file, path) as out:
        for name, score in zip(ids, map(float, scores), strict=True):
            if not name or set(name) & set(" \t\r\n") or not math.isfinite(score):
                raise InputError(f"{name!r} with score {score} cannot be written", path=path)
            out.write(f"{name} {score!r}\n".encode())


def hash_path(path: Path) -> Path:
    """Return the name of the hashes that belong to a file of scores.

    Example:
        >>> hash_path(Path("dev.ppl.gz")).name
        'dev.ppl.gz.hash'
    """
    return path.with_name(f"{path.name}.hash")


def read_hashes(path: Path) -> NDArray[np.uint64]:
    """Read what :func:`write_hashes` wrote, uint64 [hypotheses].

    Args:
        path: The ``.hash`` itself.

    Raises:
        InputError: The file is missing or cut.
    """
    content = existing_file(path, "hashes of the words").read_bytes()
    if len(content) % 8:
        raise InputError(
            f"{len(content)} bytes are no hashes of 8 bytes each: cut, or another file; remove it, "
            "or write the LM's scores again",
            path=path,
        )
    return np.frombuffer(content, dtype="<u8").astype(np.uint64)


def write_hashes(path: Path, hashes: NDArray[np.uint64]) -> None:
    """Write the hash of each hypothesis' words.

    Args:
        path: The ``.hash`` to replace, see :func:`hash_path`.
        hashes: uint64 [hypotheses], see :func:`w2ltune.formats.texthash.hash_texts`.
    """
    with replacing(path, binary=True) as file:
        file.write(hashes.astype("<u8").tobytes())


def _split(content: bytes) -> LMScores | None:
    """Return ids and scores; None or a ValueError when something is unusual."""
    data = np.frombuffer(content, dtype=np.uint8)
    line, (begin, end) = find_lines(data)
    _, gaps = blank_gaps(data)
    first = np.searchsorted(gaps, begin)
    one_gap = np.searchsorted(gaps, end) == first + 1
    if not len(line) or line[-1] != len(line) or not one_gap.all() or has_other_blanks(content):
        return None
    if BYTE_ORDER_MARK in content:
        return None
    field = gaps[first] + 1, end
    scores = parse_numbers(content, data, field)
    underscores = np.flatnonzero(data == _UNDERSCORE)  # Python's float() takes "1_000" too
    if not np.isfinite(scores).all() or count_within(underscores, field).any():
        return None
    return [name.decode() for name in content.split()[::2]], scores


def _read_carefully(path: Path, content: bytes) -> LMScores:
    ids: list[str] = []
    scores: list[float] = []
    for line, raw in enumerate(content.split(b"\n") if content else (), start=1):
        try:
            text = raw.decode()
        except UnicodeDecodeError:
            raise InputError("not UTF-8 text", path=path, line=line) from None
        if raw.lstrip().startswith(BYTE_ORDER_MARK):
            raise InputError(MARKED, path=path, line=line)
        fields = split_words(text)
        score = parse_float(fields[1]) if len(fields) == 2 else None
        if score is None or not math.isfinite(score):
            raise InputError(f"{text[:100]!r}: {_wrong(fields)}", path=path, line=line)
        ids.append(fields[0])
        scores.append(score)
    return ids, np.array(scores, dtype=np.float64)


def _wrong(fields: Sequence[str]) -> str:
    if len(fields) == 2:
        return f"the score {fields[1]!r} is no finite number"
    hint = " (forward_lm.py writes the id with --skip)" if len(fields) == 1 else ""
    return f"{len(fields)} fields, expected 'id score'{hint}"
