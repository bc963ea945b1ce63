"""The arithmetic of wav2letter's own ``rescore.py``, to come to the numbers that it came to.

It counted no errors but took the WERs of the dump; of an utterance that the dump lacks, the words
were in the denominator and no errors above it; and lengths of hypotheses had their oddities.
"""

from __future__ import annotations

import dataclasses

import numpy as np
from numpy.typing import NDArray

from w2ltune.errors import InputError
from w2ltune.formats.dumpcolumns import DumpColumns
from w2ltune.formats.nbest import NBest
from w2ltune.scoring.rescorelists import RescoringLists


def ancestor_errors(lists: RescoringLists, dump: DumpColumns) -> NDArray[np.float64]:
    """Return the errors of each hypothesis, float64 [hypotheses] in the order of the lists.

    They are the WER in the dump times the length of the reference in the data list: whole numbers
    but for rounding, when both have the same words. A missing utterance has none.

    Raises:
        InputError: The WER of a hypothesis is not known.
    """
    found = lists.dump_rows >= 0
    rows = lists.dump_rows[found]
    unknown = rows[~np.isfinite(dump.wer[rows])]
    if len(unknown):
        raise InputError(
            "this hypothesis has no WER, and --ancestor_wer counts no errors; leave it out",
            path=dump.path,
            line=int(dump.line[unknown.min()]),
        )
    of_row = np.repeat(_reference_words(lists), np.diff(lists.nbest.offsets))
    errors = np.zeros(len(found))
    # Rounded, the per cents are to the last bit what stands in the dump, with its six decimals.
    errors[found] = np.round(100 * dump.wer[rows], 6) * of_row[found] / 100
    return errors


def ancestor_lists(lists: RescoringLists, dump: DumpColumns) -> RescoringLists:
    """Return the lists with errors, rounded, and lengths of hypotheses as ``rescore.py`` had them.

    The columns ``words`` and ``letters`` together are its length. In the form with bars, which it
    read with ``--new``, it cut the words at another bar, and an empty hypothesis had one word. In
    both forms a second blank counted as a word more.

    Args:
        lists: The joined lists.
        dump: What they were made from.

    Raises:
        InputError: As for :func:`ancestor_errors`.
    """
    features = lists.nbest.features.copy()
    found = np.flatnonzero(lists.dump_rows >= 0)
    lengths = [_length(dump, row) for row in lists.dump_rows[found].tolist()]
    for name, values in zip(("words", "letters"), zip(*lengths, strict=True), strict=True):
        features[found, lists.names.index(name)] = values
    nbest = dataclasses.replace(
        lists.nbest,
        features=features,
        errors=np.rint(ancestor_errors(lists, dump)).astype(np.int32),
        reference_words=_reference_words(lists),
    )
    return dataclasses.replace(lists, nbest=nbest)


def first_of_equals(nbest: NBest) -> NBest:
    """Return lists in which hypotheses with the same features have the errors of the first one.

    It chose the decoder's first one of equal scores; so do then all who count.
    """
    utterance = np.repeat(np.arange(nbest.utterances), np.diff(nbest.offsets))
    rows = np.arange(nbest.hypotheses)
    order = np.lexsort((rows, *nbest.features.T, utterance))
    same = np.diff(utterance[order]) == 0
    for column in nbest.features.T:
        same &= np.diff(column[order]) == 0
    first = np.maximum.accumulate(np.where(np.concatenate([[True], ~same]), rows, 0))
    errors = np.empty_like(nbest.errors)
    errors[order] = nbest.errors[order[first]]
    return dataclasses.replace(nbest, errors=errors)


def _length(dump: DumpColumns, row: int) -> tuple[int, int]:
    text = dump.texts.raw(row)
    if dump.form == "bar":
        words = text.partition("|")[0].strip().split(" ")  # of nothing: [""]
    else:
        words = text.split(" ") if text else []
    return len(words), len("".join(words))


def _reference_words(lists: RescoringLists) -> NDArray[np.int32]:
    return np.array([len(reference) for reference in lists.references], dtype=np.int32)
