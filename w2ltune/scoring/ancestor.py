"""The arithmetic of wav2letter's own ``rescore.py``, to come to the numbers that it came to.

It takes the WERs of the dump and does not count errors; utterances that the dump lacks count no
errors, although their words are in the denominator; and the length of a hypothesis has its own
oddities.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from w2ltune.errors import InputError
from w2ltune.formats.dumpcolumns import DumpColumns
from w2ltune.scoring.rescorelists import RescoringLists


@dataclass(frozen=True, kw_only=True, eq=False)
class AncestorColumns:
    """What ``rescore.py`` made of each hypothesis; the rows are those of the lists.

    Args:
        errors: float64 [hypotheses], not rounded; 0 for that of a missing utterance.
        length: float64 [hypotheses], its length feature, words and letters together.
        reference_words: The denominator, the words of all references.
    """

    errors: NDArray[np.float64]
    length: NDArray[np.float64]
    reference_words: int


def ancestor_errors(lists: RescoringLists, dump: DumpColumns) -> AncestorColumns:
    """Return errors and lengths as ``rescore.py`` has them.

    Args:
        lists: The joined lists.
        dump: The dump that they were made from.

    Raises:
        InputError: The dump does not know the WER of a hypothesis.
    """
    found = lists.dump_rows >= 0
    rows = lists.dump_rows[found]
    unknown = np.flatnonzero(np.isnan(dump.wer[rows]))
    if len(unknown):
        line = int(dump.line[rows[unknown]].min())
        raise InputError(
            "the WER is not known, and rescore.py counts no errors of its own; leave out "
            "--ancestor_wer",
            path=dump.path,
            line=line,
        )
    words = np.array([len(reference) for reference in lists.references])
    errors, length = np.zeros(len(found)), np.zeros(len(found))
    of_row = np.repeat(words, np.diff(lists.nbest.offsets))
    errors[found] = 100 * dump.wer[rows] * of_row[found] / 100
    length[found] = [_length(dump, row) for row in rows.tolist()]
    return AncestorColumns(errors=errors, length=length, reference_words=int(words.sum()))


def _length(dump: DumpColumns, row: int) -> int:
    """Return words plus letters, as the two forms of the dump were split."""
    text = dump.texts.raw(row)
    if dump.form == "bar":  # --new
        words = text.partition("|")[0].strip().split(" ")  # [""] when there are none
    else:
        words = text.split(" ") if text else []
    return len(words) + len("".join(words))
