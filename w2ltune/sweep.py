"""A sweep: search the decoder's weights, or a training's flags; ``python -m w2ltune.sweep``."""

from __future__ import annotations

import contextlib
import sys
from dataclasses import replace

from w2ltune.commandline import parse
from w2ltune.errors import run_command
from w2ltune.formats.flagsfile import FLAGSFILE_NAMES, effective, parse_arguments
from w2ltune.formats.known_flags import is_boolean
from w2ltune.runs.signals import signals_end_it
from w2ltune.sweepoptions import USAGE, SweepOptions, check_options
from w2ltune.trainoptions import SWEEP_USAGE, TrainSweepOptions, check_job_options


@signals_end_it()
def main(arguments: list[str]) -> int:
    """Run or continue a sweep and print its answer."""
    return _sweep_trainings(arguments) if _is_training(arguments) else _sweep_decodes(arguments)


def _is_training(arguments: list[str]) -> bool:
    """Whether ``--task=train`` is given, on the command line or in a flagsfile."""
    if not any(name in a for a in arguments for name in ("task", *FLAGSFILE_NAMES)):
        return False
    asked = [a for a in arguments if a not in ("--help", "-h", "-help", "--version", "-version")]
    known = SweepOptions.__dataclass_fields__ | TrainSweepOptions.__dataclass_fields__
    own = {name for name, field in known.items() if field.type == "bool"}
    flags = effective(parse_arguments(asked, boolean=lambda n: n in own or is_boolean(n)))
    return "task" in flags and flags["task"].value == "train"


def _sweep_decodes(arguments: list[str]) -> int:
    options, given = parse(arguments, SweepOptions, usage=USAGE)
    check_options(options)
    if options.local:
        options = replace(options, n=1, probe=False)
    # Not earlier: --help and mistakes on the command line are answered at once.
    from w2ltune.cluster.jobs import study_lock
    from w2ltune.cluster.session import connect
    from w2ltune.cluster.slurmoptions import submits
    from w2ltune.cluster.submit import submit_command
    from w2ltune.decodeinput import prepare
    from w2ltune.decodeprogram import emission_sources
    from w2ltune.decoderchoice import check_decoder, ensure_emissions, settle_decoder
    from w2ltune.decodesweep import run
    from w2ltune.report.progress import make_console
    from w2ltune.search.decodespace import build_space

    space = build_space(
        given,
        script=options.space or options.perturb,
        options=SweepOptions.__dataclass_fields__,
        any_flag=options.allow_unknown_flags,
    )
    sources = emission_sources(options, space.fixed)
    missing = [source for source in sources if not source.whole()]
    submitted = submits(options, local=options.local)
    if missing or submitted:  # nobody should wait hours for a mistake
        check_decoder(prepare(options, space, command=arguments, sources=sources))
    if submitted:
        return submit_command(
            "w2ltune.sweep", arguments, study=options.folder, options=options, gpus=options.gpu
        )
    console = make_console()
    with contextlib.ExitStack() as stack:
        if missing:
            study_lock(options.folder).refuse_owned()
            stack.enter_context(connect(f"sweep:{options.prefix}", cores=options.cores))
            ensure_emissions(missing, console)
        decode = prepare(options, space, command=arguments, sources=sources)
        return run(*settle_decoder(decode, console), console)


def _sweep_trainings(arguments: list[str]) -> int:
    options, given = parse(arguments, TrainSweepOptions, usage=SWEEP_USAGE)
    check_job_options(options)
    from w2ltune.trainsweep import run_or_submit

    return run_or_submit("w2ltune.sweep", options, given, arguments)


if __name__ == "__main__":
    sys.exit(run_command(main, sys.argv[1:]))
