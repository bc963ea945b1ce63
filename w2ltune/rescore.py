"""Rescoring: weights of language models on a beam dump; ``python -m w2ltune.rescore``."""

from __future__ import annotations

import os
import sys

from w2ltune.commandline import parse_own
from w2ltune.errors import run_command
from w2ltune.rescoreoptions import USAGE, RescoreOptions, check_options, parse_weights
from w2ltune.runs.signals import signals_end_it


@signals_end_it()
def main(arguments: list[str]) -> int:
    """Search weights, or evaluate given ones, and print what they come to."""
    options = parse_own(arguments, RescoreOptions, usage=USAGE)
    check_options(options)
    if options.in_wts:
        parse_weights(options.in_wts, options.weights)
    os.environ.setdefault("OMP_NUM_THREADS", "1")  # before numpy is loaded: more would only spin
    # Not earlier: --help and mistakes on the command line are answered at once.
    from w2ltune.rescoreinput import read_input
    from w2ltune.rescoringrun import evaluate, search

    given = read_input(options)
    return search(given, command=arguments) if options.searches else evaluate(given)


if __name__ == "__main__":
    sys.exit(run_command(main, sys.argv[1:]))
