"""Emissions that the Test program writes once for all decodes, kept by what they come from.

::

    emissions/dev.lst-3f2a…/     by model, program, list and audio
      dev.lst                    the list as the program had it
      emissions/dev.lst/         what the program wrote, one .bin for each utterance
      made.json                  what they were made from
      log                        what the program printed

The folder takes its name when it is whole; it is not made again, by whichever sweep.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from w2ltune.errors import InputError
from w2ltune.formats.known_flags import Generation, flags_of
from w2ltune.formats.listfile import Utterance, is_column, read_list
from w2ltune.runs.provenance import fingerprint
from w2ltune.trials.testprogram import program_arguments

EMISSIONS = "emissions"
NOTE = "made.json"


@dataclass(frozen=True, kw_only=True)
class EmissionSource:
    """How the emissions of a list are made.

    Attributes:
        program: The Test program.
        generation: Of it.
        am: The acoustic model.
        path: The list.
        folder: Where the program runs; paths in the list are relative to it.
        flags: Flags that the user gave, over those of the model.
        cache: The folder in which emissions are kept.
        content: A hash of all that they come from.
        gpu: Whether the program takes a GPU.
    """

    program: str
    generation: Generation
    am: str
    path: Path
    folder: str
    flags: Mapping[str, str]
    cache: Path
    content: str
    gpu: bool

    @property
    def home(self) -> Path:
        """The folder that there is when they are whole."""
        return self.cache / f"{self.path.name}-{self.content[:16]}"

    @property
    def emissions(self) -> Path:
        """The folder of the ``.bin`` files."""
        return self.home / EMISSIONS / self.path.name

    def whole(self) -> bool:
        """Whether they are made."""
        return self.home.exists()

    def arguments(self, folder: Path) -> tuple[str, ...]:
        """Return the command line that writes them below a folder, where the list lies."""
        given = {
            "am": self.am,
            "datadir": str(folder),
            "test": self.path.name,
            **flags_of(self.generation, self.flags),
            "emission_dir": str(folder / EMISSIONS),
            "sclite": "",
            "log_dir": str(folder / "glog"),
        }
        return program_arguments((self.program,), given)


def content_of(path: Path, files: list[Path], folder: str) -> str:
    """Return a hash of what emissions come from.

    Audio files go in by their places, sizes and times: reading hours of audio takes too long.

    Args:
        path: The list.
        files: The other files, by their content.
        folder: To which the audio files of the list are relative.

    Raises:
        InputError: A file cannot be read, or the list names no audio that the program could open.
    """
    digest = hashlib.sha256()
    digest.update(json.dumps([fingerprint(file).sha256 for file in (path, *files)]).encode())
    places: dict[str, str] = {}
    for utterance in read_list(path):
        _refuse(utterance, path)
        audio = os.path.join(folder, utterance.path)  # noqa: PTH118 (hundreds of thousands)
        above, name = os.path.split(audio)
        if above not in places:  # a link to a corpus may be turned to another one
            places[above] = os.path.realpath(above)
        try:
            stat = os.stat(audio)  # noqa: PTH116
        except OSError as error:
            raise InputError(
                f"utterance {utterance.id!r}: cannot open its audio {utterance.path!r} "
                f"({error.strerror}), and its emission is to be made from it",
                path=path,
            ) from None
        digest.update(f"{places[above]}/{name}\0{stat.st_size}\0{stat.st_mtime_ns}\0".encode(
            errors="surrogateescape"))  # fmt: skip
    return digest.hexdigest()


def _refuse(utterance: Utterance, path: Path) -> None:
    if "/" in utterance.id:
        raise InputError(
            f"the id {utterance.id!r} has a '/', and the program cannot write its emission; "
            "rename it",
            path=path,
        )
    if not is_column(utterance.path):
        raise InputError(
            f"utterance {utterance.id!r}: its emission is made from its audio, and the program "
            f"needs a path without blanks to it, not {utterance.path!r}",
            path=path,
        )
