"""Which decoder decodes a sweep, settled once before its first trial."""

from __future__ import annotations

import functools
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from w2ltune import files
from w2ltune.decodeinput import DecodeInput
from w2ltune.errors import InputError, StudyMismatchError, TrialFailedError
from w2ltune.report.progress import bar, say
from w2ltune.runs.outcome import AnswerCheck
from w2ltune.runs.signals import stopped_error, stopping_signals
from w2ltune.search.decodespace import example_flags, sample_settings
from w2ltune.search.poolkey import warm_pool
from w2ltune.trials.agreement import ANSWER_UTTERANCES, SAMPLE_UTTERANCES, Agreement, compare
from w2ltune.trials.binarydecoder import refuse_ids
from w2ltune.trials.emissionsource import EmissionSource

if TYPE_CHECKING:
    from rich.console import Console

NAME = "decoder.json"
"""In the study's folder: what decodes, and why."""

PATIENCE_SECONDS = 900.0
"""For a binary that decodes the sample; loading a large language model may take minutes."""


@dataclass(frozen=True, kw_only=True)
class Decision:
    """What decodes a sweep.

    Attributes:
        decoder: "process" or "binary".
        why: In words; "" where there was no choice.
        compared: Whether both had decoded a sample.
    """

    decoder: str
    why: str
    compared: bool


def ensure_emissions(sources: Sequence[EmissionSource], console: Console) -> None:
    """Make emissions that are missing; Ray must be connected."""
    from w2ltune.trials.emissionmaker import make_emissions  # Ray, only after the connection

    program = Path(sources[0].program).name
    lists = ", ".join(source.path.name for source in sources)
    what = f"emissions of {lists} by {program}, kept in {sources[0].cache}"
    say(console, what)
    began, reasons = time.monotonic(), list[str]()
    with stopping_signals(reasons.append), bar(console, "emissions") as show:
        make_emissions(
            sources,
            progress=show,
            say=functools.partial(say, console),
            stopped=lambda: reasons[0] if reasons else "",
        )
    console.print(f"  done in {time.monotonic() - began:.0f} s")


def check_decoder(given: DecodeInput) -> None:
    """Check what depends on the decoder, where no comparison is needed to know it.

    Raises:
        StudyMismatchError: The sweep was begun with the other decoder.
        InputError: The lists of ``--warm_start`` were decoded otherwise.
    """
    known = _read(given)
    decision = _without_comparison(given, known)
    if decision is not None:
        _refuse_change(given, known, decision)
        _with_decoder(given, decision)


def settle_decoder(given: DecodeInput, console: Console) -> tuple[DecodeInput, Decision]:
    """Hold the decoder in process against the binary, where both could decode.

    A sweep has one decoder from its first trial to its last.

    Args:
        given: The sweep's input.
        console: Where to say it.

    Returns:
        The same, decoded by the binary where the two differ, and what `keep_decision` is to keep.

    Raises:
        StudyMismatchError: The sweep was begun with the other decoder.
        InputError: The lists of ``--warm_start`` were decoded otherwise.
        StoppedError: A signal asked to stop.
    """
    known = _read(given)
    decision = _decide(given, known, console)
    _refuse_change(given, known, decision)
    if decision.why and not given.by_binary:  # else it stands among the findings
        say(console, f"  {decision.why}")
    return _with_decoder(given, decision), decision


def keep_decision(given: DecodeInput, decision: Decision) -> None:
    """Write what decodes to the study's folder; only its owner may call this."""
    known = _read(given)
    _refuse_change(given, known, decision)
    if known is None or (decision.compared and not known.compared):
        files.write_json(given.folder / NAME, asdict(decision))


def _read(given: DecodeInput) -> Decision | None:
    path = given.folder / NAME
    content = files.read_json(path)
    with files.shaped(path):
        return None if content is None else files.fitted(Decision, content)


def _refuse_change(given: DecodeInput, known: Decision | None, decision: Decision) -> None:
    if known is None or known.decoder == decision.decoder:
        return
    now = "the binary" if decision.decoder == "binary" else "in process"
    before = known.why or f"--decoder={known.decoder}"
    raise StudyMismatchError(
        f"its trials were decoded otherwise ({before}), and now {now} would decode"
        f"{f' ({decision.why})' if decision.why else ''}; use another --prefix, or continue with "
        f"--decoder={known.decoder}",
        path=given.folder / NAME,
    )


def _with_decoder(given: DecodeInput, decision: Decision) -> DecodeInput:
    if decision.decoder == "binary" and not given.by_binary:
        refuse_ids(given.dataset)
        given.dataset.task = replace(given.dataset.task, program=given.program)
        given = replace(given, by_binary=decision.why)
    warm = warm_pool(given.options.warm_start, given.key(example_flags(given.space)))
    return replace(given, warm=warm)


def _without_comparison(given: DecodeInput, known: Decision | None) -> Decision | None:
    if given.by_binary:
        return Decision(decoder="binary", why=given.by_binary, compared=False)
    if given.program is None or given.options.decoder == "process":
        return Decision(decoder="process", why="", compared=False)
    return known if known is not None and known.compared else None


def _decide(given: DecodeInput, known: Decision | None, console: Console) -> Decision:
    settled = _without_comparison(given, known)
    if settled is not None:
        return settled
    found = _compare(given, sample_settings(given.space), SAMPLE_UTTERANCES, console)
    name = Path(given.program.path).name if given.program else ""
    if isinstance(found, str):
        why = (
            f"in process, NOT held against {name}, which is tried again at the next start: {found}"
        )
        return Decision(decoder="process", why=why, compared=False)
    if found.differences:
        why = f"decoded by {name}, because in process {found}"
        return Decision(decoder="binary", why=why, compared=True)
    return Decision(decoder="process", why=f"in process, as {name} decodes: {found}", compared=True)


def check_answer(given: DecodeInput, flags: Mapping[str, str], console: Console) -> AnswerCheck:
    """Hold what was decoded in process with the answer's flags against the binary."""
    assert given.program is not None
    name = Path(given.program.path).name
    found = _compare(given, [flags], ANSWER_UTTERANCES, console)
    if isinstance(found, str):
        return AnswerCheck(flags=flags, equal=False, text=f"NOT held against {name}: {found}")
    if found.differences:
        text = f"NOT as {name} decodes: {found}; with --decoder=binary it decodes"
        return AnswerCheck(flags=flags, equal=False, text=text)
    return AnswerCheck(flags=flags, equal=True, text=f"as {name} decodes: {found}")


def _compare(
    given: DecodeInput, settings: Sequence[Mapping[str, str]], utterances: int, console: Console
) -> Agreement | str:
    """Return what a comparison found, or why there was none."""
    assert given.program is not None
    name = Path(given.program.path).name
    each = min(utterances, given.dataset.dev_count)
    where = f" at each of {len(settings)} settings" if len(settings) > 1 else ""
    console.print(f"comparing with {name} on {each} utterances{where}", markup=False)
    reasons, end = list[str](), time.monotonic() + PATIENCE_SECONDS

    def look(part: float) -> None:
        show(part)
        if reasons:
            rest = " while decoders were compared; the same command continues"
            raise stopped_error(reasons[0], rest)
        if time.monotonic() > end:
            raise TrialFailedError(f"no end after {PATIENCE_SECONDS / 60:.0f} minutes")

    try:
        with (
            stopping_signals(reasons.append),
            bar(console, "comparing") as show,
            tempfile.TemporaryDirectory(prefix="agreement-") as scratch,
        ):
            return compare(
                given.program, given.dataset, settings, Path(scratch),
                utterances=utterances, look=look,
            )  # fmt: skip
    except (TrialFailedError, InputError) as error:
        return str(error)
