"""How a model begins and ends an utterance, where the lexicon has all words begin or end alike.

Many letter models write the word separator between words only. The decoder must end in a whole
word, which the lexicon ends with the separator: without a frame in which it can be written, last
words are lost. They are given one. It costs nothing, for the separator or for the blank: words that
are whole already stay as they are.
"""

from __future__ import annotations

import contextlib
import itertools
from collections import defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path

from w2ltune.embedded.decoderfiles import read_lexicon
from w2ltune.embedded.decoderflags import DecoderFlags
from w2ltune.errors import InputError
from w2ltune.formats.padding import repeated_end
from w2ltune.trials.dataset import Dataset, shuffled_order

MOST_UTTERANCES = 200
MOST_SPELLINGS = 2000
MOST_EMISSIONS = 500

USUAL = 0.9
"""Of utterances that end, or begin, as the words of the lexicon do."""


def end_tokens(
    dataset: Dataset, flags: DecoderFlags, tokens: Sequence[str]
) -> tuple[tuple[int, ...], str]:
    """Return what may be written in a frame behind each utterance, and why; else nothing and "".

    Args:
        dataset: The lists, with emissions whose columns are the tokens and the blank.
        flags: Of the decoder.
        tokens: Names, without the blank.
    """
    separator = flags.wordseparator
    if flags.usewordpiece or separator not in tokens or not _spells(flags, ending=separator):
        return (), ""
    ends = [written[-1] == separator for written in _written(dataset, flags, tokens)]
    if sum(ends) >= USUAL * len(ends):
        return (), ""
    return (tokens.index(separator), len(tokens) + flags.replabel), (
        f"{ends.count(False)} of {len(ends)} utterances do not end with the word separator "
        f"{separator!r}, the lexicon's words do"
    )


def bare_beginnings(dataset: Dataset, flags: DecoderFlags, tokens: Sequence[str]) -> str:
    """Return that first words are written without the mark of word pieces, or ""."""
    mark = flags.wordseparator
    if not flags.usewordpiece or not mark or not _spells(flags, beginning=mark):
        return ""
    begins = [written[0].startswith(mark) for written in _written(dataset, flags, tokens)]
    if sum(begins) >= USUAL * len(begins):
        return ""
    return (
        f"{begins.count(False)} of {len(begins)} utterances do not begin with {mark!r}, the "
        "lexicon's words do"
    )


def padding_note(dataset: Dataset) -> str:
    """Return that emissions end in a frame that is perhaps padding, and no blank, or ""."""
    counts: dict[bytes, list[int]] = defaultdict(list)
    for index in range(min(MOST_EMISSIONS, len(dataset.ids)) if dataset.emission_sets else 0):
        emission = dataset.as_given(index)
        if len(emission) and emission[-1].argmax() != emission.shape[1] - 1:
            frame, count = repeated_end(emission)
            counts[frame].append(count)
    several = [own for own in counts.values() if len(set(own)) > 1 and max(own) > 2]
    if not several:
        return ""
    return (
        f"{sum(map(len, several))} emissions end in one and the same frame, up to "
        f"{max(map(max, several))} times; if that is padding, cut each emission to its own frames"
    )


def _written(
    dataset: Dataset, flags: DecoderFlags, tokens: Sequence[str]
) -> Iterator[tuple[str, ...]]:
    """Yield the best tokens of utterances in which there are some."""
    if flags.criterion != "ctc" or not dataset.emission_sets:
        return
    blank = len(tokens) + flags.replabel
    with contextlib.suppress(InputError, KeyError):  # damage is told by the next check
        for utterance in shuffled_order(dataset.dev_count)[:MOST_UTTERANCES]:
            emission = dataset.as_given(utterance)
            if emission.shape[1] != blank + 1:
                return
            best = emission.argmax(axis=1)
            written = tuple(tokens[index] for index in best if index < len(tokens))
            if written:
                yield written


def _spells(flags: DecoderFlags, *, beginning: str = "", ending: str = "") -> bool:
    """Whether nearly all words of the lexicon begin and end so; a token may stand for both."""
    if not flags.uselexicon:
        return False
    rows = itertools.islice(
        read_lexicon(Path(flags.lexicon), maxword=flags.maxword), MOST_SPELLINGS
    )
    fits = [
        spelling[0].startswith(beginning) and spelling[-1].endswith(ending)
        for _, _, spelling in rows
    ]
    return sum(fits) >= USUAL * len(fits)
