"""The options of a sweep, their help and their first check."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from w2ltune.cluster.slurmoptions import DecodeSlurmOptions
from w2ltune.commandline import option
from w2ltune.errors import UsageError

USAGE = """
usage: python -m w2ltune.sweep --test=dev.lst --emission_dir=DIR --tokens=FILE --lexicon=FILE
           --lm=FILE --logdir=DIR --prefix=NAME [any decoder flag, a value or a distribution]
       python -m w2ltune.sweep --binary=fl_asr_decode --am=MODEL.bin --test=dev.lst … (as above)
       python -m w2ltune.sweep --flagsfile=FILE

Searches decoder weights. Any decoder flag may have a distribution instead of a value:
    --lmweight='uniform(0, 5)'    loguniform(low, high)    quniform(low, high, step)
    --beamsize='randint(10, 500)' lograndint(low, high)    --smearing='choice(none, max)'
Without any, lmweight in 0..5 and wordscore in -8..7 are searched. beamsize, beamsizetoken and
beamthreshold may be "auto": as wide as helps. Everything of the sweep lies in
LOGDIR/PREFIX; the same command again continues it, whatever it died of. With RAY_ADDRESS set it
runs on that Ray cluster, else it starts one on this machine. Options may stand in the flagsfile.
"""

LONGEST_NAME = 200
"""Bytes of a folder's name; most file systems allow 255, and temporary names are longer."""


@dataclass(frozen=True, kw_only=True)
class SweepOptions(DecodeSlurmOptions):
    """The options of a sweep; everything else on the command line is a flag of the decoder."""

    task: str = option(
        "what is searched: the weights of a decode, or the flags of a training (has other options)",
        "decode", choices=("decode", "train"),
    )  # fmt: skip
    logdir: Path = option("folder of sweeps", value="DIR")
    prefix: str = option("name of this sweep, a folder in logdir", value="NAME")
    binary: Path | None = option(
        "fl_asr_decode, or Decoder of wav2letter v0.2; decodes what cannot be decoded in process, "
        "and is held against what can", None, value="FILE",
    )  # fmt: skip
    test_binary: Path | None = option(
        "fl_asr_test, or Test, which writes the emissions of --am; by default the one beside "
        "--binary", None, value="FILE",
    )  # fmt: skip
    generation: str = option(
        "of the binaries; by their names when not given", "",
        choices=("", "flashlight", "wav2letter"),
    )  # fmt: skip
    decoder: str = option(
        "what decodes: auto is in process where that gives the words and scores of the binary",
        "auto", choices=("auto", "process", "binary"),
    )  # fmt: skip
    emission_cache: Path | None = option(
        "folder for the emissions of --am, kept by model and list for all sweeps; by default they "
        "lie in the sweep's own", None, value="DIR",
    )  # fmt: skip
    stage_lm: str = option(
        "copy a KenLM binary to each node's own disk; auto where it lies on a file server", "auto",
        choices=("auto", "always", "never"),
    )  # fmt: skip
    local: bool = option("decode here, with one trial, to spot obvious errors", False)
    perturb: Path | None = option(
        "Python file with perturb_parameters(args), which sets flags at random", None, value="FILE"
    )
    n: int = option("trials in all, at most; may grow when a sweep is continued", 40, least=1)
    sampler: str = option(
        "how the next trial is chosen; auto is nbest where linear weights are searched, else tpe",
        "auto", choices=("auto", "nbest", "tpe", "random", "qmc", "cmaes", "grid", "gp"),
    )  # fmt: skip
    baseline: Path | None = option(
        "flagsfile with your present weights: the first trial, and what the answer is compared "
        "with", None, value="FILE",
    )  # fmt: skip
    heldout: str = option(
        "data list that is decoded once, with the answer; may not share utterances with --test",
        "", value="LIST",
    )  # fmt: skip
    look_again: bool = option("decode the held-out list again for another answer", False)
    tune_for: str = option(
        "with several lists in --test: weights for each of them, or joint ones", "each",
        choices=("each", "joint"),
    )  # fmt: skip
    dump: bool = option(
        "write all hypotheses of the answer, of dev and held-out lists, for rescoring", False
    )
    probe: bool = option("measure at the end what a wider beam would give", True)
    max_rtf: float | None = option(
        "CPU seconds for a second of audio that --beamsize=auto may reach", None
    )
    nbest: int = option("hypotheses kept of each utterance for the n-best search", 50, least=1)
    warm_start: Path | None = option(
        "folder of an earlier sweep of the same model and list, at any beam, whose n-best lists "
        "are used too", None, value="DIR",
    )  # fmt: skip
    pruner: str = option(
        "'paired' stops a trial that is clearly worse than the best one on the same utterances",
        "paired", choices=("paired", "none"),
    )  # fmt: skip
    space: Path | None = option(
        "Python file with space(trial) in Optuna's define-by-run style", None, value="FILE"
    )
    seed: int | None = option(
        "seed of the sampler; drawn and recorded when not given", None, least=0
    )
    metric: str = option("what is counted: word or character errors", "wer", choices=("wer", "cer"))
    cer_blanks: bool = option(
        "with --metric=cer: count one blank between words as a character; they are left out", False
    )
    normalize: Path | None = option(
        "Python file with normalize(text), or a .glm file, applied to references and hypotheses",
        None, value="FILE",
    )  # fmt: skip
    ignore_case: bool = option("count words as the same whatever their case", False)
    cluster: str | None = option(
        "regular expression for the speaker in an utterance id; intervals are by speaker", None
    )
    concurrent_trials: int = option("trials decoded at a time, at most 4", 3)
    cores: int | None = option("cores of a local Ray cluster; all that may be used", None, least=1)
    node_wait_minutes: float = option(
        "stop (exit code 75) when the cluster had no core for this long", 5.0
    )
    allow_unknown_flags: bool = option("let unknown flags through", False)
    allow_absurd_input: bool = option("decode although the checks say that it cannot work", False)

    @property
    def folder(self) -> Path:
        """The study's folder."""
        return self.logdir / self.prefix


def check_options(options: SweepOptions) -> None:
    """Refuse values that cannot be meant."""
    if not 1 <= options.concurrent_trials <= 4:
        raise UsageError(f"--concurrent_trials={options.concurrent_trials}: must be 1 to 4")
    if options.max_rtf is not None and not options.max_rtf > 0:
        raise UsageError(f"--max_rtf={options.max_rtf:g}: must be above 0")
    if options.cer_blanks and options.metric != "cer":
        raise UsageError("--cer_blanks goes with --metric=cer: words have no blanks")
    if options.perturb is not None and options.space is not None:
        raise UsageError(f"--perturb={options.perturb} and --space={options.space}: give one")
    if not options.prefix or "/" in options.prefix or options.prefix in (".", ".."):
        raise UsageError(f"--prefix={options.prefix!r}: must be a plain folder name")
    if len(os.fsencode(options.prefix)) > LONGEST_NAME:
        shown = f"{options.prefix[:20]}…"
        raise UsageError(f"--prefix={shown!r}: longer than {LONGEST_NAME} bytes")
