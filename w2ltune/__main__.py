"""The umbrella command: ``w2ltune COMMAND …`` is ``python -m w2ltune.COMMAND …``."""

from __future__ import annotations

import importlib
import sys

from w2ltune import __version__
from w2ltune.errors import UsageError, did_you_mean, run_command

COMMANDS = {
    "train": ("w2ltune.train", "train one model; nothing but its own end ends it"),
    "sweep": ("w2ltune.sweep", "search decoder weights, or a training's flags"),
    "collect": ("w2ltune.collect", "leaderboard of any sweep, live too"),
    "forward": ("w2ltune.forward", "LM scores for every hypothesis of a beam dump"),
    "rescore": ("w2ltune.rescore", "weights of language models on a beam dump"),
    "emissions": ("w2ltune.embedded.emissions", "emissions from any toolkit's CTC model"),
    "lexicon": ("w2ltune.embedded.lexicon", "a lexicon for a model's tokens"),
    "status": ("w2ltune.cluster.status", "the SLURM jobs of a study, or of all of yours"),
    "workers": ("w2ltune.cluster.workers", "add nodes to a study's SLURM job"),
    "stop": ("w2ltune.cluster.status", "end the SLURM jobs of a study for good"),
}
FUNCTIONS = {"stop": "stop_main"}
"""What is called where it is not ``main``."""


def _dispatch(arguments: list[str]) -> int:
    name = arguments[0] if arguments else "--help"
    if name in ("--help", "-h", "help"):
        print("usage: w2ltune COMMAND [options] (w2ltune COMMAND --help says more)\n\ncommands:")
        for known, (_, text) in COMMANDS.items():
            print(f"  {known:<10} {text}")
        return 0
    if name == "--version":
        print(f"w2ltune {__version__}")
        return 0
    if name not in COMMANDS:
        raise UsageError(
            f"unknown command {name!r}{did_you_mean(name, COMMANDS)} (known: {', '.join(COMMANDS)})"
        )
    module = importlib.import_module(COMMANDS[name][0])
    return int(getattr(module, FUNCTIONS.get(name, "main"))(arguments[1:]))


def main() -> int:
    """Run the command that the command line names."""
    return run_command(_dispatch, sys.argv[1:])


if __name__ == "__main__":
    sys.exit(main())
