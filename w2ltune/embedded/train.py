"""A training program in numpy with the command line, log and files of fl_asr_train v0.3.

::

    python -m w2ltune.embedded.train train [flags]
    python -m w2ltune.embedded.train continue RUN_DIRECTORY [flags]
    python -m w2ltune.embedded.train fork MODEL.bin [flags]

It trains a small CTC acoustic model (:mod:`..training`) on features that were computed before,
and stands in for the binary where there is none. What is as there: the order of flags, the lines
on stderr and in ``001_log``, the files, their order, that a checkpoint is written in place and
that ``train`` and ``fork`` write over run 1, the waits for a checkpoint that is missing or cut,
the silent death by any signal. What is not: ``--iter`` is met exactly, where the binary goes one
update further within an epoch; a loss that is not finite ends the training; there are no data to
wait for, no other criterion, and no other processes.

A training that goes on from a checkpoint from within an epoch (``--reportiters``) begins the next
epoch, as there.
"""

from __future__ import annotations

import math
import os
import sys
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

# More threads than cores to themselves slow small matrix products down. Before numpy is loaded.
if __name__ == "__main__":
    for variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
        os.environ.setdefault(variable, "1")

from w2ltune.embedded.acoustic import Architecture
from w2ltune.embedded.corpus import Corpus, check_corpus
from w2ltune.embedded.decoderfiles import read_lexicon
from w2ltune.embedded.evaluation import Evaluation, evaluate
from w2ltune.embedded.glog import die_of_signals, log
from w2ltune.embedded.reportline import format_report
from w2ltune.embedded.runfiles import (
    config_entries,
    load_checkpoint,
    next_index,
    run_file,
    save_checkpoint,
    write_config,
)
from w2ltune.embedded.trainflags import (
    TrainFlags,
    UnknownFlagError,
    idle_flags,
    read_flags,
    read_lists,
    train_flags,
    training_options,
    valid_sets,
)
from w2ltune.embedded.training import TrainingState, start, start_from, train
from w2ltune.errors import InputError, TrialFailedError, UsageError, run_command

OPTIMIZER_NAMES = {"adam": "Adam", "sgd": "SGD"}
PROGRAM = "w2ltune.embedded.train"
USAGE = f"""usage: python -m {PROGRAM} train [flags]
       python -m {PROGRAM} continue RUN_DIRECTORY [flags]
       python -m {PROGRAM} fork MODEL.bin [flags]

Flags are those of fl_asr_train, and --features_dir, --hidden, --dropout."""


@dataclass(frozen=True, kw_only=True)
class Run:
    """One run in a run directory.

    Attributes:
        rundir: The run directory.
        index: Number of the run in it, from 1.
        values: All flags as text.
        state: What it goes on from; None for a new model.
    """

    rundir: Path
    index: int
    values: dict[str, str]
    state: TrainingState | None


def main(arguments: list[str]) -> int:
    """Train as the command line says."""
    if arguments and arguments[0] in ("--help", "-h"):
        print(USAGE)
        return 0
    try:
        run = _begin(arguments)
    except UnknownFlagError as error:
        print(f"ERROR: {error}", file=sys.stderr)  # the words of gflags
        return error.exit_code
    _train(run, arguments)
    return 0


def _begin(arguments: list[str]) -> Run:
    """Decide from the program's own words and the flags which run this is."""
    mode, *rest = arguments or [""]
    if mode not in ("train", "continue", "fork"):
        raise UsageError(f"{mode!r} is not train, continue or fork\n{USAGE}")
    if mode == "train":
        values = read_flags(rest)
        return Run(rundir=_rundir(values), index=1, values=values, state=None)
    if not rest or rest[0].startswith("-"):
        wanted = "the run directory" if mode == "continue" else "a model file"
        raise UsageError(f"{mode} needs {wanted} before the flags\n{USAGE}")
    if mode == "fork":
        header, state = load_checkpoint(Path(rest[0]))
        values = read_flags(rest[1:], stored=header.flags)
        state = start_from(state.model)
        return Run(rundir=_rundir(values), index=1, values=values, state=state)
    rundir = Path(rest[0])
    index = next_index(rundir)
    header, state = load_checkpoint(run_file(rundir, index - 1, "model_last.bin"))
    values = read_flags(rest[1:], stored=header.flags)
    return Run(rundir=rundir, index=index, values=values, state=state)


def _rundir(values: dict[str, str]) -> Path:
    if not values["rundir"]:
        raise UsageError("no --rundir: give the folder for the log and the models")
    return Path(values["rundir"])


def _train(run: Run, arguments: list[str]) -> None:
    flags = train_flags(run.values)
    options = training_options(flags)
    tags = valid_sets(flags)
    corpus = read_lists(flags, flags.train, "--train")
    validation = {tag: read_lists(flags, name, "--valid") for tag, name in tags.items()}
    first = run.state or start(
        corpus,
        Architecture(
            bands=corpus.features[0].shape[1], outputs=len(corpus.tokens) + 1, hidden=flags.hidden
        ),
        seed=flags.seed,
    )
    for checked in (corpus, *validation.values()):
        check_corpus(checked, first.model.architecture)
    _make_rundir(run.rundir)
    entries = config_entries(
        run.rundir, run.index, flags=run.values, arguments=arguments, program=PROGRAM
    )
    write_config(run_file(run.rundir, run.index, "config"), entries)
    _log_beginning(run, flags, corpus, first)
    best = dict.fromkeys(validation, math.inf)
    with run_file(run.rundir, run.index, "log").open("w", encoding="utf-8") as file:
        for state, report in train(first, corpus, options, epoch_begins=_log_epoch):
            results = _validate(state, validation, flags)
            line = format_report(
                report, results, frame_milliseconds=flags.framestridems, now=datetime.now()
            )
            log(line)
            print(line, file=file, flush=True)
            names = [f"model_iter_{state.epoch:03d}.bin"] if flags.itersave else []
            names.append("model_last.bin")
            for tag, result in results.items():
                if result.word_errors.wer < best[tag]:
                    best[tag] = result.word_errors.wer
                    names.append(f"model_{tag.replace('/', '#')}.bin")
            for name in names:
                save_checkpoint(run_file(run.rundir, run.index, name), state, entries)
    log("Finished training")


def _validate(
    state: TrainingState, validation: dict[str, Corpus], flags: TrainFlags
) -> dict[str, Evaluation]:
    """Return loss and errors on each list by its tag."""
    results = {tag: evaluate(state.model, corpus) for tag, corpus in validation.items()}
    if not all(math.isfinite(result.loss) for result in results.values()):
        raise TrialFailedError(
            f"the loss on --valid is not finite after {state.updates} updates; "
            f"try a lower --lr than {flags.lr:g}"
        )
    return results


def _make_rundir(path: Path) -> None:
    try:
        path.mkdir(exist_ok=True)  # not its parents, as the binary
    except OSError as error:
        raise InputError(f"--rundir={path}: cannot be made: {error.strerror}") from None


def _log_beginning(run: Run, flags: TrainFlags, corpus: Corpus, state: TrainingState) -> None:
    if run.values["flagsfile"]:
        log(f"Reading flags from file {run.values['flagsfile']}")
    shown = "; ".join(f"--{name}={value}" for name, value in run.values.items())
    log(f"Gflags after parsing \n{shown}; ")
    if idle := idle_flags(run.values):
        shown = ", ".join(f"--{name}" for name in idle)
        log(f"without effect in the embedded training: {shown}", severity="W")
    log(f"Experiment path: {run.rundir}")
    log(f"Experiment runidx: {run.index}")
    log(f"Number of classes (network): {len(corpus.tokens) + 1}")
    entries = read_lexicon(Path(flags.lexicon), maxword=flags.maxword)
    log(f"Number of words: {len({word for _, word, _ in entries})}")
    log(f"[Network] {state.model.architecture}")
    log(f"[Network Params: {sum(value.size for value in state.model.parameters.values())}]")
    log("[Criterion] ConnectionistTemporalClassificationCriterion")
    log(f"[Network Optimizer] {OPTIMIZER_NAMES[flags.netoptim]}")


def _log_epoch(epoch: int) -> None:
    log("Shuffling trainset")
    log(f"Epoch {epoch} started!")


if __name__ == "__main__":
    die_of_signals()
    sys.exit(run_command(main, sys.argv[1:]))
