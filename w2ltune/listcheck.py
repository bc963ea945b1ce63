"""What a training would stumble over in its lists: rows, audio files, words without a spelling.

Lists of a training may be long (LibriSpeech has 281,000 utterances), so each is read once and fast;
a list that is not as it should be is read again by `iterate_list`, whose errors name the line.
"""

from __future__ import annotations

import codecs
import math
import os
from collections.abc import Collection, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from stat import S_ISREG

from w2ltune.embedded.decoderfiles import UNKNOWN_WORD, read_lexicon
from w2ltune.errors import InputError, UsageError
from w2ltune.formats.listfile import iterate_list, read_list
from w2ltune.formats.spelling import why_unlike, why_unspelled

AUDIO_FILES_AT_ONCE = 1000
MOST_THREADS = 16
"""That look for audio files, each for so many at once."""

WORDS_SHOWN = 5


@dataclass(frozen=True, kw_only=True)
class ListContent:
    """What is checked of a list.

    Attributes:
        path: The file.
        ids: Of its utterances.
        words: All different ones of its references.
    """

    path: Path
    ids: Collection[bytes]
    words: frozenset[str]


def joined_path(folder: str, name: str) -> str:
    """Return a path as the binaries join it: an absolute name goes behind the folder too."""
    return f"{folder}{name}" if not folder or folder.endswith("/") else f"{folder}/{name}"


def read_content(path: Path, *, audio: bool) -> ListContent:
    """Read a list and look for its audio files.

    Args:
        path: The list.
        audio: The program reads audio, out of lists in wav2letter's format; else it is w2ltune's
            own, which takes all formats and only what is in memory anyway.

    Raises:
        InputError: It is empty, a row cannot be read, an id comes twice, or an audio file is
            missing.
    """
    if not audio:
        utterances = read_list(path)
        return ListContent(
            path=path,
            ids=frozenset(utterance.id.encode("utf-8") for utterance in utterances),
            words=frozenset(word for utterance in utterances for word in utterance.reference),
        )
    ids: list[bytes] = []
    places: list[tuple[int, bytes]] = []
    words: set[bytes] = set()
    with path.open("rb") as file:
        for number, row in enumerate(file, start=1):
            columns = row.split(None, 3)
            if not columns:
                if row != b"\n":
                    message = "a line of blanks only, at which the program ends; remove it"
                    raise InputError(message, path=path, line=number)
                continue
            if len(columns) < 3 or not _is_duration(columns[2]):
                raise _explained(path)
            ids.append(columns[0])
            places.append((number, columns[1]))
            if len(columns) == 4:
                words.update(columns[3].split())
    different = frozenset(ids)
    if not ids or len(different) < len(ids) or ids[0].startswith(codecs.BOM_UTF8):
        raise _explained(path)
    try:
        decoded = frozenset(word.decode("utf-8") for word in words)
    except UnicodeDecodeError:
        raise _explained(path) from None
    _look_for_audio(path, places)
    return ListContent(path=path, ids=different, words=decoded)


def overlap_notes(train: Iterable[ListContent], valid: Sequence[ListContent]) -> list[str]:
    """Say which validation lists have utterances that are trained on."""
    notes = []
    trained = [content.ids for content in train]
    for content in valid:
        common = sum(any(name in ids for ids in trained) for name in content.ids)
        if common:
            notes.append(
                f"{common} of the {len(content.ids)} utterances of {content.path.name} are in the "
                "training lists too: its WER will look too good"
            )
    return notes


def refuse_unknown_word(words: Collection[str], whose: str, *, path: Path | None = None) -> None:
    """Refuse ``<unk>`` in a reference: the programs look for its spelling and crash."""
    if UNKNOWN_WORD in words:
        raise InputError(
            f"{whose} has the word {UNKNOWN_WORD}, at which the programs crash (SIGSEGV): write "
            "the word that was said",
            path=path,
        )


def check_words(
    lists: Sequence[ListContent],
    lexicon: Path | None,
    tokens: Collection[str],
    *,
    skips_letters: bool,
    separator: str = "|",
    maxword: int = -1,
    decodes: bool = False,
) -> list[str]:
    """Hold the words of the references against the lexicon and the tokens.

    Args:
        lists: What was read.
        lexicon: Spellings; None: the lexicon is not known.
        tokens: Names of the tokens; empty: they are not known.
        skips_letters: The program leaves out letters without a token; else it ends.
        separator: Flag ``--wordseparator``: part of words that are spelled by letters.
        maxword: Words of the lexicon that are read; below 0 all.
        decodes: The program makes a decoder of the whole lexicon, as a training with ``--lm`` does.

    Returns:
        A note for each list with words outside the lexicon, or letters without a token.

    Raises:
        InputError: A word needs a token that does not exist, or is ``<unk>``.
    """
    for content in lists:
        refuse_unknown_word(content.words, "a reference", path=content.path)
    if lexicon is None:
        return []
    if decodes and tokens and separator and separator not in tokens:
        raise UsageError(
            f"--lm in a training with --wordseparator={separator}, which is no token: the program "
            "ends of it; name the separator of the tokens, or leave out --lm"
        )
    left = set().union(*(content.words for content in lists))
    known = set()
    for number, word, spelling in read_lexicon(lexicon, maxword=maxword):
        known.add(word)
        if word not in left and not decodes:
            continue
        left.discard(word)  # the program takes the first spelling
        unknown = [token for token in spelling if tokens and token not in tokens]
        if unknown:
            why = why_unlike(unknown, tokens)
            raise InputError(
                f"the spelling of {word!r} needs the token {unknown[0]!r}, which --tokens lacks"
                + (f"; {why}" if why else ""),
                path=lexicon,
                line=number,
            )
    notes = []
    for content in lists:
        outside = sorted(content.words & left)
        if outside:
            why = why_unlike(outside, known)
            notes.append(
                f"{len(outside)} of the {len(content.words)} words of {content.path.name} are not "
                f"in the lexicon and will be spelled by letters: {_first(outside)}"
                + (f"; {why}" if why else "")
            )
        if outside and tokens and separator and separator not in tokens:
            raise InputError(
                f"the word {outside[0]!r} is not in the lexicon, so that it is spelled by letters "
                f"and the word separator, and --wordseparator={separator} is no token: the program "
                "ends of it; add the word to --lexicon, or name the separator of the tokens",
                path=content.path,
            )
        letters = sorted({letter for word in outside for letter in word} - {*tokens})
        if tokens and letters:
            why = why_unspelled(outside, tokens)
            lacking = f"the tokens lack {_first([repr(letter) for letter in letters])}"
            lacking += f" ({why})" if why else ""
            if not skips_letters:
                word = next(word for word in outside if letters[0] in word)
                raise InputError(
                    f"the word {word!r} is spelled by letters, and {lacking}; "
                    "add the word to --lexicon, or the letters to --tokens",
                    path=content.path,
                )
            notes.append(f"{lacking}: the program leaves them out of words of {content.path.name}")
    return notes


def _is_duration(column: bytes) -> bool:
    try:
        return 0 <= float(column) < math.inf
    except ValueError:
        return False


def _explained(path: Path) -> InputError:
    """Return what is wrong with a list, by the slow reader, which also knows other formats."""
    try:
        for _ in iterate_list(path):
            pass
    except InputError as error:
        return error
    return InputError("no list for training, whose rows are 'id path duration words...'", path=path)


def _look_for_audio(path: Path, places: Sequence[tuple[int, bytes]]) -> None:
    parts = [
        places[first : first + AUDIO_FILES_AT_ONCE]
        for first in range(0, len(places), AUDIO_FILES_AT_ONCE)
    ]
    with ThreadPoolExecutor(MOST_THREADS) as threads:  # a file server answers many at a time
        sizes = [size for part in threads.map(_sizes, parts) for size in part]
    for what, wrong in (
        ("no audio file", [row for row, size in enumerate(sizes) if size < 0]),
        ("empty audio file", [row for row, size in enumerate(sizes) if size == 0]),
    ):
        if wrong:
            line, sound = places[wrong[0]]
            name = os.fsdecode(sound)
            hint = (
                ""
                if Path(name).is_absolute()
                else f" in {Path.cwd()}, where the program looks for it"
            )
            many = f" ({len(wrong)} of {len(sizes)} are such)"
            raise InputError(f"{what} {name!r}{hint}{many}", path=path, line=line)


def _sizes(places: Sequence[tuple[int, bytes]]) -> list[int]:
    """Return the sizes of some files in bytes, -1 for one that is not there."""
    found = []
    for _, sound in places:
        try:
            status = os.stat(sound)  # noqa: PTH116 (bytes)
            found.append(status.st_size if S_ISREG(status.st_mode) else -1)
        except (OSError, ValueError):
            found.append(-1)
    return found


def _first(words: Sequence[str]) -> str:
    return ", ".join(words[:WORDS_SHOWN]) + (", …" if len(words) > WORDS_SHOWN else "")
