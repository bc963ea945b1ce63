"""Which decoder decodes a sweep, settled once before its first trial."""

from __future__ import annotations

import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from w2ltune import files
from w2ltune.decodeinput import DecodeInput
from w2ltune.errors import InputError, TrialFailedError
from w2ltune.report.progress import bar
from w2ltune.runs.rundir import make_shared
from w2ltune.runs.signals import stopping_signals
from w2ltune.search.decodespace import example_flags
from w2ltune.trials.agreement import compare
from w2ltune.trials.emissionsource import EmissionSource

if TYPE_CHECKING:
    from rich.console import Console

NAME = "decoder.json"
"""In the study's folder: what decodes, and why."""


def ensure_emissions(source: EmissionSource, console: Console) -> None:
    """Make what is missing of the emissions; Ray must be connected.

    Args:
        source: How.
        console: Where to show it.

    Raises:
        TrialFailedError: The program failed.
        StoppedError: A signal asked to stop; the same command continues.
    """
    from w2ltune.trials.emissionmaker import make_emissions  # Ray, only after the connection

    program = Path(source.program).name
    what = f"emissions of {', '.join(source.missing())} by {program}"
    console.print(f"{what}, kept in {source.emission_dir}", soft_wrap=True, markup=False)
    began, reasons = time.monotonic(), list[str]()
    with stopping_signals(reasons.append), bar(console, "emissions") as show:
        make_emissions(source, progress=show, stopped=lambda: reasons[0] if reasons else "")
    console.print(f"  done in {time.monotonic() - began:.0f} s")


def settle_decoder(given: DecodeInput, console: Console) -> DecodeInput:
    """Hold the decoder in process against the binary, where both could decode.

    What was found is kept in the study's folder: a sweep has one decoder from its first trial to
    its last.

    Args:
        given: The sweep's input.
        console: Where to say it.

    Returns:
        The same, decoded by the binary where the two differ.
    """
    if given.program is None or given.by_binary or given.options.decoder == "process":
        return given
    path = given.folder / NAME
    known = files.read_json(path)
    if known is None:
        known = _try(given)
        make_shared(given.folder)
        files.write_json(path, known)
    console.print(f"  {known['why']}", markup=False, soft_wrap=True)
    if known["decoder"] == "process":
        return given
    dataset = given.dataset
    dataset.task = replace(dataset.task, program=given.program)
    return replace(given, by_binary=known["why"])


def _try(given: DecodeInput) -> dict[str, str]:
    assert given.program is not None
    name = Path(given.program.path).name
    try:
        with tempfile.TemporaryDirectory(prefix="agreement-") as scratch:
            found = compare(given.program, given.dataset, example_flags(given.space), Path(scratch))
    except (TrialFailedError, InputError) as error:
        return {"decoder": "process", "why": f"not held against {name}: {error}"}
    if found.differences:
        why = f"decoded by {name}, because in process {found}"
        return {"decoder": "binary", "why": why}
    return {"decoder": "process", "why": f"in process, as {name} decodes: {found}"}
