"""Which sampler searches a decode sweep, settled before its first trial."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from w2ltune.embedded.decoderflags import DecoderFlags
from w2ltune.errors import UsageError
from w2ltune.search.linear import LINEAR_WEIGHTS
from w2ltune.search.nbestsampler import linear_weights
from w2ltune.search.samplers import check_sampler, grid_points
from w2ltune.search.space import SearchSpace
from w2ltune.sweepoptions import SweepOptions
from w2ltune.trials.binarydecoder import hidden_parts


def settle_sampler(
    options: SweepOptions,
    space: SearchSpace,
    flags: DecoderFlags,
    auto: Mapping[str, str],
    *,
    by_binary: bool,
) -> tuple[SweepOptions, str]:
    """Return the options with the sampler that is meant, and why it is not the usual one, or "".

    Args:
        options: Of the command.
        space: What is searched.
        flags: One setting of all flags.
        auto: Beam flags that w2ltune chooses.
        by_binary: Whether the binary decodes.

    Raises:
        UsageError: The sampler cannot do what is asked.
    """
    chosen, why = _chosen_sampler(options, space, flags, by_binary=by_binary)
    if auto and chosen.sampler != "nbest":
        raise UsageError(
            f"--{next(iter(auto))}=auto needs --sampler=nbest; give a number or a distribution"
        )
    return chosen, why


def _chosen_sampler(
    options: SweepOptions, space: SearchSpace, flags: DecoderFlags, *, by_binary: bool
) -> tuple[SweepOptions, str]:
    why_not = ""
    if space.script is not None:
        why_not = "a --space script decides the flags"
    elif not linear_weights(space.distributions):
        why_not = f"none of {', '.join(LINEAR_WEIGHTS)} has a range"
    elif flags.logadd or "logadd" in space.distributions:
        why_not = "with --logadd the score is not linear in the weights"
    elif by_binary and (hidden := _hidden(space, flags)):
        why_not = f"the beam dumps of the binary do not tell {hidden}, with such an --unkscore"
    if options.sampler == "auto" and options.perturb is not None:
        return replace(options, sampler="random"), ""
    if options.sampler == "auto":
        why = f"searched by tpe, not by n-best lists: {why_not}" if why_not else ""
        return replace(options, sampler="tpe" if why_not else "nbest"), why
    if options.sampler == "nbest":
        if why_not:
            raise UsageError(f"--sampler=nbest: {why_not}; use --sampler=tpe")
        return options, ""
    check_sampler(options.sampler, space.distributions, script=space.script is not None)
    if options.sampler == "grid":
        points = len(grid_points(space.distributions, options.n))
        return replace(options, n=min(options.n, points)), ""  # a point twice tells nothing new
    return options, ""


def _hidden(space: SearchSpace, flags: DecoderFlags) -> str:
    """Return what of a hypothesis the binary's dumps will not tell, or ""."""
    if "unkscore" in space.distributions:
        flags = replace(flags, unkscore=-1.0)  # as of nearly all values
    return hidden_parts(
        replace(flags, silscore=1.0) if "silscore" in space.distributions else flags
    )
