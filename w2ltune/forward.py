"""LM forwarding: scores for every hypothesis of a beam dump; ``python -m w2ltune.forward``."""

from __future__ import annotations

import contextlib
import functools
import shutil
import sys
import time
from collections.abc import Iterator, Set
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from w2ltune.commandline import parse_own
from w2ltune.errors import StudyOwnedError, UsageError, W2LTuneError, run_command
from w2ltune.formats.spelling import why_unlike
from w2ltune.forwardoptions import USAGE, ForwardOptions, check_options
from w2ltune.runs.signals import signals_end_it

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from rich.console import Console

    from w2ltune.forwardinput import ForwardInput
    from w2ltune.report.forwarding import Scored
    from w2ltune.runs.lock import StudyLock
    from w2ltune.runs.shards import Shard, ShardFolder
    from w2ltune.trials.lmsource import LMSource

MOSTLY_UNKNOWN = 0.5


@signals_end_it()
def main(arguments: list[str]) -> int:
    """Score the hypotheses of beam dumps, or go on with it, and print what came of it."""
    options = parse_own(arguments, ForwardOptions, usage=USAGE)
    check_options(options)
    # Not earlier: --help and mistakes on the command line are answered at once.
    from w2ltune.cluster.slurmoptions import submits
    from w2ltune.cluster.submit import submit_command
    from w2ltune.forwardinput import prepare
    from w2ltune.report.progress import make_console, say

    given = prepare(options)
    console = make_console()
    for output in given.done:
        say(console, f"{output.path}: is there already, of the same dump and LM")
    if not given.outputs:
        _clear(given)
        return 0
    if submits(options):
        return submit_command(
            "w2ltune.forward", arguments, study=given.folder, options=options, gpus=options.gpu
        )
    return run(given, options, console)


def run(given: ForwardInput, options: ForwardOptions, console: Console) -> int:
    """Score what is not scored yet, and write the files.

    Args:
        given: The dumps and the LM.
        options: Of the command.
        console: Where to show it.

    Raises:
        StudyOwnedError: Another process does the same.
        W2LTuneError: It failed, or was stopped; the shards that are done are kept.
    """
    from w2ltune.report.forwarding import table
    from w2ltune.report.progress import say
    from w2ltune.runs.rundir import make_shared
    from w2ltune.runs.shards import ShardFolder
    from w2ltune.runs.sharing import share
    from w2ltune.trials.lmsource import COLUMNS

    share(given.folder)
    for output in given.outputs:
        make_shared(output.path.parent)
    with _owned(given.folder, {output.path.parent for output in given.outputs}) as lock:
        if all(output.is_done() for output in given.outputs):
            say(console, "another process has just done it")
            return 0
        shards = ShardFolder(given.folder / "shards", columns=COLUMNS)
        _score(given, options, console, shards, lock)
        results = _write(given, shards)
        shards.remove()
    unit = options.unit if options.lm is not None else "tokens"
    console.print(table(results, unit))
    for result in results:
        say(console, f"scores: {result.path}")
        if result.unknown > MOSTLY_UNKNOWN:
            why = _why_unknown(given.source, result.example)
            say(
                console,
                f"warning: most {unit} are unknown to the LM, as in {result.example[:60]!r}{why}; "
                "see --case and --unit",
            )
    return 0


def _why_unknown(source: LMSource, text: str) -> str:
    """Return in a clause how the units of a text differ from those of the LM, or ""."""
    from w2ltune.embedded.kenlm import lm_words

    known = (lm_words(Path(source.model)) if source.kind == "kenlm" else None) or frozenset()
    if source.unit == "words" and known and all(len(word) == 1 for word in known - {"<s>", "</s>"}):
        return ": its words are single letters, so that it needs --unit=letters"
    why = why_unlike([unit for unit in source.vocabulary([text]) if unit not in known], known)
    return why and f": {why}"


def _clear(given: ForwardInput) -> None:
    """Remove what a run that was killed at its very end left of its folder, where we may."""
    from w2ltune.runs.shards import ShardFolder
    from w2ltune.trials.lmsource import COLUMNS

    if (given.folder / "lock").is_dir():
        with contextlib.suppress(W2LTuneError, OSError), _owned(given.folder, set()):
            if given.has_old_pieces():
                ShardFolder(given.folder / "shards", columns=COLUMNS).remove()


@contextlib.contextmanager
def _owned(folder: Path, outputs: Set[Path]) -> Iterator[StudyLock]:
    """Own the folder of the shards, removed where it serves no longer, and those of outputs."""
    from w2ltune import files
    from w2ltune.cluster.jobs import study_lock
    from w2ltune.forwardinput import NOTE
    from w2ltune.runs.lock import leave_to_another
    from w2ltune.runs.rundir import make_shared

    make_shared(folder)
    lock = study_lock(folder)
    lock.acquire()
    try:
        for place in outputs:
            files.fence(place, lock.is_ours, leave_to_another)
        yield lock
    finally:
        lock.release()
        for place in outputs:
            files.unfence(place, lock.is_ours)
        if not (folder / "shards").exists() and lock.is_ours():
            (folder / NOTE).unlink(missing_ok=True)
            shutil.rmtree(folder / "lock", ignore_errors=True)
            with contextlib.suppress(OSError):  # it holds the scripts and logs of SLURM
                folder.rmdir()


def _score(
    given: ForwardInput,
    options: ForwardOptions,
    console: Console,
    folder: ShardFolder,
    lock: StudyLock,
) -> None:
    """Score the shards that are not there."""
    from w2ltune.report.progress import duration, say

    missing = [shard for shard in given.shards if folder.read(shard) is None]
    kept = len(given.shards) - len(missing)
    if differences := given.settle_folder():
        say(console, f"other scores than before: {differences}")
    say(
        console,
        f"{sum(len(output.ids) for output in given.outputs)} hypotheses, {len(given.sentences)} "
        f"different sentences, {len(given.shards)} shard{'s' if len(given.shards) > 1 else ''}"
        + (f" ({kept} scored before)" if kept else ""),
    )
    if not missing:
        return
    from w2ltune.cluster.session import connect
    from w2ltune.report.forwarding import progress
    from w2ltune.runs.signals import stopping_signals

    total = sum(len(shard.sentences) for shard in missing)
    done, reasons = 0, list[str]()

    def keep(shard: Shard, scores: NDArray[np.float64]) -> None:
        nonlocal done
        if not lock.is_ours():
            raise StudyOwnedError(f"{given.folder}: another process has taken over")
        folder.keep(shard, scores)
        done += len(shard.sentences)

    with (
        connect(f"forward:{given.folder.name}", cores=options.cores) as session,
        stopping_signals(reasons.append),
        progress(console, total) as show,
    ):
        # Ray, after the connection.
        from w2ltune.trials.lmscoring import Scoring, worker_bundle
        from w2ltune.trials.resources import trials_that_fit

        bundle = worker_bundle(given.source, gpu=options.gpu > 0)
        if session.local and not trials_that_fit([bundle]):
            asked = " and ".join(f"{amount:g} {name}" for name, amount in bundle.items())
            raise UsageError(
                f"no worker fits this machine: it needs {asked} (--worker_cores, --gpu, --cores)"
            )
        began = time.monotonic()
        Scoring(
            given.source,
            missing,
            given.source.vocabulary(text for shard in missing for text in shard.sentences),
            bundle=bundle,
            scratch=session.scratch.name,
            keep=keep,
            say=functools.partial(say, console),
        ).run(
            look=lambda: show(done),
            stopped=lambda: reasons[0] if reasons else "",
            lives=session.lives,
            node_wait_minutes=session.node_wait_minutes(options.node_wait_minutes),
        )
        seconds = time.monotonic() - began
    console.print(
        f"scored {total} sentences in {duration(seconds)}, {total / seconds:.0f} a second"
    )


def _write(given: ForwardInput, folder: ShardFolder) -> list[Scored]:
    """Write the files of scores from the shards, which are all there."""
    import numpy as np

    from w2ltune.report.forwarding import Scored

    parts = [folder.read(shard) for shard in given.shards]
    scores, unknown, units = np.concatenate([part for part in parts if part is not None]).T
    results = []
    for output in given.outputs:
        rows = output.rows
        flawed = np.flatnonzero(unknown[rows])
        told = given.source.kind != "command"
        results.append(
            Scored(
                path=output.path,
                hypotheses=len(rows),
                sentences=len(np.unique(rows)),
                with_unknown=len(flawed) if told else None,
                unknown=float(unknown[rows].sum() / max(1.0, units[rows].sum())),
                example=given.sentences[rows[flawed[0]]] if len(flawed) else "",
            )
        )
        facts = asdict(results[-1])
        del facts["path"], facts["example"]
        output.write(scores, facts)
    return results


if __name__ == "__main__":
    sys.exit(run_command(main, sys.argv[1:]))
