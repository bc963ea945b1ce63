"""A training: begin, continue or fork one; ``python -m w2ltune.train``."""

from __future__ import annotations

import sys

from w2ltune.commandline import parse
from w2ltune.errors import run_command
from w2ltune.runs.signals import signals_end_it
from w2ltune.trainoptions import TRAIN_USAGE, TrainOptions, check_job_options


@signals_end_it()
def main(arguments: list[str]) -> int:
    """Run or continue a training and print what came of it."""
    options, given = parse(arguments, TrainOptions, usage=TRAIN_USAGE)
    check_job_options(options)
    # Not earlier: --help and mistakes on the command line are answered at once.
    from w2ltune.trainsweep import run_or_submit

    return run_or_submit("w2ltune.train", options, given, arguments)


if __name__ == "__main__":
    sys.exit(run_command(main, sys.argv[1:]))
