"""The flags of the embedded training and test programs: those of flashlight, and a few of ours.

All flags of flashlight are taken and recorded, as the model file holds them. Those that are fields
of :class:`TrainFlags` act; a program of convolutions in numpy has no use for the rest.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from types import MappingProxyType
from typing import Any

from w2ltune.embedded.corpus import Corpus, load_corpora
from w2ltune.embedded.masking import Masks
from w2ltune.embedded.optimizer import OPTIMIZERS
from w2ltune.embedded.schedule import Schedule
from w2ltune.embedded.training import TrainingOptions
from w2ltune.errors import EXIT_FAILED, FlagError, UsageError, did_you_mean
from w2ltune.formats.flagsfile import FLAGSFILE_NAMES, parse_arguments
from w2ltune.formats.known_flags import KNOWN_FLAGS, FlagSpec, check_flag, typed_value

OUR_FLAGS: Mapping[str, FlagSpec] = MappingProxyType(
    {
        spec.name: spec
        for spec in (
            FlagSpec(name="features_dir", type="string", default="", generations=()),
            FlagSpec(name="hidden", type="int64", default="192", generations=()),
            FlagSpec(name="dropout", type="float", default="0.1", generations=()),
        )
    }
)
"""Flags that fl_asr_train lacks: the folder of features (there is no audio), and what its
architecture file holds, the channels and the dropout of each convolution."""

FLAGS: Mapping[str, FlagSpec] = MappingProxyType(
    {name: spec for name, spec in KNOWN_FLAGS.items() if "flashlight" in spec.generations}
    | dict(OUR_FLAGS)
)
"""All flags of the programs by name."""


class UnknownFlagError(FlagError):
    """A flag on the command line is unknown; the exit code is that of gflags."""

    exit_code = EXIT_FAILED


@dataclass(frozen=True, kw_only=True)
class TrainFlags:
    """The flags that act, typed; names and meaning are those of fl_asr_train, or ours."""

    train: str
    valid: str
    datadir: str
    features_dir: str
    tokens: str
    lexicon: str
    wordseparator: str
    maxword: int
    criterion: str
    framestridems: int
    rundir: str
    iter: int
    reportiters: int
    itersave: bool
    batchsize: int
    seed: int
    netoptim: str
    momentum: float
    maxgradnorm: float
    lr: float
    warmup: int
    lrcosine: bool
    lr_decay: int
    lr_decay_step: int
    gamma: float
    stepsize: int
    saug_start_update: int
    saug_fmaskf: int
    saug_fmaskn: int
    saug_tmaskt: int
    saug_tmaskn: int
    saug_tmaskp: float
    enable_distributed: bool
    world_size: int
    hidden: int
    dropout: float


EFFECTIVE_FLAGS = frozenset(field.name for field in fields(TrainFlags))
"""The flags that change what a training does."""


def is_boolean(name: str) -> bool:
    """Return whether ``name`` is a boolean flag of the programs."""
    return name in FLAGS and FLAGS[name].type == "bool"


def read_flags(
    arguments: Sequence[str], *, stored: Mapping[str, str] | None = None
) -> dict[str, str]:
    """Return the values of all flags, as text, in the order of the names.

    Args:
        arguments: The command line behind the program's own words.
        stored: The flags of a model file, over which the others win: first the flagsfile that is
            named there, read again unless the command line names another one or none
            (``--flagsfile=``), then the command line.

    Raises:
        UnknownFlagError: The command line has a flag that does not exist.
        UsageError: A value does not fit, or a flagsfile or the command line cannot be read.
    """
    known = {name: value for name, value in (stored or {}).items() if name in FLAGS}
    flagsfile = _named_flagsfile(arguments)
    if flagsfile is None:
        flagsfile = known.get("flagsfile", "")
        arguments = [f"--flagsfile={flagsfile}", *arguments]
    given = parse_arguments(arguments, boolean=is_boolean)
    for flag in given:
        if flag.name not in FLAGS:
            if flag.path is None:
                raise UnknownFlagError(f"unknown command line flag '{flag.name}'")
            check_flag(flag, extra_known=OUR_FLAGS, generation="flashlight")
        typed_value(FLAGS[flag.name], flag.value, path=flag.path, line=flag.line)
    values = {name: spec.default for name, spec in FLAGS.items()} | known
    values |= {flag.name: flag.value for flag in given} | {"flagsfile": flagsfile}
    return dict(sorted(values.items()))


def _named_flagsfile(arguments: Sequence[str]) -> str | None:
    """Return the last ``--flagsfile`` of a command line."""
    named = None
    for argument, following in itertools.zip_longest(arguments, arguments[1:], fillvalue=""):
        name, equals, value = argument.partition("=")
        if name.startswith("-") and name.lstrip("-") in FLAGSFILE_NAMES:
            named = value if equals else following
    return named


def idle_flags(values: Mapping[str, str]) -> list[str]:
    """Return the flags with another value than the default that do nothing here."""
    neutral = {"flagsfile", "flagfile", "logtostderr", "alsologtostderr", "log_dir", "am", "test"}
    return [
        name
        for name, value in values.items()
        if name not in EFFECTIVE_FLAGS | neutral and value != FLAGS[name].default
    ]


def train_flags(values: Mapping[str, str]) -> TrainFlags:
    """Return the flags that act, typed and checked.

    Raises:
        UsageError: A value does not fit, one is missing, or it asks for what is not here.
    """
    typed: dict[str, Any] = {
        name: typed_value(FLAGS[name], values[name]) for name in EFFECTIVE_FLAGS
    }
    flags = TrainFlags(**typed)
    needed = {
        "tokens": "give the token list",
        "lexicon": "give one, as for fl_asr_train, which ends at the first utterance without it",
        "features_dir": "give one; there is no audio here, only features",
    }
    for name, advice in needed.items():
        if not values[name]:
            raise UsageError(f"no --{name}: {advice}")
    if flags.criterion != "ctc":
        raise FlagError(f"--criterion={flags.criterion}: the embedded training knows ctc only")
    if flags.netoptim not in OPTIMIZERS:
        hint = did_you_mean(flags.netoptim, OPTIMIZERS) or "; take adam or sgd"
        raise FlagError(f"--netoptim={flags.netoptim}: unknown here{hint}")
    for name in ("iter", "batchsize", "hidden", "stepsize", "lr_decay_step", "framestridems"):
        if typed[name] < 1:
            raise FlagError(f"--{name}={values[name]}: must be 1 or more")
    for name in ("reportiters", "warmup", "seed", "saug_fmaskf", "saug_tmaskt"):
        if typed[name] < 0:
            raise FlagError(f"--{name}={values[name]}: must be 0 or more")
    if not (flags.lr > 0 and math.isfinite(flags.lr)):
        raise FlagError(f"--lr={values['lr']}: must be above 0")
    for name in ("momentum", "dropout"):
        if not 0 <= typed[name] < 1:
            raise FlagError(f"--{name}={values[name]}: must be at least 0 and below 1")
    for name in ("maxgradnorm", "gamma", "saug_tmaskp"):
        if not 0 <= typed[name] < math.inf:
            raise FlagError(f"--{name}={values[name]}: must be a number from 0 on")
    if flags.enable_distributed and flags.world_size > 1:
        raise UsageError(
            f"--enable_distributed with --world_size={flags.world_size}: the embedded training "
            "runs in one process; leave it out, or give --binary"
        )
    return flags


def training_options(flags: TrainFlags) -> TrainingOptions:
    """Return how to train by these flags."""
    return TrainingOptions(
        optimizer=flags.netoptim,
        schedule=Schedule(
            peak=flags.lr,
            warmup_updates=flags.warmup,
            updates=flags.iter,
            quarter_cosine=flags.lrcosine,
            halve_from_epoch=flags.lr_decay,
            halve_every_epochs=flags.lr_decay_step,
            gamma=flags.gamma,
            gamma_updates=flags.stepsize,
        ),
        report_updates=flags.reportiters,
        momentum=flags.momentum,
        maximum_gradient_norm=flags.maxgradnorm,
        batch_utterances=flags.batchsize,
        masks=Masks(
            bands=flags.saug_fmaskf,
            band_masks=flags.saug_fmaskn,
            frames=flags.saug_tmaskt,
            frame_masks=flags.saug_tmaskn,
            frame_share=min(flags.saug_tmaskp, 1.0),
            first_update=None if flags.saug_start_update < 0 else flags.saug_start_update,
        ),
        dropout=flags.dropout,
        seed=flags.seed,
    )


def valid_sets(flags: TrainFlags) -> dict[str, str]:
    """Return the lists of ``--valid`` by their tags, in the order of the tags.

    In ``dev:dev.lst,other.lst`` the second has no tag: its name is its tag.

    Raises:
        UsageError: There is none, or a tag comes twice.
    """
    sets: dict[str, str] = {}
    for entry in filter(None, flags.valid.split(",")):
        before, colon, after = entry.partition(":")
        tag, name = (before, after) if colon else (entry, entry)
        if tag in sets:
            raise FlagError(f"--valid={flags.valid}: the tag {tag!r} stands twice")
        sets[tag] = name
    if not sets:
        raise UsageError("no --valid: give a list to measure on, as in --valid=dev:dev.lst")
    return dict(sorted(sets.items()))


def read_lists(flags: TrainFlags, names: str, flag: str) -> Corpus:
    """Read lists, with commas between, and their features ``<features_dir>/<list>.npz``."""
    lists = [Path(flags.datadir, name) for name in names.split(",") if name]
    if not lists:
        raise UsageError(f"no {flag}: give a list of utterances")
    return load_corpora(
        [(path, Path(flags.features_dir, f"{path.stem}.npz")) for path in lists],
        tokens_path=Path(flags.tokens),
        lexicon_path=Path(flags.lexicon),
        separator=flags.wordseparator,
        maxword=flags.maxword,
    )
