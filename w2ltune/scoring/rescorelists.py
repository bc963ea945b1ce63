"""A beam dump, the scores of language models and the references, joined for rescoring.

All is joined by utterance id and by the order of the hypotheses in the dump. A file that does not
fit is refused: one lost line would shift all the scores after it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray
from rapidfuzz.distance import Levenshtein

from w2ltune.errors import InputError, UsageError
from w2ltune.formats.blanks import split_words
from w2ltune.formats.dumpcolumns import DumpColumns, Texts
from w2ltune.formats.listfile import Utterance, read_list
from w2ltune.formats.nbest import NBest
from w2ltune.formats.texthash import hash_texts
from w2ltune.scoring.lmcolumns import check_lm_column, load_lm_column
from w2ltune.scoring.text import read_otherwise, refuse_alternatives, split_units

Units: TypeAlias = Callable[[str], Sequence[str]]

WORDS: Units = partial(split_units, metric="wer")

OWN_COLUMNS = ("am", "lm", "words", "letters")
"""Columns of the dump itself; language models have other names."""

_WER_STEP = 6e-4  # some programs round a WER to a tenth of a per cent


@dataclass(frozen=True, kw_only=True, eq=False)
class RescoringLists:
    """The n-best lists of a data list, with a feature for each score that rescoring may weigh.

    The rows of an utterance come by falling score of the decoder, equal ones in the order of the
    dump: the first k rows are its k best. An utterance that the dump lacks has one row without
    words: all features 0, the whole reference deleted, the hash 0.

    Args:
        ids: The utterances of the data list, in its order.
        names: The columns of the features: ``am``, ``lm`` (the decoder's LM, without its weight),
            the language models, and ``words`` and ``letters``, the length of the hypothesis.
        nbest: The lists; errors and lengths of references in the units that are counted.
        references: The words of each utterance's reference, as they are in the data list.
        dump_rows: int32 [hypotheses], the row of the dump that each came from; -1 for that of a
            missing utterance.
        dump_texts: The words of the rows of the dump.
        missing: Utterances of the data list that the dump lacks.
        extra: Utterances of the dump that the data list lacks; they take no part.
        findings: What is odd but no error, each in one line.
    """

    ids: tuple[str, ...]
    names: tuple[str, ...]
    nbest: NBest
    references: tuple[tuple[str, ...], ...]
    dump_rows: NDArray[np.int32]
    dump_texts: Texts
    missing: tuple[str, ...]
    extra: tuple[str, ...]
    findings: tuple[str, ...]

    def text(self, row: int) -> str:
        """Return the words of a hypothesis, separated by one blank."""
        dump_row = int(self.dump_rows[row])
        return "" if dump_row < 0 else self.dump_texts.text(dump_row)


def join(
    dump: DumpColumns,
    data_list: Path,
    lm_scores: Mapping[str, Path],
    *,
    units: Units = WORDS,
    normalize: Callable[[str], str] = str,
    check_wer: bool = True,
) -> RescoringLists:
    """Join a dump with its references and the scores of language models.

    Args:
        dump: The beam dump.
        data_list: The list with the references; see :mod:`w2ltune.formats.listfile`.
        lm_scores: The files with the scores of language models, by the name that a column gets.
            Line by line they belong to the hypotheses of the dump.
        units: Turns a text into what is counted: normalised words, or characters.
        normalize: What the units are made of, to look for what cannot be counted.
        check_wer: Whether to compare the WERs in the dump with the errors counted; of no use when
            the units are not words. A difference is a finding.

    Raises:
        UsageError: A column's name is taken.
        InputError: A file is wrong, the files do not fit each other, or there is nothing to count
            errors against.
    """
    for name in lm_scores:
        if name in OWN_COLUMNS:
            raise UsageError(
                f"a language model cannot be called {name!r}: the dump's own columns are "
                f"{', '.join(OWN_COLUMNS)}"
            )
    utterances = read_list(data_list)
    texts = [normalize(" ".join(utterance.reference)) for utterance in utterances]
    references = _references(utterances, texts, units, data_list)
    layout = _lay_out(dump, utterances)
    if len(layout.missing) == len(utterances):
        raise InputError(
            f"none of its {len(utterances)} utterances is in {dump.path}: it has "
            f"{utterances[0].id!r}, the dump {dump.ids[0]!r}; give the list that was decoded",
            path=data_list,
        )
    findings: list[str | None] = [read_otherwise(w for text in texts for w in split_words(text))]
    hashes = hash_texts(dump.texts)
    columns: dict[str, NDArray[Any]] = {"am": dump.am_score, "lm": dump.lm_score}
    for name, scores in lm_scores.items():
        column = load_lm_column(scores)
        findings.append(check_lm_column(column, dump, hashes))
        columns[name] = column.scores
    found, order = layout.rows >= 0, layout.rows[layout.rows >= 0]
    _check_hypotheses(dump, order, normalize)
    reference_words = np.array([len(reference) for reference in references], dtype=np.int32)
    of_row = np.repeat(reference_words, np.diff(layout.offsets))
    errors = of_row.copy()
    errors[found] = _count_errors(dump.texts.take(order), layout.lengths, references, units)
    if check_wer:
        findings.append(_compare_wers(dump, order, errors[found], of_row[found]))

    columns |= {"words": dump.words, "letters": dump.letters}
    features = np.zeros((len(found), len(columns)))
    for number, values in enumerate(columns.values()):
        features[found, number] = values[order]
    text_hash = np.zeros(len(found), dtype=np.uint64)
    text_hash[found] = hashes[order]
    return RescoringLists(
        ids=tuple(utterance.id for utterance in utterances),
        names=tuple(columns),
        nbest=NBest(
            offsets=layout.offsets,
            features=features,
            errors=errors,
            text_hash=text_hash,
            reference_words=reference_words,
        ),
        references=tuple(utterance.reference for utterance in utterances),
        dump_rows=layout.rows,
        dump_texts=dump.texts,
        missing=layout.missing,
        extra=layout.extra,
        findings=tuple(finding for finding in findings if finding),
    )


def _references(
    utterances: Sequence[Utterance], texts: Sequence[str], units: Units, data_list: Path
) -> list[Sequence[str]]:
    for utterance, text in zip(utterances, texts, strict=True):
        refuse_alternatives(text, path=data_list, utterance=utterance.id)
    references = [units(" ".join(utterance.reference)) for utterance in utterances]
    if not any(references):
        raise InputError(
            "no utterance has a reference: there is nothing to count errors against",
            path=data_list,
        )
    return references


def _check_hypotheses(
    dump: DumpColumns, rows: NDArray[np.int32], normalize: Callable[[str], str]
) -> None:
    if b"{" in dump.texts.content and b"/" in dump.texts.content:
        for row in rows.tolist():
            text = normalize(dump.text(row))
            line = int(dump.line[row])
            refuse_alternatives(text, path=dump.path, line=line, what="hypothesis")


@dataclass(frozen=True, kw_only=True, eq=False)
class _Layout:
    """Which row of the dump stands where: ``rows`` as ``dump_rows`` above; hypotheses by utterance.

    ``lengths`` is int64 [utterances], 0 for missing ones; ``offsets`` counts their row too.
    """

    rows: NDArray[np.int32]
    lengths: NDArray[np.int64]
    offsets: NDArray[np.int64]
    missing: tuple[str, ...]
    extra: tuple[str, ...]


def _lay_out(dump: DumpColumns, utterances: Sequence[Utterance]) -> _Layout:
    index_of = {utterance.id: index for index, utterance in enumerate(utterances)}
    index = np.array([index_of.get(name, -1) for name in dump.ids], dtype=np.int64)[dump.utterance]
    kept = np.flatnonzero(index >= 0)
    order = kept[np.lexsort((-dump.score[kept], index[kept]))]  # is stable
    lengths = np.bincount(index[kept], minlength=len(utterances))
    offsets = np.append(0, np.cumsum(np.maximum(lengths, 1)))
    found = np.ones(offsets[-1], dtype=np.bool_)
    found[offsets[:-1][lengths == 0]] = False
    rows = np.full(len(found), -1, dtype=np.int32)
    rows[found] = order
    return _Layout(
        rows=rows,
        lengths=lengths,
        offsets=offsets,
        missing=tuple(utterances[number].id for number in np.flatnonzero(lengths == 0).tolist()),
        extra=tuple(name for name in dump.ids if name not in index_of),
    )


def _count_errors(
    texts: Texts, lengths: NDArray[np.int64], references: Sequence[Sequence[str]], units: Units
) -> list[int]:
    """Count the errors of each text, int [texts]; of an utterance, each different text once."""
    errors: list[int] = []
    remaining = iter(texts)
    for reference, length in zip(references, lengths.tolist(), strict=True):
        known: dict[bytes, int] = {}
        plain = [unit.encode() for unit in reference]
        for text in islice(remaining, length):
            count = known.get(text)
            if count is None:
                if units is WORDS and text.isascii():  # bytes split at ASCII's blanks, and fast
                    count = Levenshtein.distance(plain, text.split())
                else:
                    count = Levenshtein.distance(reference, units(text.decode()))
                known[text] = count
            errors.append(count)
    return errors


def _compare_wers(
    dump: DumpColumns,
    rows: NDArray[np.int32],
    errors: NDArray[np.int32],
    reference_words: NDArray[np.int32],
) -> str | None:
    """Say how many WERs in the dump are others than those counted, and the first of them."""
    wer = errors / np.maximum(reference_words, 1)
    # Without a reference there is no WER; a comparison with nan, an unknown one, is false.
    different = np.flatnonzero((abs(dump.wer[rows] - wer) > _WER_STEP) & (reference_words > 0))
    if not len(different):
        return None
    first = different[np.argmin(rows[different])]
    row = rows[first]
    return (
        f"{dump.path}:{dump.line[row]}: WER {100 * dump.wer[row]:.2f} % in the dump, but "
        f"{100 * wer[first]:.2f} % counted ({errors[first]} errors, {reference_words[first]} "
        f"reference words), and likewise {len(different)} of {len(rows)} hypotheses: the "
        "program counted otherwise, and what is counted here holds"
    )
