"""The search space of a decode sweep: from flags, checked against what the decoder looks at."""

from __future__ import annotations

import math
import os
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from w2ltune.embedded.decoderflags import (
    DECODER_FLAGS,
    OUR_FLAGS,
    DecoderFlags,
    dead_weights,
    decoder_flags,
    feature_weights,
    spelled_out,
)
from w2ltune.errors import FlagError, UsageError, existing_file
from w2ltune.formats.distributions import (
    Choice,
    Distribution,
    IntegerRange,
    format_value,
    parse_value,
)
from w2ltune.formats.flagsfile import Flag, effective, parse_flagsfile
from w2ltune.formats.known_flags import KNOWN_FLAGS, check_flag, is_boolean
from w2ltune.search.linear import Box
from w2ltune.search.nbestsampler import linear_weights
from w2ltune.search.probe import AUTO_START
from w2ltune.search.space import ANCESTOR_RANGES, SearchSpace, example_of
from w2ltune.trials.dataset import DecodeTask

_FILES = {
    "tokens": "token list",
    "lexicon": "lexicon",
    "lm": "language model",
    "transitions": "transitions",
}


def build_space(
    given: Mapping[str, Flag], *, script: Path | None, options: Collection[str], any_flag: bool
) -> SearchSpace:
    """Return the search space that the flags describe.

    Args:
        given: The flags in effect.
        script: The ``--space`` file, if any.
        options: Names of the command's own options, for did-you-mean.
        any_flag: Let unknown flags through.

    Raises:
        FlagError: A flag is unknown, its value does not fit, or its distribution is wrong.
        UsageError: A searched flag does nothing with the other flags.
    """
    fixed: dict[str, str] = {}
    distributions: dict[str, Distribution] = {}
    for flag in given.values():
        if flag.name in AUTO_START and flag.value == "auto":
            fixed[flag.name] = flag.value
            continue
        if not any_flag:
            check_flag(flag, extra_known={*OUR_FLAGS, *options})
        value = parse_value(flag.value, flag=flag.name, path=flag.path, line=flag.line)
        if isinstance(value, str):
            fixed[flag.name] = value
        else:
            distributions[flag.name] = value
    return SearchSpace(fixed=fixed, distributions=distributions, script=script)


def complete_space(space: SearchSpace, flags: DecoderFlags, tokens: Sequence[str]) -> SearchSpace:
    """Add the default ranges where nothing is searched, and refuse searching what does nothing.

    Raises:
        UsageError: A searched flag is dead, unknown to the decoder, or there is none.
    """
    dead = dead_weights(flags, tokens)
    # A weight may be dead for one value of a searched flag only; then it is left to the user.
    deciding = {"criterion", "lm", "uselexicon", "decodertype", "wordseparator", "tokens"}
    if not deciding & space.distributions.keys():
        for name in space.distributions:
            if name in dead:
                raise UsageError(f"--{name} is searched but changes nothing: {dead[name]}")
    also = () if flags.criterion in ("ctc", "asg") else ("eosscore",)
    for name in space.distributions:
        if name not in (*DECODER_FLAGS, *also) and name not in dead:
            raise UsageError(f"--{name} is searched but the decoder does not look at it")
    if space.distributions or space.script:
        return space
    ranges = {
        name: value
        for name, value in ANCESTOR_RANGES.items()
        if name not in space.fixed and name not in dead
    }
    if not ranges:
        raise UsageError(
            "nothing to search: give a flag a distribution, as in --lmweight='uniform(0, 5)'"
        )
    return replace(space, distributions=ranges)


def split_auto(space: SearchSpace) -> tuple[SearchSpace, dict[str, str]]:
    """Return the space with the first values of ``auto`` beam flags, and these values."""
    auto = {n: AUTO_START[n] for n in AUTO_START if space.fixed.get(n) == "auto"}
    return replace(space, fixed={**space.fixed, **auto}), auto


def read_baseline(path: Path, flags: Mapping[str, str]) -> tuple[dict[str, str], list[str]]:
    """Return the decoder's flags of the user's present flagsfile, over the sweep's own.

    What does not concern the decoder (lists, folders, the acoustic model) is left aside.

    Returns:
        The flags, and those that are left aside and differ from the sweep's.

    Args:
        path: The flagsfile.
        flags: All flags of the sweep with one setting of the searched ones.

    Raises:
        InputError: The file is missing or cannot be read.
        FlagError: A flag is unknown, or its value is wrong or a distribution.
    """
    existing_file(path, "flagsfile of present weights (--baseline)")
    given: dict[str, str] = {}
    left: list[str] = []
    for flag in effective(parse_flagsfile(path, boolean=is_boolean)).values():
        check_flag(flag, extra_known=OUR_FLAGS)
        if not isinstance(parse_value(flag.value, flag=flag.name), str):
            raise FlagError(f"{flag.where}: --{flag.name}={flag.value}: a baseline has values only")
        if flag.name in (*DECODER_FLAGS, "eosscore"):
            given[flag.name] = flag.value
        elif flag.value != flags.get(flag.name, KNOWN_FLAGS[flag.name].default):
            left.append(f"--{flag.name}={flag.value}")
    if decoder_flags({**flags, **given}).criterion in ("ctc", "asg"):
        given.pop("eosscore", None)  # dead there
    return given, left


def example_flags(space: SearchSpace) -> dict[str, str]:
    """Return one setting of all flags, for checks before the first trial."""
    flags = dict(space.fixed)
    for name, value in space.distributions.items():
        flags[name] = value.choices[0] if isinstance(value, Choice) else format_value(value.low)
    if space.script is not None:
        flags |= example_of(space.script, space.fixed)
        for name, text in flags.items():
            check_flag(Flag(name=name, value=text, path=str(space.script)))
    return flags


def sample_settings(space: SearchSpace) -> list[dict[str, str]]:
    """Return all flags at the middle of what is searched and at some of its corners.

    Two corners where one flag is searched, else four, at which each end of a range meets both ends
    of its neighbours'. Of a script there is no telling: one example.
    """
    if space.script is not None or not space.distributions:
        return [example_flags(space)]
    corners = [[0.5], [0.0], [1.0], [0.0, 1.0], [1.0, 0.0]]
    settings = [
        dict(space.fixed)
        | {
            name: _at(distribution, corner[number % len(corner)])
            for number, (name, distribution) in enumerate(space.distributions.items())
        }
        for corner in corners
    ]
    different = [flags for i, flags in enumerate(settings) if flags not in settings[:i]]
    return [flags for flags in different if _is_valid(flags)] or [example_flags(space)]


def _is_valid(flags: Mapping[str, str]) -> bool:
    try:
        decoder_flags(flags)
    except UsageError:  # of choices that do not go together
        return False
    return True


def _at(distribution: Distribution, part: float) -> str:
    """Return the value at a part of a range, or of the choices in their order."""
    if isinstance(distribution, Choice):
        return format_value(distribution.choices[round(part * (len(distribution.choices) - 1))])
    low, high = distribution.low, distribution.high
    value = low * (high / low) ** part if distribution.log else low + part * (high - low)
    if distribution.step:
        value = low + distribution.step * math.floor((value - low) / distribution.step + 1e-9)
    return format_value(round(value) if isinstance(distribution, IntegerRange) else value)


def standing_alone(flags: Mapping[str, str]) -> dict[str, str]:
    """Return a trial's flags so that the binary needs no others, whatever its folder and its model.

    Args:
        flags: Of the trial; their paths are relative to the present folder.
    """
    complete = spelled_out(flags)
    if not flags.get("am"):
        complete.setdefault("criterion", "ctc")  # without a model the binary's own is asg
    names = [*_FILES, "am", "emission_dir", "datadir"]
    if flags.get("tokensdir"):
        names = [*(name for name in names if name != "tokens"), "tokensdir"]
    if not all(Path(name).is_absolute() for name in flags.get("test", "").split(",")):
        complete["datadir"] = flags.get("datadir") or "."
    for name in names:
        if complete.get(name):
            complete[name] = os.path.abspath(complete[name])  # noqa: PTH100 (links are the user's)
    return complete


def input_paths(
    space: SearchSpace, task: DecodeTask, baseline: Mapping[str, str] | None
) -> list[Path]:
    """Return the files and folders that decide the results; held-out lists do not."""
    paths: list[Path] = [*task.lists, *task.emissions[: len(task.lists)]]
    for name, what in _FILES.items():
        searched = space.distributions.get(name)
        values: Iterable[str] = searched.choices if isinstance(searched, Choice) else ()
        folder = space.fixed.get("tokensdir", "") if name == "tokens" else ""
        paths += [
            existing_file(Path(folder, text), f"{what} (--{name})")
            for text in (space.fixed.get(name, ""), (baseline or {}).get(name, ""), *values)
            if text
        ]
    paths += [path for path in (task.normalize, space.script) if path is not None]
    return list(dict.fromkeys(paths))


def make_box(distributions: Mapping[str, Distribution], flags: Mapping[str, str]) -> Box:
    """Return the box of the searched linear weights, with a trial's other weights."""
    names = linear_weights(distributions)
    ranges = [r for r in map(distributions.__getitem__, names) if not isinstance(r, Choice)]
    return Box(
        names=tuple(names),
        low=np.array([r.low for r in ranges], dtype=np.float64),
        high=np.array([r.high for r in ranges], dtype=np.float64),
        fixed=np.array(feature_weights(decoder_flags(flags))),
        steps=np.array([r.step or 0.0 for r in ranges], dtype=np.float64),
    )
