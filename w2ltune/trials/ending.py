"""How a model ends an utterance: many letter models write the word separator between words only.

The lexicon ends each word with the separator, and the decoder must end in a whole word: without a
frame in which it can be written, last words are lost. They are given one. It costs nothing, for the
separator or for the blank: words that are whole already stay as they are.
"""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Sequence
from pathlib import Path

from w2ltune.embedded.decoderfiles import read_lexicon
from w2ltune.embedded.decoderflags import DecoderFlags
from w2ltune.errors import InputError
from w2ltune.trials.dataset import Dataset, shuffled_order

MOST_UTTERANCES = 200
MOST_SPELLINGS = 2000


def end_tokens(dataset: Dataset, flags: DecoderFlags, tokens: Sequence[str]) -> tuple[int, ...]:
    """Return what may be written in a frame behind each utterance; nothing where none is needed.

    Args:
        dataset: The lists, with emissions whose columns are the tokens and the blank.
        flags: Of the decoder.
        tokens: Names, without the blank.
    """
    separator = flags.wordseparator
    if (
        flags.criterion != "ctc"
        or flags.usewordpiece
        or not flags.uselexicon
        or separator not in tokens
        or not dataset.emission_sets
        or not _ends_words(Path(flags.lexicon), flags.maxword, separator)
    ):
        return ()
    index, blank = tokens.index(separator), len(tokens) + flags.replabel
    between, last, heard = 0, 0, 0
    with contextlib.suppress(
        InputError, KeyError
    ):  # what is missing or damaged is told by the next check
        for utterance in shuffled_order(dataset.dev_count)[:MOST_UTTERANCES]:
            emission = dataset.emission(utterance)
            if emission.shape[1] != blank + 1:
                return ()
            written = emission.argmax(axis=1)
            written = written[written != blank]
            heard += len(written) > 0
            between += index in written[:-1]
            last += len(written) > 0 and written[-1] == index
    return (index, blank) if between and 2 * last < heard else ()


def _ends_words(lexicon: Path, maxword: int, separator: str) -> bool:
    """Whether nearly all of the first spellings end with the separator."""
    rows = itertools.islice(read_lexicon(lexicon, maxword=maxword), MOST_SPELLINGS)
    ends = [spelling[-1] == separator for _, _, spelling in rows]
    return sum(ends) > 0.9 * len(ends)
