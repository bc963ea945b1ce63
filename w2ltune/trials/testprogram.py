"""The Test program of either generation: where it is, and how it is called."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path

from w2ltune.errors import UsageError
from w2ltune.formats.known_flags import Generation

_SET_BACK = {"maxload": "-1", "show": "false", "enable_distributed": "false", "logtostderr": "true"}
"""What a training may have stored in its model, and would act here."""


def find_test_program(
    given: Path | None, *, decoder: Path, generation: Generation, needed_for: str
) -> str:
    """Return the path of the Test program.

    Args:
        given: ``--test_binary``; None for the program beside the other one.
        decoder: That other program, a decoder or a trainer.
        generation: Of it.
        needed_for: The option that needs it, for the message.

    Raises:
        UsageError: There is none, or it may not be executed.
    """
    path = given or decoder.with_name("Test" if generation == "wav2letter" else "fl_asr_test")
    found = shutil.which(str(Path.cwd() / path)) or shutil.which(str(path))
    if found is not None:
        return found
    problem = "may not be executed" if path.is_file() else "no such program"
    if given is not None:
        raise UsageError(f"--test_binary={given}: {problem}")
    raise UsageError(f"{needed_for} needs {path}: {problem}; name another by --test_binary=PATH")


def program_arguments(program: tuple[str, ...], flags: Mapping[str, str]) -> tuple[str, ...]:
    """Return a command line of the Test program."""
    texts = [f"--{name}={value}" for name, value in {**flags, **_SET_BACK}.items()]
    return (*program, "--flagsfile=", *texts)
