"""fl_asr_decode of flashlight v0.3 and Decoder of wav2letter v0.2.

The search itself is the real one, by flashlight-text; all around it (flags, files, output, ways to
die) is as captured. Without ``--emission_dir`` the acoustic model must be one of the double.
"""

from __future__ import annotations

import os
import signal
import struct
import sys
import time
from array import array
from pathlib import Path
from typing import Any, NamedTuple, NoReturn

from fldouble import corpus, evaluate
from fldouble.corpus import Sample, split_words
from fldouble.flags import Flags
from fldouble.log import CppError, Log, die_uncaught, die_with_trace, set_signals
from fldouble.model import load_config, load_progress, retry

UNKNOWN = "<unk>"


class Hypothesis(NamedTuple):
    """What the search found for an utterance, best first in a list."""

    words: list[str]
    score: float
    am_score: float
    lm_score: float


def main(argv: list[str]) -> NoReturn:
    """Run as the program that ``argv[0]`` names, with its exit code or its death."""
    set_signals()
    is_wav2letter = Path(argv[0]).name == "Decoder"
    flags = Flags(argv[0], "wav2letter" if is_wav2letter else "flashlight")
    log = Log(flags, "Decode.cpp", short_stamp=is_wav2letter)
    try:
        _run(argv, flags, log, is_wav2letter)
    except CppError as error:
        die_uncaught(error)
    sys.exit(0)


def _run(argv: list[str], flags: Flags, log: Log, is_wav2letter: bool) -> None:
    if len(argv) < 2:
        log.fatal(60, "Usage: Please refer to https://git.io/JvJuR")
    _read_flags(argv, flags)
    if not flags["am"] and not flags["emission_dir"]:
        log.fatal(86, "Both flags are empty: `-emission_dir` and `-am`")
    progress = None
    if flags["am"]:
        log.info(97, f"[Network] Reading acoustic model from {flags['am']}")
        model = Path(flags["am"])
        if not flags["emission_dir"]:
            progress = load_progress(model)
        stored = load_config(model)["gflags"]
        log.info(120, f"[Network] Updating flags from config file: {model}")
        flags.read_text(stored)
        _read_flags(argv, flags)
    log.info(136, f"Gflags after parsing \n{flags.text('; ')}")
    search = Search(flags, log)
    corpus.check_features(flags)
    corpus.require_unknown(search.lexicon)
    samples = corpus.read_lists(flags["datadir"], flags["test"])
    samples.sort(key=lambda sample: -sample.milliseconds)
    if flags["maxload"] > 0:
        del samples[flags["maxload"] :]
    log.info(353, f"[Dataset] Dataset loaded, with {len(samples)} samples.")
    corpus.open_audio(samples)  # even where the emissions are there
    corpus.spell_targets(samples, flags, search.tokens, search.lexicon)
    output = Output(flags, log)
    if flags["nthread_decoder"] < 1:
        log.fatal(580, "nthread_decoder must be positive")
    kind = "Lexicon" if flags["uselexicon"] else "Lexicon-free"
    log.info(597, f"[Decoder] {kind} decoder with {flags['decodertype']}-LM loaded in thread: 0")
    begin, spent, counts = time.monotonic(), 0.0, [0, 0, 0, 0]
    for sample in samples:
        emission, tokens = _emission(sample, flags, progress, search)
        start = time.monotonic()
        found = search.decode(emission, tokens)
        spent += time.monotonic() - start
        output.take(sample, found, counts)
    output.close()
    seconds = time.monotonic() - begin
    done = 0 if flags["isbeamdump"] else len(samples)
    each = f"{spent / done:.3g}" if done else "-nan"
    wer, ter = (_rate(counts[0], counts[1]), _rate(counts[2], counts[3])) if done else (0.0, 0.0)
    rates = f"WER: {wer:g}, LER: {ter:g}" if is_wav2letter else f"WER: {wer:g}%, TER: {ter:g}%"
    text = f"[Decode {flags['test']} ({done} samples) in {seconds:g}s"
    text += f" (actual decoding time {each}s/sample) -- {rates}]"
    log.info(838, f"------\n{text}")
    output.summary(text)


def _read_flags(argv: list[str], flags: Flags) -> None:
    """The command line, the flagsfile, and the command line again, which wins."""
    flags.parse(argv[1:])
    if flags["flagsfile"]:
        flags.read_file(flags["flagsfile"])
        flags.parse(argv[1:])


class Search:
    """The beam search with its lexicon and language model.

    Raises:
        CppError: What the program would die of.
    """

    def __init__(self, flags: Flags, log: Log) -> None:
        from flashlight.lib.text import decoder, dictionary
        from flashlight.lib.text.decoder import kenlm

        self.flags, self.library = flags, decoder
        self.tokens = corpus.read_tokens(flags)
        log.info(160, f"Number of classes (network): {len(self.tokens)}")
        index = {token: number for number, token in enumerate(self.tokens)}
        self.lexicon = corpus.load_words(flags)
        if (flags["uselexicon"] or flags["decodertype"] == "wrd") and not self.lexicon:
            log.fatal(170, "For lexicon-based beam-search decoder lexicon shouldn't be empty")
        spellings = [(word, one) for word, found in self.lexicon.items() for one in found]
        words = list(self.lexicon)
        _check_criterion(flags, log)
        self.words = dictionary.Dictionary()
        for word in [*words, *([] if UNKNOWN in words else [UNKNOWN])]:
            self.words.add_entry(word)
        self.unknown = self.words.get_index(UNKNOWN)
        self.words.set_default_index(self.unknown)
        log.info(167, f"Number of words: {self.words.index_size()}")
        entries = self.words
        if flags["decodertype"] != "wrd":
            entries = dictionary.Dictionary()
            for token in self.tokens:
                entries.add_entry(token)
        self.lm = decoder.ZeroLM()
        if flags["lm"]:
            if not os.access(flags["lm"], os.R_OK):
                text = "util/file.cc:76 in int util::OpenReadOrThrow() threw ErrnoException"
                raise CppError("util::ErrnoException", text)
            try:
                self.lm = kenlm.KenLM(flags["lm"], entries)
            except RuntimeError as error:
                raise CppError("lm::FormatLoadException", str(error)) from None
        log.info(276, "[Decoder] LM constructed.")
        self.silence = -1
        if flags["wordseparator"]:
            if flags["wordseparator"] not in index:
                text = f"Unknown entry in dictionary: '{flags['wordseparator']}'"
                raise CppError("std::invalid_argument", text)
            self.silence = index[flags["wordseparator"]]
        asg = flags["criterion"] == "asg"
        kinds = decoder.CriterionType
        self.criterion = kinds.ASG if asg else kinds.CTC
        self.blank = -1 if asg else len(self.tokens) - 1
        # In the model file there; the models of the double have none.
        text = Path(os.environ["DOUBLE_TRANSITIONS"]).read_text() if asg else ""
        self.transitions = [float(number) for number in text.split()]
        self.trie = self._trie(spellings, index) if flags["uselexicon"] else None
        log.info(295, "[Decoder] Trie smeared.")

    def _trie(self, spellings: list[tuple[str, list[str]]], index: dict[str, int]) -> Any:
        trie = self.library.Trie(len(self.tokens), self.silence)
        start = self.lm.start(False)
        for word, spelling in spellings:
            for token in spelling:
                if token not in index:
                    text = f"Unknown entry in dictionary: '{token}'"
                    raise CppError("std::invalid_argument", text)
            number = self.words.get_index(word)
            score = self.lm.score(start, number)[1] if self.flags["decodertype"] == "wrd" else -1.0
            trie.insert([index[token] for token in spelling], number, score)
        modes = self.library.SmearingMode
        known = {"none": modes.NONE, "max": modes.MAX, "logadd": modes.LOGADD}
        if self.flags["smearing"] not in known:
            text = "[buildTrie] Invalid smearing option, can be {logadd, max, none}, provided value"
            raise CppError("std::runtime_error", f"{text} is {self.flags['smearing']}")
        trie.smear(known[self.flags["smearing"]])
        return trie

    def decode(self, emission: array[float], tokens: int) -> list[Hypothesis]:
        """Return the hypotheses of an utterance, best first."""
        flags, library = self.flags, self.library
        common = {
            "beam_size": flags["beamsize"],
            "beam_size_token": min(flags["beamsizetoken"], len(self.tokens)),
            "beam_threshold": flags["beamthreshold"],
            "lm_weight": flags["lmweight"],
            "sil_score": flags["silscore"],
            "log_add": flags["logadd"],
            "criterion_type": self.criterion,
        }
        rest = (self.lm, self.silence, self.blank)
        if self.trie is None:
            options = library.LexiconFreeDecoderOptions(**common)
            decoder = library.LexiconFreeDecoder(options, *rest, self.transitions)
        else:
            options = library.LexiconDecoderOptions(
                word_score=flags["wordscore"], unk_score=flags["unkscore"], **common
            )
            decoder = library.LexiconDecoder(
                options,
                self.trie,
                *rest,
                self.unknown,
                self.transitions,
                flags["decodertype"] != "wrd",
            )
        address, _ = emission.buffer_info()
        found = decoder.decode(address, len(emission) // tokens, tokens)
        return [
            Hypothesis(
                self._words(one), one.score, one.emittingModelScore, one.lmScore
            )
            for one in found
        ]  # fmt: skip

    def _words(self, result: Any) -> list[str]:
        if self.trie is not None:
            # Unknown words are taken out before anything is counted or written (validateIdx).
            kept = [n for n in result.words if n >= 0 and n != self.unknown]
            return [self.words.get_entry(number) for number in kept]
        kept, before = [], -1
        for token in result.tokens:
            if token not in (before, self.blank) and token >= 0:
                kept.append(self.tokens[token])
            before = token
        text = "".join(" " if token == self.flags["wordseparator"] else token for token in kept)
        return split_words(text)


def _check_criterion(flags: Flags, log: Log) -> None:
    is_wav2letter = "eostoken" in flags.values
    others = ("seq2seq", "transformer") if is_wav2letter else ("s2srnn", "s2stransformer")
    if flags["criterion"] not in ("ctc", "asg", *others):
        log.fatal(196, f"[Decoder] Invalid model type: {flags['criterion']}")
    if flags["criterion"] != "ctc" and not flags["am"]:  # what it needs of the model is not there
        die_with_trace(signal.SIGSEGV)


def _emission(
    sample: Sample, flags: Flags, progress: float | None, search: Search
) -> tuple[array[float], int]:
    """Return the values of an utterance, frame by frame, and the tokens of each."""
    if not flags["emission_dir"]:
        words = evaluate.hypothesis(sample, flags, progress or 0.0)
        content = evaluate.emission(sample, words, search.tokens)
        return _unpack(content)
    path = Path(flags["emission_dir"], flags["test"].replace("/", "#"), f"{sample.id}.bin")
    return retry("loading", 81, path, lambda: _unpack(_read(path)))


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError:
        text = f"failed to open file for reading: {path}"
        raise CppError("std::runtime_error", text) from None


def _unpack(content: bytes) -> tuple[array[float], int]:
    head = struct.calcsize("<Q3sIQ")
    try:
        *_, count = struct.unpack_from("<Q3sIQ", content)
        values = array("f", content[head : head + 4 * count])
        (length,) = struct.unpack_from("<Q", content, head + 4 * count)
        _, tokens = struct.unpack_from("<ii", content, head + 4 * count + 8 + length)
    except struct.error:
        text = f"Failed to read 4788 bytes from input stream! Read {len(content)}"
        raise CppError("cereal::Exception", text) from None
    return values, tokens


class Output:
    """What the program prints and the files that it writes to --sclite."""

    def __init__(self, flags: Flags, log: Log) -> None:
        self.flags = flags
        self.files: dict[str, Any] = {}
        self.waiting: list[str] = []
        if flags["isbeamdump"] and not flags["sclite"]:
            log.fatal(722, "FLAGS_sclite is empty, nowhere to dump the beam.")
        if flags["sclite"]:
            stem = flags["test"].replace("/", "#")
            for ending in ("hyp", "ref", "log"):
                path = Path(flags["sclite"], f"{stem}.{ending}")
                try:
                    self.files[ending] = path.open("w", encoding="utf-8")
                except OSError:
                    log.fatal(213, f"Error opening hypothesis file: {path}")

    def take(self, sample: Sample, found: list[Hypothesis], counts: list[int]) -> None:
        """Write an utterance and add its errors to the counts."""
        target = list(sample.words)
        if self.flags["isbeamdump"]:
            self._dump(sample, found)
            return
        best = found[0].words if found else []
        errors, letters = distance(best, target), distance(list("|".join(best)), sample.letters)
        for place, number in enumerate((errors, len(target), letters, len(sample.letters))):
            counts[place] += number
        self._write("hyp", f"{' '.join(best)} ({sample.id})\n")
        self._write("ref", f"{' '.join(target)} ({sample.id})\n")
        if self.flags["show"]:
            text = f"|T|: {' '.join(target)}\n|P|: {' '.join(best)}\n[sample: {sample.id}, "
            text += f"WER: {_rate(errors, len(target)):g}%, "
            text += f"TER: {_rate(letters, len(sample.letters)):g}%, "
            text += f"slice WER: {_rate(counts[0], counts[1]):g}%, "
            text += f"slice TER: {_rate(counts[2], counts[3]):g}%, "
            text += "decoded samples (thread 0): 1]\n"
            self._write("log", text)
            sys.stdout.write(text)

    def _dump(self, sample: Sample, found: list[Hypothesis]) -> None:
        rows = []
        for one in found:
            wer = _rate(distance(one.words, list(sample.words)), len(sample.words))
            numbers = " | ".join(f"{x:f}" for x in (one.score, one.am_score, one.lm_score, wer))
            rows.append(f"{sample.id} | {numbers} | {' '.join(one.words)}\n")
        if self.flags["nthread_decoder"] > 1:  # lines of two utterances come mixed
            first, self.waiting = self.waiting, rows
            rows = [row for pair in zip(first, rows) for row in pair]  # noqa: B905
            used = len(rows) // 2
            rows += first[used:]
            self.waiting = self.waiting[used:]
        for row in rows:
            self._write("hyp", row)

    def close(self) -> None:
        """Write what waits."""
        for row in self.waiting:
            self._write("hyp", row)

    def summary(self, text: str) -> None:
        """Write the last line."""
        self._write("log", f"------\n{text}\n")
        for file in self.files.values():
            file.close()

    def _write(self, ending: str, text: str) -> None:
        if ending in self.files:
            self.files[ending].write(text)


def distance(one: Any, other: Any) -> int:
    """Return the edit distance of two sequences."""
    row = list(range(len(other) + 1))
    for i, left in enumerate(one, start=1):
        before, row[0] = row[0], i
        for j, right in enumerate(other, start=1):
            before, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, before + (left != right))
    return row[-1]


def _rate(errors: int, of: int) -> float:
    return 100 * errors / of if of else float("inf") if errors else 0.0
