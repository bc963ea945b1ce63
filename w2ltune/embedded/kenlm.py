"""N-gram language models, ARPA or binary, through the KenLM inside flashlight-text."""

from __future__ import annotations

import contextlib
import functools
import math
import mmap
import os
import re
import signal
import struct
import subprocess
import sys
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from w2ltune.embedded.decoderfiles import check_lm_head, missing_ngrams, open_lm
from w2ltune.errors import InputError, UsageError, existing_file

_MAGIC = b"mmap lm http://kheafield.com/code format version 5"
_HEADER = struct.Struct("<50s50x?7xQ")
"""Of a KenLM binary: the magic, whether the words are in the file, and how many they are."""

COUNTED_BYTES = 2**30
"""Of an LM that cannot be loaded; counting the lines of a larger one would take minutes."""

TRIED_WORDS = 10_000
"""Of a KenLM binary, scored by a child before it is used."""

_UNKNOWN = {"<unk>", "<UNK>"}
NEVER_A_WORD = "<no such word>"
"""Unknown to every LM: a blank is in no word."""


class SentenceLM:
    """Scores sentences.

    Args:
        path: The LM.
        words: All that may come in a sentence; KenLM looks them up once.

    Raises:
        InputError: It is missing, damaged or no LM.
        UsageError: flashlight-text is not installed.
    """

    def __init__(self, path: Path, words: Iterable[str]) -> None:
        existing_file(path, "language model (--lm)")
        _, dictionary, _ = import_flashlight()
        entries = dictionary.Dictionary()
        self._index: dict[str, int] = {}
        for word in (NEVER_A_WORD, *words):
            if word not in self._index:
                self._index[word] = len(self._index)
                entries.add_entry(word)
        self._lm = load_kenlm(path, entries)
        nothing = self._lm.start(True)
        scores = {word: self._lm.score(nothing, n)[1] for word, n in self._index.items()}
        # An n-gram LM gives every unknown word one and the same score, and it may give it to words
        # that it knows.
        unknown = {w for w, score in scores.items() if score == scores[NEVER_A_WORD]}
        self._unknown = unknown - (lm_words(path) or set()) if len(unknown) > 1 else unknown

    def score(self, sentences: Sequence[list[str]]) -> npt.NDArray[np.float64]:
        """Return natural log probabilities, with the beginning and the end of the sentence.

        Args:
            sentences: The words of each. Unknown ones get what the LM has for ``<unk>``.

        Returns:
            float64 [sentences, 3]: log probability, unknown words, words.
        """
        found = np.empty((len(sentences), 3))
        # Neighbours in sorted order begin alike: their common words are scored once.
        before: list[str] = []
        states, sums = [self._lm.start(False)], [0.0]
        for number in sorted(range(len(sentences)), key=lambda n: sentences[n]):
            words = sentences[number]
            common = _common_prefix(before, words)
            del states[common + 1 :], sums[common + 1 :]
            for word in words[common:]:
                state, score = self._lm.score(states[-1], self._index[word])
                states.append(state)
                sums.append(sums[-1] + score)
            log10 = sums[-1] + self._lm.finish(states[-1])[1]
            unknown = sum(word in self._unknown for word in words)
            found[number] = log10 * math.log(10), unknown, len(words)
            before = words
        return found


def _common_prefix(one: Sequence[str], other: Sequence[str]) -> int:
    most = min(len(one), len(other))
    return next((n for n in range(most) if one[n] != other[n]), most)


def load_kenlm(path: Path, entries: Any) -> Any:
    """Return flashlight's LM object for a file, which takes the indices of its dictionary.

    Raises:
        InputError: The file is damaged or no LM.
        UsageError: flashlight-text is not installed.
    """
    _, _, kenlm = import_flashlight()
    check_lm_head(path)
    with open_lm(path) as file:
        if file.read(8) == b"mmap lm ":
            words = [entries.get_entry(n) for n in range(min(entries.index_size(), TRIED_WORDS))]
            _try_elsewhere(path.absolute(), path.stat().st_mtime_ns, "\n".join(words))
    try:
        with quiet_stderr():
            return kenlm.KenLM(str(path), entries)
    except (RuntimeError, ValueError, OSError) as error:
        raise InputError(_why_not_loaded(path, str(error)), path=path) from None


_TRIAL = """
import random
import sys
sys.path = [path for path in sys.path if path]  # without the current folder, which may be anyone's
from flashlight.lib.text.decoder.kenlm import KenLM
from flashlight.lib.text.dictionary import Dictionary
entries = Dictionary()
for word in sys.stdin.buffer.read().decode("utf-8", "replace").split("\\n"):
    entries.add_entry(word)
lm = KenLM(sys.argv[1], entries)
state, order = lm.start(False), list(range(entries.index_size()))
for _ in range(4):
    for index in order:
        lm.score(lm.start(False), index)
        state, _ = lm.score(state, index)
        lm.finish(state)
    random.Random(0).shuffle(order)
"""


@functools.cache
def _try_elsewhere(path: Path, changed: int, words: str) -> None:
    """Let a child load a KenLM binary and score words: of a damaged one KenLM may die."""
    done = subprocess.run(
        [sys.executable, "-c", _TRIAL, path],
        input=words.encode("utf-8", "replace"),
        capture_output=True,
        check=False,
    )
    if done.returncode < 0:
        name = signal.Signals(-done.returncode).name
        raise InputError(f"damaged: KenLM dies of it ({name}); build it anew", path=path)


def _why_not_loaded(path: Path, said: str) -> str:
    """Return what KenLM says, without the place in its source, and which n-grams are missing."""
    reason = re.sub(r"^\S+:\d+ in .*? threw \S+?(?: because `.*?')?\. ", "", " ".join(said.split()))
    missing = missing_ngrams(path) if path.stat().st_size < COUNTED_BYTES else ""
    return f"KenLM cannot load this language model: {reason[-300:]}" + (missing and f"; {missing}")


def lm_words(path: Path) -> frozenset[str] | None:
    """Return the words that an LM knows; None where a KenLM binary was built without them."""
    with open_lm(path) as file:
        head = file.read(_HEADER.size)
        if not head.startswith(b"mmap lm "):
            file.seek(0)
            return frozenset(_unigrams(file)) - _UNKNOWN
        magic, has_words, count = _HEADER.unpack(head)
        if magic != _MAGIC or not has_words:
            return None
        # The words are the last thing in the file, each with a zero behind it.
        with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
            begin = len(content) - 1
            for _ in range(count):
                begin = content.rfind(b"\0", 0, begin)
            words = content[begin + 1 : -1].decode(errors="replace").split("\0")
    return frozenset(words) - _UNKNOWN if words[0] in _UNKNOWN else None


def _unigrams(file: Iterable[bytes]) -> Iterator[str]:
    inside = False
    for line in file:
        if line.startswith(b"\\"):
            if inside:
                return
            inside = line.startswith(b"\\1-grams:")
        elif inside and len(columns := line.split()) > 1:
            yield columns[1].decode(errors="replace")


def import_flashlight() -> tuple[Any, Any, Any]:
    """Return flashlight-text's modules decoder, dictionary and kenlm.

    Raises:
        UsageError: It is not installed.
    """
    try:
        from flashlight.lib.text import decoder, dictionary
        from flashlight.lib.text.decoder import kenlm
    except ImportError as error:
        raise UsageError(
            f"the embedded decoder and KenLM need flashlight-text ({error}); it has wheels for "
            "Python 3.10 to 3.12: use one of these (pip install flashlight-text==0.0.7), or give "
            "--binary for decodes, --command for LM scores"
        ) from None
    return decoder, dictionary, kenlm


@contextlib.contextmanager
def quiet_stderr() -> Iterator[None]:
    """Keep KenLM's own progress bar off the terminal; it writes past Python."""
    kept = os.dup(2)
    try:
        with Path(os.devnull).open("wb") as nowhere:
            os.dup2(nowhere.fileno(), 2)
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
