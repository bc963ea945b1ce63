"""fl_asr_test of flashlight v0.3 and Test of wav2letter v0.2, for models of the double.

A hypothesis is its reference without some words, about as many as the training's word error rate.
"""

from __future__ import annotations

import struct
import sys
import time
import zlib
from array import array
from pathlib import Path
from typing import NoReturn

from fldouble import corpus, curve
from fldouble.corpus import Sample
from fldouble.flags import Flags
from fldouble.log import CppError, Log, die_uncaught, set_signals
from fldouble.model import load_config, load_progress, save_bytes

FRAME_MILLISECONDS = 20


def main(argv: list[str]) -> NoReturn:
    """Run as the program that ``argv[0]`` names, with its exit code or its death."""
    set_signals()
    is_wav2letter = Path(argv[0]).name == "Test"
    flags = Flags(argv[0], "wav2letter" if is_wav2letter else "flashlight")
    log = Log(flags, "Test.cpp", short_stamp=is_wav2letter)
    try:
        _run(argv, flags, log, is_wav2letter)
    except CppError as error:
        die_uncaught(error)
    sys.exit(0)


def _run(argv: list[str], flags: Flags, log: Log, is_wav2letter: bool) -> None:
    if len(argv) < 2:
        log.fatal(56, "Usage: Please refer to https://git.io/JvJuR")
    flags.parse(argv[1:])
    model = Path(flags["am"])
    log.info(76, f"[Network] Reading acoustic model from {model}")
    progress = load_progress(model)
    log.info(98, f"[Network] Updating flags from config file: {model}")
    flags.read_text(load_config(model)["gflags"])
    flags.parse(argv[1:])
    if flags["flagsfile"]:  # the last word: it is not followed by the command line again
        flags.read_file(flags["flagsfile"])
    log.info(111, f"Gflags after parsing \n{flags.text('; ')}")
    tokens = corpus.read_tokens(flags)
    log.info(136, f"Number of classes (network): {len(tokens)}")
    lexicon = corpus.load_words(flags)
    if lexicon:
        log.info(143, f"Number of words: {len(lexicon)}")
    corpus.check_features(flags)
    corpus.require_unknown(lexicon)
    samples = corpus.read_lists(flags["datadir"], flags["test"])
    samples.sort(key=lambda sample: -sample.milliseconds)
    if flags["maxload"] > 0:
        del samples[flags["maxload"] :]
    log.info(205, f"[Dataset] Dataset loaded, with {len(samples)} samples.")
    corpus.open_audio(samples)
    corpus.spell_targets(samples, flags, tokens, lexicon)
    begin = time.monotonic()
    hypotheses = [hypothesis(sample, flags, progress) for sample in samples]
    wer, ter = _show(samples, hypotheses, flags["show"])
    _write_files(samples, hypotheses, flags, tokens, log)
    seconds = time.monotonic() - begin
    each = seconds / max(1, len(samples))
    rates = f"WER: {wer:g}, LER: {ter:g}" if is_wav2letter else f"WER: {wer:g}%, TER: {ter:g}%"
    log.info(434, "------")
    text = f"[Test {flags['test']} ({len(samples)} samples) in {seconds:g}s"
    text += f" (actual decoding time {each:.3g}s/sample) -- {rates}]"
    log.info(435, text + "\n" * is_wav2letter)


def hypothesis(sample: Sample, flags: Flags, progress: float) -> tuple[str, ...]:
    """The words of the reference that the model got right."""
    wer = curve.errors(flags["lr"], flags["seed"], progress, "test").wer
    chances = [zlib.crc32(f"{sample.id} {i}".encode()) / 2**32 for i in range(len(sample.words))]
    return tuple(
        word for word, chance in zip(sample.words, chances, strict=True) if 100 * chance >= wer
    )


def _show(
    samples: list[Sample], hypotheses: list[tuple[str, ...]], show: bool
) -> tuple[float, float]:
    """Return WER and TER in per cent; print each utterance where asked for."""
    words = word_errors = letters = letter_errors = 0
    for number, (sample, hypothesis) in enumerate(zip(samples, hypotheses, strict=True), start=1):
        said, heard = sample.letters, "|".join(hypothesis)
        missed, lost = len(sample.words) - len(hypothesis), len(said) - len(heard)
        words, word_errors = words + len(sample.words), word_errors + missed
        letters, letter_errors = letters + len(said), letter_errors + lost
        if show:
            rates = (
                f"WER: {_rate(missed, len(sample.words)):g}%, TER: {_rate(lost, len(said)):g}%, "
                f"total WER: {_rate(word_errors, words):g}%, "
                f"total TER: {_rate(letter_errors, letters):g}%"
            )
            done = f"{100 * number / len(samples):g}"
            print(f"|T|: {' '.join(said)}\n|P|: {' '.join(heard)}")
            print(f"[sample: {sample.id}, {rates}, progress (thread 0): {done}%]", flush=True)
    return _rate(word_errors, words), _rate(letter_errors, letters)


def _rate(errors: int, of: int) -> float:
    return 100 * errors / of if of else 0.0


def _write_files(
    samples: list[Sample],
    hypotheses: list[tuple[str, ...]],
    flags: Flags,
    tokens: list[str],
    log: Log,
) -> None:
    """Write transcripts to --sclite and emissions to --emission_dir; both folders must exist."""
    name = flags["test"].replace("/", "#")
    if flags["sclite"]:
        texts = {"hyp": hypotheses, "viterbi.ref": [sample.words for sample in samples]}
        for ending, lines in texts.items():
            rows = [
                f"{' '.join(words)} ({sample.id})\n"
                for words, sample in zip(lines, samples, strict=True)
            ]
            path = Path(flags["sclite"]) / f"{name}.{ending}"
            try:
                path.write_text("".join(rows), encoding="utf-8")
            except OSError:
                log.fatal(260, f"Error opening hypothesis file: {path}")
    if flags["emission_dir"]:
        folder = Path(flags["emission_dir"]) / name
        try:
            folder.mkdir(exist_ok=True)
        except OSError:
            text = f"Unable to create directory - {folder}"
            raise CppError("std::runtime_error", text) from None
        for sample, hypothesis in zip(samples, hypotheses, strict=True):
            save_bytes(folder / f"{sample.id}.bin", emission(sample, hypothesis, tokens))


def emission(sample: Sample, hypothesis: tuple[str, ...], tokens: list[str]) -> bytes:
    """An emission that says the hypothesis: each letter for one frame, a blank after it."""
    letters = "|".join(hypothesis)
    frames = max(int(sample.milliseconds / FRAME_MILLISECONDS), 2 * len(letters), 1)
    scores = array("f", bytes(4 * frames * len(tokens)))
    for frame in range(frames):
        place = frame // 2
        is_letter = frame % 2 == 0 and place < len(letters) and letters[place] in tokens
        token = tokens.index(letters[place]) if is_letter else len(tokens) - 1
        scores[frame * len(tokens) + token] = 10.0
    identity = sample.id.encode()
    return b"".join(
        (
            struct.pack("<Q3sIQ", 3, b"0.1", 0, len(scores)),
            scores.tobytes(),
            struct.pack("<Q", len(identity)) + identity,
            struct.pack("<ii", frames, len(tokens)),
        )
    )
