"""Say in one line why a program ended, from its return code and the end of its log.

The binaries die of nearly everything by SIGABRT: the reason stands in a fatal line of glog, in
the text of an uncaught exception, or in a message of gflags, among stack traces. The table holds
what flashlight v0.3.2 printed in captured runs, and what users reported of GPUs.
"""

from __future__ import annotations

import os
import re
import signal
from collections.abc import Iterable
from pathlib import Path

from w2ltune import errors
from w2ltune.errors import KilledError, TrialFailedError, W2LTuneError
from w2ltune.formats.audio import first_unreadable
from w2ltune.formats.logs import parse_train_line, without_prefix
from w2ltune.runs.process import STARTED

TRIES = 3
"""So often is begun what is killed from outside, in one run of a command."""

TAIL_BYTES = 64 * 1024
LONGEST = 300

_Rules = tuple[tuple[str, str], ...]

_NO_SOUND = "loadSound(?:Info)?: "
"""So flashlight says that it cannot read an audio file, without its name."""

_WHATEVER_THE_CODE: _Rules = (
    (r"^w2ltune: error: (.+)", r"\1"),
    (r"slurmstepd: error: .*oom[-_]kill", "out of memory: SLURM ended it at the job's limit"),
    (r"slurmstepd: error: .*DUE TO (TIME LIMIT|PREEMPTION)", r"ended by SLURM: \1"),
    (r"process rank (\d+) .*exited on signal 9\b", r"rank \1 was killed (SIGKILL), most likely "
     "for want of memory"),
)  # fmt: skip

_ANYWHERE: _Rules = (
    (
        r"Failed to allocate memory of size ([\d.]+ \w+)|Device out of memory:101|CUDA_ERROR_OUT_OF"
        r"_MEMORY|CUDA (?:Error \(2\): )?out of memory|CU(?:DNN|BLAS)_STATUS_ALLOC_FAILED",
        r"out of GPU memory \1; take a smaller --batchsize",
    ),
    (
        r"Driver not available or incompatible:102|no CUDA-capable device is detected|"
        r"CUDA driver version is insufficient|invalid device ordinal",
        r"no usable GPU (\g<0>)",
    ),
    (
        r"what\(\): +(unhandled (?:system|cuda) error|invalid usage|internal error)(?=(?s:.*)nccl)",
        r"NCCL, which connects the GPUs, failed: \1; NCCL_DEBUG=INFO says more",
    ),
    (
        r"NCCL (?:error|failure)[^\n]*|nccl(?:System|Internal|UnhandledCuda|Remote)\w*Error[^\n]*",
        r"NCCL, which connects the GPUs, failed: \g<0>",
    ),
    (r"error while loading shared libraries: ([^\n]*)", r"a library is missing: \1"),
)

_LOADING: _Rules = (
    (r"^failed to open file", "no such file, or it may not be read"),
    (r"^Failed to read (\d+ bytes)", "it is cut short"),
    (r"^std::(?:bad_alloc|length_error)|^vector::|^basic_string", "it is damaged"),
    (r"unregistered polymorphic type \((.*?)\)", r"it holds a \1, which this binary does not know"),
)

_CAUSES: _Rules = (
    (
        r"^Error while saving \"(.+?)\": (.*)",
        r"disk full while writing \1 (\2); make room and start it again",
    ),
    (r"^failed to open file for writing: (.*)", r"the file \1 may not be written"),
    (r"No space left on device|Disk quota exceeded", r"disk full (\g<0>)"),
    (r"^Unable to open file -(.*)", r"the list \1 is missing, or may not be read"),
    (r"^could not open file for read (.*)", r"the audio file \1 is missing, or may not be read"),
    (rf"^({_NO_SOUND}.*)", r"an audio file cannot be read (\1)"),
    (
        r"^File (.*) has invalid columns in line .*?: (.*)",
        r"the list \1 has a row of less than 3 columns (id, audio, duration): '\2'",
    ),
    (r"Invalid dictionary filepath specified(?: .*?(\".*\"))?", r"the tokens file \1 is missing"),
    (
        r"^Unable to create directory - (.*)",
        r"the folder \1 cannot be made: its parent is missing or closed",
    ),
    (
        r"^Unknown entry in dictionary: '<unk>'",
        "it was given no --lexicon, or one that cannot be read",
    ),
    (
        r"^Unknown entry in dictionary: (.*)",
        r"\1 is not in the tokens file (a token of lexicon, --wordseparator or --surround), or it "
        r"is a word and there is no --lexicon",
    ),
    (
        r"^Duplicate entry (?:name )?in dictionary (.*)",
        r"the token \1 stands twice in the tokens file, or is one that the program adds by itself",
    ),
    (r"^\[loadWords\] Invalid line: *$", "the lexicon has an empty line"),
    (r"^\[loadWords\] Invalid line: (.*)", r"the lexicon has a line without a spelling: '\1'"),
    (r"^unimplemented criterion", "the program knows no --criterion of that name"),
    (r"^Failed to open file for reading: (.*)", r"the file \1 is missing, or may not be read"),
    (r"^Failed parsing - (.*)", r"the architecture file has a line that is not known: '\1'"),
    (r"^(.*): No such file or directory$", r"the file \1 is missing"),
    (r"while opening (.*)$", r"the file \1 is missing, or may not be read"),
    (r"threw FormatLoadException .*?'\. *(.*)", r"the language model cannot be read: \1"),
    (
        r"^Loss has NaN values\. Samples - (.*)",
        r"the loss is not a number; take a smaller --lr or --maxgradnorm (utterances: \1)",
    ),
    (r"^Usage: ", "its arguments are wrong: it printed its usage"),
    (r"^(?:std::bad_alloc|MemoryError.*)", "out of memory"),
)

_SIGNALS = {
    signal.SIGKILL: "killed (SIGKILL), most likely for want of memory",
    signal.SIGTERM: "ended by SIGTERM, which a scheduler or a person sent",
    signal.SIGSEGV: "crashed (SIGSEGV)",
    signal.SIGILL: "crashed (SIGILL): it was built for another kind of processor",
    signal.SIGBUS: "crashed (SIGBUS), as when the disk is full or a file that it uses is cut",
    signal.SIGABRT: "aborted (SIGABRT)",
}
_CRASHES = {signal.SIGSEGV, signal.SIGILL, signal.SIGBUS, signal.SIGFPE, signal.SIGABRT}

_FROM_OUTSIDE = (signal.SIGKILL, signal.SIGTERM, signal.SIGHUP)
"""A person, a scheduler, the kernel for want of memory, or a node that is taken away."""

_STORAGE = re.compile("|".join(["disk full", *map(os.strerror, errors.STORAGE_FAULTS)]))
_COLOUR = re.compile(r"\x1b\[[\d;]*m")
_FATAL = re.compile(r"F(?:\d{8}|\d{4}) \d\d:\d\d:")
_INFO = re.compile(r"[IW](?:\d{8}|\d{4}) \d\d:\d\d:")
_NOISE = re.compile(
    r"\s*$| +@ +\(?0x|PC: @|\*\*\* (?:Aborted|SIG|Check)|--+$|w2ltune: |--\w+=.*; --"
)
_NO_LOAD = re.compile(r"Error while loading \"(.+?)\": (.*)")
_NO_SAVE = re.compile(r"Error while saving \"(.+?)\": (.*)")
_NO_FILE = re.compile(r".*: No such file or directory$")
_PYTHON_ERROR = re.compile(r"[A-Za-z_][\w.]*(?:Error|Exception|Interrupt|Exit)(?::.*)?$")
_OF_A_PEER = re.compile(r"(?:reset|closed) by peer|Broken pipe")


def explain_exit(
    code: int, log: Path | str, *, lists: Iterable[Path] = (), folder: Path = Path()
) -> str:
    """Return one line of at most 300 characters that says why a program ended.

    Args:
        code: Its return code: negative for a signal, as ``subprocess`` gives it; above 128, as
            shells and mpirun give it, it is taken for a signal too.
        log: Its log, of which the end since its last start is read; or such text itself.
        lists: The data lists that it read, to look for audio that it cannot have read.
        folder: Where it ran.
    """
    if code == 0:
        return "it ended well"
    lines = _lines(log)
    text = "\n".join(lines)
    number = -code if code < 0 else code - 128 if 128 < code <= 128 + signal.SIGRTMAX else 0
    reason = _apply(_WHATEVER_THE_CODE, text)
    if not reason and (not number or number in _CRASHES):
        reason = _loading(lines) or _apply(_ANYWHERE, text)
        cause = _cause(lines)
        reason = reason or _apply(_CAUSES, cause) or cause
        if re.match(_NO_SOUND, cause) and (sound := first_unreadable(lists, folder)):
            reason = f"{sound} ({cause})"
    reason = reason or _ending(code, number, lines)
    reason = re.sub(r"[\s\x00-\x1f]+", " ", reason).strip()
    return reason if len(reason) <= LONGEST else reason[: LONGEST - 1] + "…"


def failure(
    code: int,
    log: Path,
    *,
    name: str = "",
    lists: Iterable[Path] = (),
    folder: Path = Path(),
    kept: Path | None = None,
) -> W2LTuneError:
    """Return a program's failure: its own, a `KilledError`, or a `StorageError`.

    Args:
        code: As for :func:`explain_exit`; so are log, lists and folder.
        log: Of the program.
        name: What to call it.
        lists: The data lists that it read.
        folder: Where it ran.
        kept: The log, where the message is to name it.
    """
    why = explain_exit(code, log, lists=lists, folder=folder)
    said, end = f"{name}: " if name else "", f" (log: {kept})" if kept else ""
    if (code - 128 if code > 128 else -code) in _FROM_OUTSIDE:
        return KilledError(f"{said}{why}{end}")
    if _STORAGE.search(why):
        return errors.storage_error(f"{said}{why.partition('; ')[0]}{end}")
    return TrialFailedError(f"{said}{why}{end}")


def killed_again(why: object, *, times: int = TRIES) -> KilledError:
    """Return the failure of what was begun so often and killed each time."""
    return KilledError(f"{why}: {times} times; the same command tries it again")


def load_failure(log: Path | str) -> Path | None:
    """Return the file, as a checkpoint, that a program could not load and ended of.

    Loads are tried 6 times in 31 s; one that went well in the end is no failure.

    Args:
        log: As for :func:`explain_exit`.
    """
    failure = _failed_load(_lines(log))
    return Path(failure[0]) if failure else None


def _lines(log: Path | str) -> list[str]:
    """Return the lines of the last start of a program, at most the last 64 KiB, uncoloured."""
    if isinstance(log, str):
        text = log[-TAIL_BYTES:]
    else:
        try:
            with log.open("rb") as file:
                file.seek(max(0, file.seek(0, 2) - TAIL_BYTES))
                text = file.read().decode("utf-8", errors="replace")
        except OSError:
            return []
    lines = _COLOUR.sub("", text).split("\n")
    starts = [number for number, line in enumerate(lines) if line.startswith(STARTED)]
    return lines[starts[-1] + 1 :] if starts else lines


def _apply(rules: _Rules, text: str) -> str:
    """Return the words of the first rule that fits, or ""."""
    for pattern, words in rules:
        if match := re.search(pattern, text, re.MULTILINE):
            return match.expand(words).replace("  ", " ").replace(" ;", ";")
    return ""


def _cause(lines: list[str]) -> str:
    """Return the fatal error that came first and not from another process's death, or ""."""
    causes = []
    for number, line in enumerate(lines):
        if _FATAL.match(line):
            causes.append(without_prefix(line))
        elif line.startswith("  what():"):
            # KenLM's messages begin with a place in its source and go on in a second line.
            more = lines[number + 1] if "threw" in line and number + 1 < len(lines) else ""
            causes.append(f"{line.removeprefix('  what():').strip()} {more}".strip())
        elif line.startswith("ERROR: "):
            causes.append(line.removeprefix("ERROR: "))
    if not causes:
        said = ("Traceback (most recent call last):" in lines and _PYTHON_ERROR) or _NO_FILE
        causes = [line for line in lines if said.match(line)][-1:]
    cause = next((cause for cause in causes if not _OF_A_PEER.search(cause)), "".join(causes[:1]))
    # A checkpoint that could not be written is named in a line before.
    saves = [match[0] for line in lines if (match := _NO_SAVE.search(line))]
    return saves[-1] if saves and "Failed to write" in cause else cause


def _failed_load(lines: list[str]) -> tuple[str, str] | None:
    """Return the file of the last load and why it failed, unless the program went on after it."""
    found = [
        (number, match) for number, line in enumerate(lines) if (match := _NO_LOAD.search(line))
    ]
    if not found:
        return None
    number, match = found[-1]
    path, reason = match.groups()
    rest = lines[number + 1 :]
    died_of_it = any(line.strip() == f"what():  {reason}" for line in rest)
    went_on = any(_INFO.match(line) for line in rest)
    return (path, reason) if died_of_it or not went_on else None


def _loading(lines: list[str]) -> str:
    failure = _failed_load(lines)
    if failure is None:
        return ""
    path, reason = failure
    words = _apply(_LOADING, reason)
    more = f" ({reason})" if words and path not in reason else ""
    return f"could not load {path}: {words or reason}{more}"


def _ending(code: int, number: int, lines: list[str]) -> str:
    """Return what the return code alone says, with the last line of the log where it helps."""
    if number == signal.SIGSEGV and _in_first_report(lines):
        return (
            "crashed (SIGSEGV) after its first epoch, as it does without a validation list; "
            "give --valid"
        )
    if number in _SIGNALS:
        ending = _SIGNALS[signal.Signals(number)]
    elif number:
        names = {member.value: member.name for member in signal.Signals}
        ending = f"ended by the signal {names.get(number, number)}"
    else:
        ending = f"exit code {code}"
    if number and number not in _CRASHES:
        return ending
    last = next((line for line in reversed(lines) if not _NOISE.match(line)), "")
    return (
        f"{ending}; its last line: {without_prefix(last)}"
        if last
        else f"{ending}, and it said nothing"
    )


def _in_first_report(lines: list[str]) -> bool:
    """Whether the first epoch was begun, and none reported."""
    started = any(without_prefix(line) == "Epoch 1 started!" for line in lines)
    return started and not any(parse_train_line(line) for line in lines)
