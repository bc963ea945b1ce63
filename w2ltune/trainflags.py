"""The flags of a training: out of its config, or of what is continued, and of --extra."""

from __future__ import annotations

import difflib
import shlex
from collections.abc import Mapping
from pathlib import Path

from w2ltune.embedded.trainflags import OUR_FLAGS as EMBEDDED_FLAGS
from w2ltune.errors import FlagError, InputError, UsageError, existing_file
from w2ltune.formats.checkpoint import read_header
from w2ltune.formats.distributions import Distribution, parse_value
from w2ltune.formats.flagsfile import Flag, effective, parse_flagsfile
from w2ltune.formats.known_flags import KNOWN_FLAGS, Generation, check_flag, is_boolean
from w2ltune.runs.rundir import require_checkpoint
from w2ltune.runs.trialdir import TrialDirectory, trial_directories
from w2ltune.search.samplers import check_sampler
from w2ltune.search.space import SearchSpace, example_of
from w2ltune.trainoptions import JobOptions, TrainOptions, TrainSweepOptions
from w2ltune.trials.trainjob import OUR_FLAGS, Mode


def split_extra(text: str) -> list[str]:
    """Return the arguments in ``--extra``; blanks within brackets and quotes do not part them.

    Raises:
        UsageError: A quote is not closed.

    Example:
        >>> split_extra("--lr=loguniform(1e-4, 1) --itersave")
        ['--lr=loguniform(1e-4, 1)', '--itersave']
    """
    try:
        words = shlex.split(text)
    except ValueError as error:
        raise UsageError(f"--extra={text}: {error}") from None
    joined: list[str] = []
    for word in words:
        if joined and joined[-1].count("(") > joined[-1].count(")"):
            joined[-1] += f" {word}"
        else:
            joined.append(word)
    return joined


def base_flags(options: JobOptions, mode: Mode) -> dict[str, Flag]:
    """Return the flags below those of ``--extra``: of the config, or of the run to continue."""
    path = options.config
    if mode == "continue":
        assert isinstance(options, TrainOptions)
        if options.model_path is None:
            raise UsageError("--mode=continue: give the run directory by --model_path=DIR")
        require_checkpoint(options.model_path)
        if path is None:
            return _flags_of_run(options.model_path)
    if isinstance(options, TrainOptions):
        if mode == "fork" and options.model_path is None:
            raise UsageError("--mode=fork: give the checkpoint by --model_path=FILE.bin")
        if mode == "train" and options.model_path is not None:
            raise UsageError(
                f"--model_path={options.model_path}: --mode=train begins from nothing; take "
                "--mode=continue with a run directory, or --mode=fork with a checkpoint"
            )
    if path is None:
        raise UsageError("missing --config=<..>/project/name.cfg (see --help)")
    existing_file(path, "flagsfile of the training (--config)")
    return effective(parse_flagsfile(path, boolean=is_boolean))


def _flags_of_run(rundir: Path) -> dict[str, Flag]:
    """Return the flags that a run directory was last trained with."""
    asked = [trial for trial in trial_directories(rundir / "trials") if trial.was_asked()]
    if not asked and rundir.name == "run" and rundir.parent.name.isdecimal():  # of a sweep's trial
        asked = [TrialDirectory(rundir.parents[1], int(rundir.parent.name))]
        asked = [trial for trial in asked if trial.was_asked()]
    if asked:
        return {name: Flag(name=name, value=v) for name, v in asked[-1].read_flags().items()}
    model = sorted(rundir.glob("[0-9][0-9][0-9]_model_last.bin"))[-1]
    try:
        stored = read_header(model).flags
    except InputError as error:
        raise InputError(f"{error}; its flags are not known: give --config too") from None
    return {
        name: Flag(name=name, value=value, path=str(model), line=1)
        for name, value in stored.items()
        if name in KNOWN_FLAGS and name not in OUR_FLAGS and value != KNOWN_FLAGS[name].default
    }


def split_flags(
    flags: Mapping[str, Flag], generation: Generation, embedded: bool, options: JobOptions
) -> tuple[dict[str, str], dict[str, Distribution]]:
    """Part the flags into fixed and searched ones."""
    fixed: dict[str, str] = {}
    distributions: dict[str, Distribution] = {}
    for flag in flags.values():
        if not options.allow_unknown_flags:
            known = EMBEDDED_FLAGS if embedded else ()
            if flag.name not in KNOWN_FLAGS and flag.name not in known:
                _refuse_option(flag, options)
            check_flag(flag, extra_known=known, generation=generation)
        value = parse_value(flag.value, flag=flag.name, path=flag.path, line=flag.line)
        if isinstance(value, str):
            fixed[flag.name] = value
        else:
            distributions[flag.name] = value
    return fixed, distributions


def _refuse_option(flag: Flag, options: JobOptions) -> None:
    """Refuse an option of w2ltune that is mistyped, or stands where flags of the program do."""
    own = type(options).__dataclass_fields__
    nearest = difflib.get_close_matches(flag.name, [*own, *KNOWN_FLAGS], n=1)
    other = TrainOptions if isinstance(options, TrainSweepOptions) else TrainSweepOptions
    if flag.name in own:
        problem = "is an option of w2ltune; give it on the command line, outside of --extra"
    elif flag.name in other.__dataclass_fields__:
        module = "train" if other is TrainOptions else "sweep --task=train"
        problem = f"is an option of python -m w2ltune.{module} only"
    elif nearest and nearest[0] in own:
        problem = f"is unknown; did you mean '{nearest[0]}'?"
    else:
        return  # at most a mistyped flag of the program
    raise FlagError(f"--{flag.name} {problem}", path=flag.path, line=flag.line)


def script_flags(space: SearchSpace) -> dict[str, Flag]:
    """Return one setting of the flags that the script of ``--space`` gives, to be checked."""
    if space.script is None:
        return {}
    path = str(space.script)
    example = example_of(space.script)
    return {name: Flag(name=name, value=value, path=path) for name, value in example.items()}


def check_space(options: JobOptions, space: SearchSpace) -> None:
    """Refuse a search without a range, and a range without a search."""
    if isinstance(options, TrainSweepOptions):
        if not space.distributions and space.script is None:
            raise UsageError(
                'nothing to search: give a flag a distribution, as in --extra="--lr=loguniform'
                '(1e-4,1)"; for one training use python -m w2ltune.train'
            )
        if "valid" in space.distributions:
            raise UsageError("--valid cannot be searched: its errors tell which trial is better")
        check_sampler(options.sampler, space.distributions, script=space.script is not None)
    elif space.distributions:
        name, value = next(iter(space.distributions.items()))
        raise UsageError(
            f"--{name}={value} is a distribution; one training takes values. To search: "
            "python -m w2ltune.sweep --task=train"
        )
