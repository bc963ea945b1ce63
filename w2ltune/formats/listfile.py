"""Lists of utterances: wav2letter's own rows, Kaldi's ``text``, and JSON lines.

The formats stand in :mod:`w2ltune.formats.listrows`.
"""

from __future__ import annotations

import os
import statistics
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from w2ltune.errors import InputError, existing_file
from w2ltune.files import replacing
from w2ltune.formats.distributions import format_value
from w2ltune.formats.listrows import Utterance, ambiguous, is_column, is_sound, parsed_rows

__all__ = [
    "Utterance",
    "fit_durations",
    "is_column",
    "iterate_list",
    "list_name",
    "list_stem",
    "read_list",
    "write_list",
]

LEAST_SHIFT, MOST_SHIFT = 2.0, 1000.0
"""Milliseconds from frame to frame of emissions, with a wide margin; real ones are 10 to 160."""


def list_name(path: str | os.PathLike[str]) -> str:
    """Return what a list is called: its file, or the folder of one that is called as all are.

    Example:
        >>> list_name("lists/dev.lst"), list_name("data/dev/text"), list_name("dev.clean/text")
        ('dev.lst', 'dev', 'dev-clean')
    """
    path = Path(path)
    if path.name not in ("text", ".text"):
        return path.name
    folder = path.absolute().parent.name
    return folder.replace(".", "-") or path.name  # names of files are made of it


def list_stem(path: str | os.PathLike[str]) -> str:
    """Return the name of a list without its ending: what belongs to it is called so."""
    return Path(list_name(path)).stem


def iterate_list(path: str | os.PathLike[str]) -> Iterator[Utterance]:
    """Yield the utterances of a list, one line in memory at a time (JSON lines all at once).

    Args:
        path: The list, in UTF-8; its name or its rows tell the format.

    Raises:
        InputError: The file is missing, empty or not UTF-8, a row cannot be read, or an id
            comes twice.
    """
    found = existing_file(path, "list")
    line_of: dict[str, int] = {}
    for number, utterance in parsed_rows(found):
        if utterance.id in line_of:
            first = line_of[utterance.id]
            raise InputError(
                f"id {utterance.id!r} is already on line {first}", path=found, line=number
            )
        line_of[utterance.id] = number
        yield utterance
    if not line_of:
        # The binaries never end, or crash, on such a list.
        raise InputError("the list has no utterances", path=found)


def read_list(path: str | os.PathLike[str]) -> list[Utterance]:
    """Return the utterances of a list, in its order; see :func:`iterate_list`."""
    return list(iterate_list(path))


def fit_durations(
    utterances: Sequence[Utterance], frames: Mapping[str, int], *, path: Path
) -> tuple[list[Utterance], list[str]]:
    """Hold durations against the frames of emissions.

    Args:
        utterances: Of a list.
        frames: Of emissions, by id; some may be missing.
        path: The list, for messages.

    Returns:
        The utterances, with durations in milliseconds where they are in seconds and without where
        they cannot be either, and what is to be said of it and of ids.

    Raises:
        InputError: The rows are of another format, in which the durations are words.
    """
    notes, name = [], list_name(path)
    renamed = [utterance.id for utterance in utterances if utterance.renamed]
    if renamed:
        notes.append(
            f"{name}: {len(renamed)} ids are made of the folder or offset of an audio file "
            f'too, as {renamed[0]!r}: its name comes twice (else give each line an "id")'
        )
    known = [
        (utterance, frames[utterance.id], utterance.duration_milliseconds)
        for utterance in utterances
        if utterance.duration_milliseconds and frames.get(utterance.id)
    ]
    if not known:
        return [*utterances], notes
    shift = statistics.median(duration / count for _, count, duration in known)
    first, count, duration = known[0]
    if LEAST_SHIFT <= shift <= MOST_SHIFT:
        if len(known) > 2 and len({count for _, count, _ in known}) == 1:
            low, *_, high = sorted(duration for *_, duration in known)
            if high > 1.5 * low:
                notes.append(
                    f"{name}: all utterances have {count} frames, but are {low / 1000:g} to "
                    f"{high / 1000:g} s long: padded frames are decoded too, cut them (--lengths)"
                )
        return [*utterances], notes
    words = all(length.is_integer() and not is_sound(u.path, u.id) for u, _, length in known)
    if shift < LEAST_SHIFT and first.path and words:
        row = " ".join([first.id, first.path, f"{duration:g}", *first.reference])
        why = f"{duration:g} ms cannot be for {count} frames: "
        raise InputError(why + ambiguous(row), path=path)
    factor = 1000.0 if shift < LEAST_SHIFT else 0.001
    meant = LEAST_SHIFT <= shift * factor <= MOST_SHIFT / 2
    taken = ("as seconds" if factor > 1 else "as milliseconds") if meant else "as not known"
    notes.append(
        f"{name}: {duration:g} ms cannot be the length of the {count} frames of {first.id!r}: "
        f"all durations are taken {taken}"
    )
    return [
        replace(u, duration_milliseconds=u.duration_milliseconds * factor if meant else None)
        if u.duration_milliseconds
        else u
        for u in utterances
    ], notes


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
