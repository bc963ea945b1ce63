"""fl_asr_train of flashlight v0.3 and Train of wav2letter v0.2: train, continue, fork."""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from pathlib import Path
from typing import NamedTuple, NoReturn

from fldouble import corpus
from fldouble.corpus import Sample
from fldouble.flags import Flags
from fldouble.log import CppError, Log, die_uncaught, die_with_trace, set_signals
from fldouble.loop import Run, train
from fldouble.model import load_config, load_progress
from fldouble.ranks import join_ranks

CRITERIA = {
    "asg": "AutoSegmentationCriterion",
    "ctc": "ConnectionistTemporalClassificationCriterion",
}
SEQUENCE_TO_SEQUENCE = {
    "flashlight": {"s2srnn": "Seq2SeqCriterion", "s2stransformer": "TransformerCriterion"},
    "wav2letter": {"seq2seq": "Seq2SeqCriterion", "transformer": "TransformerCriterion"},
}
OPTIMIZERS = {
    "adadelta": "Adadelta",
    "adagrad": "Adagrad",
    "adam": "Adam",
    "amsgrad": "AMSgrad",
    "novograd": "NovoGrad",
    "rmsprop": "RMSProp",
    "sgd": "SGD",
}


class Start(NamedTuple):
    """Where a training begins."""

    folder: str
    run_index: int = 1
    model: Path | None = None
    epoch: int = 0
    updates: int = 0


def main(argv: list[str]) -> NoReturn:
    """Run as the program that ``argv[0]`` names, with its exit code or its death."""
    set_signals()
    program = Path(argv[0]).name
    generation = "wav2letter" if program == "Train" else "flashlight"
    flags = Flags(argv[0], generation)
    log = Log(flags, "Train.cpp", short_stamp=generation == "wav2letter")
    try:
        _run(argv, flags, log)
    except CppError as error:
        die_uncaught(error)
    sys.exit(0)


def _run(argv: list[str], flags: Flags, log: Log) -> None:
    start = _start(argv, flags, log)
    if not start.folder:
        log.fatal(175, "'runpath' specified by --rundir, --runname cannot be empty")
    _start_grandchild()
    ranks = join_ranks(flags)
    log.is_master = ranks.rank == 0
    log.master(195, f"Gflags after parsing \n{flags.text('; ')}")
    log.master(196, f"Experiment path: {start.folder}")
    log.master(197, f"Experiment runidx: {start.run_index}")
    tokens = corpus.read_tokens(flags)
    log.info(276, f"Number of classes (network): {len(tokens)}")
    lexicon = corpus.load_words(flags)
    if lexicon:
        log.info(283, f"Number of words: {len(lexicon)}")
    corpus.check_features(flags)
    train_samples = corpus.read_lists(flags["datadir"], flags["train"])
    valid_samples = _valid_sets(flags)
    progress = _network(flags, start, log)
    decodes = flags["lm"] and "target" not in flags.values  # wav2letter's Train has no use for it
    if decodes and (flags["decodertype"], flags["lmtype"], flags["criterion"]) != (
        *("wrd", "kenlm", "ctc"),
    ):
        text = "Other decoders are not supported yet during training"
        raise CppError("std::runtime_error", text)
    if flags["lm"] and not Path(flags["lm"]).exists():
        text = "OpenReadOrThrow(const char*) threw ErrnoException because `-1 == (ret = open())'."
        raise CppError("util::ErrnoException", text)
    run = Run(
        folder=Path(start.folder),
        index=start.run_index,
        config=_config(argv, flags, start),
        is_wav2letter="target" in flags.values,
        epoch=start.epoch,
        updates=start.updates,
        progress=progress,
        spell=lambda samples: corpus.spell_targets(samples, flags, tokens, lexicon),
    )
    if flags["linseg"] > run.updates and flags["criterion"] != "asg":
        log.fatal(504, "linseg may only be used with ASG criterion")
    if ranks.rank == 0:
        _prepare_files(run)
        run.phase("starting")
    time.sleep(float(os.environ.get("DOUBLE_START_SECONDS", "0")))
    train(flags, log, ranks, run, train_samples, valid_samples)
    log.master(1257, "Finished training")


def _start(argv: list[str], flags: Flags, log: Log) -> Start:
    """Read the flags in the order that the subcommand has, and find where to begin."""
    if len(argv) < 2:
        raise CppError("std::logic_error", "basic_string: construction from null is not valid")
    mode = argv[1]
    if mode not in ("train", "continue", "fork"):
        usage = ("train [flags]", "continue [directory] [flags]", "fork [directory/model] [flags]")
        log.fatal(171, "Usage: \n " + "\n or ".join(f"{argv[0]} {line}" for line in usage))
    if mode == "train":
        _parse(argv, flags, log)
        return Start(_new_folder(flags))
    if len(argv) < 3:
        die_with_trace(signal.SIGSEGV)
    if mode == "fork":
        model = Path(argv[2])
        _stored(model, argv, flags, log)
        return Start(_new_folder(flags), model=model)
    index = 1
    while os.access(_model_last(argv[2], index), os.R_OK):
        index += 1
    model = _model_last(argv[2], index - 1)
    log.info(98, f"reload path is {model}")
    stored = _stored(model, argv, flags, log)
    epoch, updates = int(stored["epoch"]), int(stored["updates"])
    return Start(argv[2], index, model, epoch, updates)


def _model_last(folder: str, index: int) -> Path:
    return Path(folder) / f"{index:03d}_model_last.bin"


def _stored(model: Path, argv: list[str], flags: Flags, log: Log) -> dict[str, str]:
    """Take the flags stored in a model, and over them those of the command line."""
    config = load_config(model)
    log.info(115, f"Reading flags from config file {model}")
    flags.read_text(config["gflags"])
    _parse(argv, flags, log)
    return config


def _parse(argv: list[str], flags: Flags, log: Log) -> None:
    log.info(57, "Parsing command line flags")
    flags.parse(argv[1:])
    if flags["flagsfile"]:
        log.info(60, f"Reading flags from file {flags['flagsfile']}")
        flags.read_file(flags["flagsfile"])
        flags.parse(argv[1:])


def _new_folder(flags: Flags) -> str:
    """The run directory of a new training: in wav2letter one below --rundir."""
    if "runname" not in flags.values:
        return str(flags["rundir"])
    day = time.strftime("%Y-%m-%d_%H-%M-%S")
    name = flags["runname"] or f"{day}_{os.environ.get('HOSTNAME', '')}_{os.getpid()}"
    tagged = f"{name}_{flags['tag']}" if flags["tag"] else name
    return corpus.join(flags["rundir"], tagged)


def _valid_sets(flags: Flags) -> dict[str, list[Sample]]:
    """Samples of each valid set by its tag, which is the file's name where none is given."""
    sets = {}
    for item in filter(None, flags["valid"].split(",")):
        tag, _, name = item.partition(":")
        sets[tag] = corpus.read_lists(flags["datadir"], name or tag)
    return sets


def _network(flags: Flags, start: Start, log: Log) -> float:
    """Build the network or load it; return how far its training came."""
    progress, layers = 0.0, ["View (-1 1 NFEAT 0)"]
    if flags["onorm"] not in ("none", "input", "target"):
        raise CppError("std::invalid_argument", "invalid onorm option")
    if start.model is None:
        log.master(385, f"Loading architecture file from {corpus.architecture_path(flags)}")
        layers = corpus.read_architecture(flags)
    else:
        progress = load_progress(start.model)
    places = " -> ".join(["input", *(f"({i})" for i in range(len(layers))), "output"])
    listing = "".join(f"\n\t({i}): {layer}" for i, layer in enumerate(layers))
    log.master(464, f"[Network] Sequential [{places}]{listing}")
    log.master(465, "[Network Params: 205013]")
    generation = "wav2letter" if "target" in flags.values else "flashlight"
    criteria = CRITERIA | SEQUENCE_TO_SEQUENCE[generation]
    if flags["criterion"] not in criteria:
        log.fatal(436, "unimplemented criterion")
    old = generation == "wav2letter" and flags["criterion"] in SEQUENCE_TO_SEQUENCE[generation]
    if old and "$" not in corpus.read_tokens(flags):
        raise CppError("std::invalid_argument", "Unknown entry in dictionary: '$'")
    log.master(466, f"[Criterion] {criteria[flags['criterion']]}")
    for place, name in (("Network", "netoptim"), ("Criterion", "critoptim")):
        if flags[name] not in OPTIMIZERS:
            log.fatal(498, f"Optimizer option {flags[name]} not implemented")
        log.master(500 + (place != "Network"), f"[{place} Optimizer] {OPTIMIZERS[flags[name]]}")
    return progress


def _config(argv: list[str], flags: Flags, start: Start) -> dict[str, str]:
    today = time.strftime("%Y-%m-%d")
    return {
        "runPath": start.folder,
        "runIdx": str(start.run_index),
        "timestamp": f"{today}, {today}",
        "hostname": os.environ.get("HOSTNAME", ""),
        "username": os.environ.get("USER", ""),
        "gflags": flags.text(),
        "commandline": " ".join(argv),
        "programname": argv[0],
    }


def _prepare_files(run: Run) -> None:
    """Make the run directory, its parent being there, and begin config and log anew."""
    try:
        if not run.folder.is_dir():
            run.folder.mkdir()
    except OSError:
        text = f"Unable to create directory - {run.folder}"
        raise CppError("std::runtime_error", text) from None
    entries = [{"key": key, "value": value} for key, value in run.config.items()]
    text = json.dumps({"config": entries}, indent=4, ensure_ascii=False)
    try:
        run.path("config").write_text(text, encoding="utf-8", errors="surrogateescape")
        run.open_logs()
    except OSError as error:
        text = f"Failed to open file for writing: {error.filename}"
        raise CppError("std::runtime_error", text) from None


def _start_grandchild() -> None:
    """Leave a process behind that a parent's TERM does not end."""
    wanted = os.environ.get("DOUBLE_GRANDCHILD")
    if wanted:
        command = ["sh", "-c", "trap '' TERM; exec sleep 3600"]
        pid = os.posix_spawn("/bin/sh", command, os.environ, setsid=wanted == "setsid")
        print(f"grandchild {pid}", flush=True)
