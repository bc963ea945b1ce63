"""A sweep: search the decoder's weights on a dev list; ``python -m w2ltune.sweep``."""

from __future__ import annotations

import sys

from w2ltune.commandline import parse
from w2ltune.errors import run_command
from w2ltune.sweepoptions import USAGE, SweepOptions, check_options


def main(arguments: list[str]) -> int:
    """Run or continue a sweep and print its answer."""
    options, given = parse(arguments, SweepOptions, usage=USAGE)
    check_options(options)
    # Not earlier: --help and mistakes on the command line are answered at once.
    from w2ltune.decodeinput import prepare
    from w2ltune.decodesweep import run
    from w2ltune.report.progress import make_console
    from w2ltune.search.decodespace import build_space

    space = build_space(
        given,
        script=options.space,
        options=SweepOptions.__dataclass_fields__,
        any_flag=options.allow_unknown_flags,
    )
    console = make_console()
    return run(prepare(options, space, command=arguments), console)


if __name__ == "__main__":
    sys.exit(run_command(main, sys.argv[1:]))
