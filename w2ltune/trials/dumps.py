"""What a decode of the answer leaves for others: beam dumps for rescoring, transcripts for sclite.

::

    dumps/
      dev.lst.hyp          beam dump: id | score | am | lm | wer | words, best first
      dev.lst.hyp.trn      the best hypothesis of each utterance, "words (id)"
      dev.lst.ref.trn      the references, in the same form

Hypotheses and references of the ``.trn`` files are as they are counted, normalised.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

from w2ltune import files
from w2ltune.errors import InputError
from w2ltune.formats.beamdump import BAR, Hypothesis, write_beam_dump
from w2ltune.scoring.text import join_units
from w2ltune.trials.dataset import Dataset


def refuse_dump_ids(dataset: Dataset) -> None:
    """Refuse ids that a beam dump cannot hold, before anything is decoded for it.

    Raises:
        InputError: The first of them is named.
    """
    for name in dataset.ids:
        if BAR in name:
            raise InputError(
                f"the id {name!r} has a {BAR!r}, which separates the fields of a beam dump; rename "
                "it, or leave out --dump"
            )


def write_dump(
    folder: Path,
    name: str,
    dataset: Dataset,
    utterances: Sequence[int],
    lists: Sequence[Sequence[Hypothesis]],
) -> Path:
    """Write the three files of a list.

    Args:
        folder: Where to.
        name: Of the list.
        dataset: The utterances.
        utterances: Their numbers.
        lists: The hypotheses of each, best first; none for a missing one.

    Returns:
        The beam dump.

    Raises:
        InputError: An id cannot stand in a dump.
    """
    path = folder / f"{name}.hyp"
    ids = [dataset.ids[index] for index in utterances]
    rows = ((utterance, entry) for utterance, entries in zip(ids, lists, strict=True)
            for entry in entries)  # fmt: skip
    write_beam_dump(path, rows)
    best = [" ".join(entries[0].words) if entries else "" for entries in lists]
    write_transcripts(folder / f"{name}.hyp.trn", ids, map(dataset.units, best))
    said = (dataset.references[index] for index in utterances)
    write_transcripts(folder / f"{name}.ref.trn", ids, said)
    return path


def write_transcripts(path: Path, ids: Sequence[str], texts: Iterable[Sequence[str]]) -> None:
    """Write a transcript for sclite: a row ``units (utterance)`` for each."""
    rows = zip(map(join_units, texts), ids, strict=True)
    files.write_text(path, "".join(f"{text} ({utterance})\n" for text, utterance in rows))
