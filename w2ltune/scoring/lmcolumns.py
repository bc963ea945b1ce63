"""The scores of language models, held against the beam dump that they were computed for."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from w2ltune.errors import InputError
from w2ltune.formats.dumpcolumns import DumpColumns
from w2ltune.formats.lmscores import hash_path, read_hashes, read_lm_scores


@dataclass(frozen=True, kw_only=True, eq=False)
class LMColumn:
    """The scores of one language model.

    Args:
        source: The file.
        ids: The id of each line.
        scores: float64 [lines].
        hashes: uint64 [lines], the hash of the words of each line; None when not known.
    """

    source: Path
    ids: Sequence[str]
    scores: NDArray[np.float64]
    hashes: NDArray[np.uint64] | None


def load_lm_column(path: Path) -> LMColumn:
    """Read the scores of a language model, with the hashes that lie beside the file."""
    ids, scores = read_lm_scores(path)
    beside = hash_path(path)
    hashes = read_hashes(beside) if beside.exists() else None
    return LMColumn(source=path, ids=ids, scores=scores, hashes=hashes)


def check_lm_column(
    column: LMColumn, dump: DumpColumns, dump_hashes: NDArray[np.uint64]
) -> str | None:
    """Make sure that line by line the scores are those of the hypotheses of a dump.

    The ids must be the dump's; numbers of the lines, from 0 or 1, are accepted too. Hashes of the
    words are compared where they are known.

    Returns:
        What could not be made sure of, as a sentence; None when everything could.

    Raises:
        InputError: They do not fit (the first differing line of both is named).
    """
    expected = list(map(dump.ids.__getitem__, dump.utterance.tolist()))
    numbered = column.ids != expected and _is_numbered(column.ids, expected)
    if numbered:
        first = int(column.ids[0])
        expected = list(map(str, range(first, first + len(expected))))
    row = _first_difference(column.ids, expected)
    if row is not None:
        raise _mismatch(column, expected, dump, row)
    if column.hashes is not None:
        _check_hashes(column.source, column.hashes, dump, dump_hashes)
    elif numbered:
        return (
            f"{column.source} numbers its lines and does not name utterances: "
            "nothing but their count could be compared with the dump"
        )
    return None


def _is_numbered(ids: Sequence[str], expected: Sequence[str]) -> bool:
    """Tell whether ids are numbers of lines, perhaps with one lost."""
    return ids[:1] != expected[:1] and ids[:1] in (["0"], ["1"])


def _first_difference(found: Sequence[Any], expected: Sequence[Any]) -> int | None:
    if found == expected:
        return None
    pairs = enumerate(zip(found, expected, strict=False))
    shorter = min(len(found), len(expected))
    return next((row for row, (one, other) in pairs if one != other), shorter)


def _mismatch(column: LMColumn, expected: Sequence[str], dump: DumpColumns, row: int) -> InputError:
    hint = _shift(column.ids, expected, row)
    if row == len(column.ids):
        return InputError(
            f"ends after {row} lines, but {dump.path} has {len(dump)} hypotheses: expected the "
            f"score of {expected[row]!r} for its line {dump.line[row]}{hint}",
            path=column.source,
            line=row + 1,
        )
    if row == len(expected):
        ending = f"has {row} hypotheses and ends with line {dump.line[-1]}" if row else "is empty"
        return InputError(
            f"found a score of {column.ids[row]!r}, but {dump.path} {ending}{hint}",
            path=column.source,
            line=row + 1,
        )
    return InputError(
        f"found a score of {column.ids[row]!r}, expected one of {expected[row]!r} for line "
        f"{dump.line[row]} of {dump.path}{hint}; the scores must come in the order of the dump",
        path=column.source,
        line=row + 1,
    )


def _shift(found: Sequence[Any], expected: Sequence[Any], row: int) -> str:
    """Say when all that follows the first difference fits again after one line."""
    if found[row:] == expected[row + 1 :]:
        return "; it looks as if one line was lost, here or shortly before"
    if found[row + 1 :] == expected[row:]:
        return "; it looks as if there is one line too many, here or shortly before"
    return ""


def _check_hashes(
    source: Path, hashes: NDArray[np.uint64], dump: DumpColumns, dump_hashes: NDArray[np.uint64]
) -> None:
    if len(hashes) != len(dump_hashes):
        raise InputError(
            f"{hash_path(source)}: {len(hashes)} hashes of words for {len(dump_hashes)} "
            f"hypotheses of {dump.path}; write the scores again, or remove the hashes"
        )
    different = np.flatnonzero(hashes != dump_hashes)
    if len(different):
        row = int(different[0])
        raise InputError(
            f"a score of other words than {dump.text(row)[:100]!r} of line {dump.line[row]} of "
            f"{dump.path}: their hashes differ, in {len(different)} lines"
            f"{_shift(hashes.tolist(), dump_hashes.tolist(), row)}; "
            "compute the scores of this dump",
            path=source,
            line=row + 1,
        )
