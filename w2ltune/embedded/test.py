"""Emissions and errors of a model on a list, with the command line and files of fl_asr_test v0.3.

::

    python -m w2ltune.embedded.test --am=MODEL.bin --test=LIST[,LIST2] [flags]

The model is one of :mod:`..train`; its flags are the defaults. ``--emission_dir=DIR`` writes
``DIR/<test>/<utterance>.bin`` (log-softmax, blank last), ``--sclite=DIR`` writes
``DIR/<test>.hyp`` and ``DIR/<test>.viterbi.ref``, ``--show`` prints each utterance. Unlike there,
the command line wins over ``--flagsfile``.
"""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

# One thread; before numpy is loaded.
if __name__ == "__main__":
    for variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
        os.environ.setdefault(variable, "1")

import numpy as np

from w2ltune.embedded.acoustic import emission
from w2ltune.embedded.corpus import Corpus, check_corpus
from w2ltune.embedded.evaluation import Recognised, recognise
from w2ltune.embedded.glog import die_of_signals, log
from w2ltune.embedded.runfiles import load_checkpoint
from w2ltune.embedded.trainflags import UnknownFlagError, read_flags, read_lists, train_flags
from w2ltune.errors import InputError, UsageError, run_command
from w2ltune.files import write_text
from w2ltune.formats.emissions import Emission, write_emission_bin
from w2ltune.formats.known_flags import KNOWN_FLAGS, typed_value
from w2ltune.scoring.wer import ErrorCounts

USAGE = """usage: python -m w2ltune.embedded.test --am=MODEL.bin --test=LIST[,LIST2] [flags]

--emission_dir=DIR, --sclite=DIR and --show tell what is kept of it; further flags are those of
fl_asr_test, by default as the model was trained with."""


def main(arguments: list[str]) -> int:
    """Run a model on a list and tell its errors."""
    if any(argument in ("--help", "-h", "-help") for argument in arguments):
        print(USAGE)
        return 0
    try:
        am = read_flags(arguments)["am"]
        if not am:
            raise UsageError(f"no --am: give a model file\n{USAGE}")
        log(f"[Network] Reading acoustic model from {am}")
        header, state = load_checkpoint(Path(am))
        # The flagsfile of the training is no flagsfile of the test.
        values = read_flags(arguments, stored={**header.flags, "flagsfile": ""})
    except UnknownFlagError as error:
        print(f"ERROR: {error}", file=sys.stderr)  # the words of gflags
        return error.exit_code
    flags = train_flags(values)
    corpus = read_lists(flags, values["test"], "--test")
    check_corpus(corpus, state.model.architecture)
    log(f"[Dataset] Dataset loaded, with {len(corpus.ids)} samples.")
    test = values["test"].replace("/", "#")
    emission_dir = _output_folder(values, "emission_dir")
    if emission_dir:
        emission_dir = emission_dir / test
        emission_dir.mkdir(exist_ok=True)
    sclite = _output_folder(values, "sclite")
    show = bool(typed_value(KNOWN_FLAGS["show"], values["show"]))
    begin = time.perf_counter()
    searching_seconds = 0.0
    utterances: list[Recognised] = []
    for index, features in enumerate(corpus.features):
        scores: Emission = emission(state.model, features).astype(np.float32)
        forwarded = time.perf_counter()
        utterances.append(recognise(corpus, index, scores))
        searching_seconds += time.perf_counter() - forwarded
        if emission_dir:
            write_emission_bin(emission_dir, corpus.ids[index], scores)
        if show:
            _show(utterances, len(corpus.ids))
    seconds = time.perf_counter() - begin
    if sclite:
        _write_sclite(sclite, test, utterances, corpus)
    words, tokens = _total(utterances)
    log("------")
    log(
        f"[Test {values['test']} ({len(utterances)} samples) in {seconds:g}s (actual decoding time "
        f"{searching_seconds / len(utterances):.3g}s/sample) -- WER: {100 * words.wer:g}%, "
        f"TER: {100 * tokens.wer:g}%]"
    )
    return 0


def _total(utterances: list[Recognised]) -> tuple[ErrorCounts, ErrorCounts]:
    """Return the error counts over words and over tokens."""
    return (
        sum((utterance.word_errors for utterance in utterances), ErrorCounts.zero()),
        sum((utterance.token_errors for utterance in utterances), ErrorCounts.zero()),
    )


def _output_folder(values: dict[str, str], name: str) -> Path | None:
    """Return the folder that a flag names, made if need be (the binary would abort)."""
    if not values[name]:
        return None
    folder = Path(values[name])
    if folder.exists() and not folder.is_dir():
        raise InputError(f"--{name}={folder}: a file is in the way; name a folder")
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def _show(utterances: list[Recognised], count: int) -> None:
    """Print the last utterance, and the errors so far."""
    last, (words, tokens) = utterances[-1], _total(utterances)
    print(f"|T|: {' '.join(last.target)}")
    print(f"|P|: {' '.join(last.tokens)}")
    print(
        f"[sample: {last.name}, WER: {100 * last.word_errors.wer:g}%, "
        f"TER: {100 * last.token_errors.wer:g}%, total WER: {100 * words.wer:g}%, "
        f"total TER: {100 * tokens.wer:g}%, "
        f"progress (thread 0): {100 * len(utterances) / count:g}%]",
        flush=True,
    )


def _write_sclite(folder: Path, test: str, utterances: list[Recognised], corpus: Corpus) -> None:
    """Write hypotheses and references as lines of ``words (utterance)``."""
    hypotheses = {utterance.name: utterance.words for utterance in utterances}
    references = dict(zip(corpus.ids, corpus.references, strict=True))
    for suffix, texts in ((".hyp", hypotheses), (".viterbi.ref", references)):
        lines = [f"{' '.join(words)} ({name})\n" for name, words in texts.items()]
        write_text(folder / f"{test}{suffix}", "".join(lines))


if __name__ == "__main__":
    die_of_signals()
    sys.exit(run_command(main, sys.argv[1:]))
