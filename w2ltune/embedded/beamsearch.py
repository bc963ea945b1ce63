"""Beam-search decoding in process: flashlight-text with KenLM, as fl_asr_decode does it.

For CTC and ASG with an n-gram LM the words and scores are those of the C++ binary. The decoder
holds the interpreter lock, so that parallel decoding needs processes; nothing here can be pickled:
each process loads its own `Decoder`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import KeysView, Sequence
from functools import cache, cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from w2ltune.embedded.decoderfiles import (
    UNKNOWN_WORD,
    added_tokens,
    dictionary_of,
    read_lexicon,
    read_tokens,
)
from w2ltune.embedded.decoderflags import DecoderFlags, refuse_in_process
from w2ltune.embedded.kenlm import import_flashlight, lm_words, load_kenlm, quiet_stderr
from w2ltune.errors import InputError, did_you_mean, existing_file
from w2ltune.files import shaped
from w2ltune.formats.beamdump import Hypothesis
from w2ltune.formats.blanks import split_words
from w2ltune.formats.npz import read_npy
from w2ltune.formats.spelling import why_unlike

WORDS_OF_A_SPELLING = 6
"""So many words of one spelling the trie keeps (its ``kTrieMaxLabel``)."""


class Decoder:
    """Tokens, lexicon, LM and trie, loaded once; decodes with any weights and beam.

    Args:
        flags: Says what to load; ``weights`` of later calls may differ in weights and beam.
        to_decode: Else only the inputs are looked at, and the trie, which takes long, is left out.

    Raises:
        InputError: A file is missing, damaged or does not fit the others.
        UsageError: flashlight-text is not installed.
    """

    def __init__(self, flags: DecoderFlags, *, to_decode: bool = True) -> None:
        refuse_in_process(flags)
        self._text, self._dictionary = import_flashlight()[:2]
        self.flags = flags
        self.token_names = read_tokens(flags.tokens_path)
        added = added_tokens(flags.criterion, replabel=flags.replabel, generation="flashlight")
        dictionary_of(flags.tokens_path, added)
        self._token_dict = self._dictionary.Dictionary(str(flags.tokens_path))
        for token in added:
            self._token_dict.add_entry(token)
        self.token_count: int = self._token_dict.index_size()
        self.columns = [self._token_dict.get_entry(index) for index in range(self.token_count)]
        self._blank = self.token_count - 1 if flags.criterion == "ctc" else -1
        self._has_silence = self._index(flags.wordseparator) >= 0
        self._sil = self._silence()
        self._transitions = self._load_transitions()
        self._spellings = self._load_lexicon() if flags.lexicon else {}
        self._crowded = self._is_crowded()
        if self._crowded:
            self._spellings = self._in_order_of_the_binary()
        self._word_dict = self._dictionary.Dictionary()
        for word in self._spellings:
            self._word_dict.add_entry(word)
        if UNKNOWN_WORD not in self._spellings:
            self._word_dict.add_entry(UNKNOWN_WORD)
        self._unknown = self._word_dict.get_index(UNKNOWN_WORD)
        self._word_dict.set_default_index(self._unknown)
        self._lm = self._load_lm()
        self._trie = self._build_trie() if flags.uselexicon and to_decode else None

    def _index(self, token: str) -> int:
        return int(self._token_dict.get_index(token)) if self._token_dict.contains(token) else -1

    def _silence(self) -> int:
        """Return the token in which a word may begin late: the separator, else CTC's blank.

        With -1 the library would read outside of the emission.
        """
        if self._has_silence:
            return self._index(self.flags.wordseparator)
        if self._blank < 0:
            raise InputError(
                f"the word separator {self.flags.wordseparator!r} is not in the token list, and "
                "ASG cannot do without; set --wordseparator",
                path=self.flags.tokens_path,
            )
        return self._blank

    def _load_transitions(self) -> list[float]:
        if self.flags.criterion != "asg":
            return []
        path = existing_file(self.flags.transitions, "transitions (--transitions)")
        with shaped(path, "not a .npy file"):
            array = read_npy(path)
        square = array.dtype.kind in "fiu" and array.shape == (self.token_count,) * 2
        if not square or not np.isfinite(array).all():
            raise InputError(
                f"transitions of shape {array.shape} ({array.dtype}); {self.token_count} tokens "
                f"need finite [{self.token_count}, {self.token_count}]",
                path=path,
            )
        return [float(value) for value in array.astype(np.float32).ravel()]

    def _load_lexicon(self) -> dict[str, list[list[int]]]:
        spellings: dict[str, list[list[int]]] = {}
        path = Path(self.flags.lexicon)
        index_of = cache(self._index)  # millions of tokens, a few dozen different ones
        for line, word, tokens in read_lexicon(path, maxword=self.flags.maxword):
            indices = [*map(index_of, tokens)]
            if -1 in indices:
                token = tokens[indices.index(-1)]
                why = why_unlike([token], self.token_names)
                raise InputError(
                    f"token {token!r} in the spelling of {word!r} is not in {self.flags.tokens}"
                    f"{f'; {why}' if why else did_you_mean(token, self.token_names)}",
                    path=path,
                    line=line,
                )
            if self.flags.replabel:
                indices = self._dictionary.pack_replabels(
                    indices, self._token_dict, self.flags.replabel
                )
            spellings.setdefault(word, []).append(indices)
        return spellings

    def _in_order_of_the_binary(self) -> dict[str, list[list[int]]]:
        """Return the lexicon in the order of a hash table in which the binary fills its trie."""
        order = self._dictionary.load_words(self.flags.lexicon, self.flags.maxword)
        ours = self._spellings
        return {word: ours[word] for word in [*order, *ours] if word in ours}

    def _is_crowded(self) -> bool:
        """Whether more words have one spelling than the trie keeps."""
        counts = Counter(tuple(own) for several in self._spellings.values() for own in several)
        return max(counts.values(), default=0) > WORDS_OF_A_SPELLING

    def _load_lm(self) -> Any:
        if not self.flags.lm:
            return self._text.ZeroLM()
        path = existing_file(self.flags.lm, "language model (--lm)")
        entries = self._word_dict if self.flags.word_lm else self._token_dict
        return load_kenlm(path, entries)

    def _build_trie(self) -> Any:
        trie = self._text.Trie(self.token_count, self._sil)
        start = self._lm.start(False)
        with quiet_stderr():  # it says for each of the words that are crowded out
            for word, spellings in self._spellings.items():
                index = self._word_dict.get_index(word)
                # As in fl_asr_decode: a token LM leaves the trie's word scores at -1.
                score = self._lm.score(start, index)[1] if self.flags.word_lm else -1.0
                for spelling in spellings:
                    trie.insert(spelling, index, score)
        modes = self._text.SmearingMode
        trie.smear(
            {"none": modes.NONE, "max": modes.MAX, "logadd": modes.LOGADD}[self.flags.smearing]
        )
        return trie

    @property
    def words(self) -> KeysView[str]:
        """The words of the lexicon."""
        return self._spellings.keys()

    def spellings(self, word: str) -> list[list[str]]:
        """Return the spellings of a word in tokens; none for a word outside the lexicon."""
        return [self._unpacked(spelling) for spelling in self._spellings.get(word, ())]

    def crowded_out(self) -> list[str]:
        """Return the words that can never be decoded: the trie keeps six words of one spelling."""
        lost = []
        written: Counter[tuple[int, ...]] = Counter()
        for word, several in self._spellings.items() if self._crowded else ():
            kept = not several
            for own in map(tuple, several):
                written[own] += 1
                kept |= written[own] <= WORDS_OF_A_SPELLING
            if not kept:
                lost.append(word)
        return lost

    def shortest_spelling(self, word: str) -> int | None:
        """Return the number of tokens of the word's shortest spelling; None if it has none."""
        return min((len(spelling) for spelling in self._spellings.get(word, ())), default=None)

    @cached_property
    def lm_words(self) -> frozenset[str] | None:
        """The words, or tokens, that the LM knows; None where its file does not tell."""
        return lm_words(Path(self.flags.lm)) if self.flags.lm else frozenset()

    def words_unknown_to_lm(self) -> list[str]:
        """Return the words of the lexicon that the LM does not know (it scores them as unknown)."""
        if not self.flags.lm or not self.flags.word_lm:
            return []
        words = [word for word in self._spellings if word != UNKNOWN_WORD]
        if self.lm_words is not None:
            return [word for word in words if word not in self.lm_words]
        # An n-gram LM gives every unknown word one and the same score. It may give that score to
        # words that it knows too, which cannot be told in a binary without its words.
        start = self._lm.start(True)
        scores = [self._lm.score(start, self._word_dict.get_index(word))[1] for word in words]
        unknown_score = self._lm.score(start, self._unknown)[1]
        return [word for word, score in zip(words, scores, strict=True) if score == unknown_score]

    def decode(
        self, emission: npt.NDArray[np.float32], weights: DecoderFlags, *, nbest: int | None = None
    ) -> list[Hypothesis]:
        """Return the hypotheses of one utterance, best first.

        Args:
            emission: [frames, tokens] network outputs; float32 and C-contiguous, because the
                library takes a bare pointer and would read anything else as garbage.
            weights: Weights and beam; its loaded part must be this decoder's.
            nbest: Return so many at most; None returns all that the beam held.

        Raises:
            ValueError: The emission has another type, layout or width.
        """
        _guard(emission, self.token_count)
        results = self.search(weights).decode(
            emission.ctypes.data, emission.shape[0], emission.shape[1]
        )
        return [self._hypothesis(result) for result in results[:nbest]]

    def search(self, weights: DecoderFlags) -> Any:
        """Return flashlight's decoder object for these weights and this beam."""
        if weights.loaded != self.flags.loaded:
            raise ValueError("these flags need another lexicon, LM or token list to be loaded")
        if weights.uselexicon and self._trie is None:
            raise ValueError("this decoder was loaded to look at the inputs only")
        kinds = self._text.CriterionType
        criterion = kinds.CTC if weights.criterion == "ctc" else kinds.ASG
        common = {
            "beam_size": weights.beamsize,
            "beam_size_token": min(weights.beamsizetoken, self.token_count),
            "beam_threshold": weights.beamthreshold,
            "lm_weight": weights.lmweight,
            "sil_score": weights.silscore if self._has_silence else 0.0,
            "log_add": weights.logadd,
            "criterion_type": criterion,
        }
        if self._trie is None:
            return self._text.LexiconFreeDecoder(
                self._text.LexiconFreeDecoderOptions(**common),
                self._lm, self._sil, self._blank, self._transitions,
            )  # fmt: skip
        options = self._text.LexiconDecoderOptions(
            word_score=weights.wordscore, unk_score=weights.unkscore, **common
        )
        return self._text.LexiconDecoder(
            options, self._trie, self._lm, self._sil, self._blank, self._unknown,
            self._transitions, not weights.word_lm,
        )  # fmt: skip

    def _hypothesis(self, result: Any) -> Hypothesis:
        tokens = result.tokens
        if self._trie is None:
            words, unknown = self.words_of(tokens), 0
        else:
            found = [index for index in result.words if index >= 0]
            known = [index for index in found if index != self._unknown]
            words = tuple(self._word_dict.get_entry(index) for index in known)
            unknown = len(found) - len(known)
        return Hypothesis(
            words=words,
            score=result.score,
            am_score=result.emittingModelScore,
            lm_score=result.lmScore,
            unknown_words=unknown,
            # The search starts and ends in silence without scoring these two.
            silence_frames=tokens.count(self._sil) - 2 if self._has_silence else 0,
        )

    def words_of(self, frame_tokens: Sequence[int]) -> tuple[str, ...]:
        """Return the words that a token index for each frame spells, without a lexicon."""
        return self.words_spelled(self._tokens_of(frame_tokens))

    def _tokens_of(self, frame_tokens: Sequence[int]) -> list[str]:
        """Return the tokens of frames as flashlight does: no repeats, blanks, or ``surround``."""
        collapsed = [
            token
            for before, token in zip([-1, *frame_tokens], frame_tokens, strict=False)
            if token != before and token >= 0 and token != self._blank
        ]
        return [name for name in self._unpacked(collapsed) if name != self.flags.surround]

    def _unpacked(self, tokens: Sequence[int]) -> list[str]:
        if self.flags.replabel:
            unpack = self._dictionary.unpack_replabels
            tokens = unpack(tokens, self._token_dict, self.flags.replabel)
        return [self.columns[index] for index in tokens]

    def words_spelled(self, tokens: Sequence[str]) -> tuple[str, ...]:
        """Return the words that tokens make, split at the word separator as flashlight does."""
        separator = self.flags.wordseparator
        if self.flags.usewordpiece and separator:
            # The separator is the first character of a piece.
            return tuple(split_words("".join(tokens).replace(separator, " ")))
        return tuple(split_words("".join(" " if name == separator else name for name in tokens)))

    def best_tokens(self, emission: npt.NDArray[np.float32]) -> list[str]:
        """Return the tokens of the best token of each frame, without search, LM or lexicon."""
        _guard(emission, self.token_count)
        return self._tokens_of(emission.argmax(axis=1).tolist())


def _guard(emission: npt.NDArray[np.float32], token_count: int) -> None:
    if (
        emission.dtype != np.float32
        or emission.ndim != 2
        or not emission.flags.c_contiguous
        or emission.shape[1] != token_count
    ):
        raise ValueError(
            f"an emission must be C-contiguous float32 [frames, {token_count}], "
            f"not {emission.dtype} {emission.shape}"
        )
