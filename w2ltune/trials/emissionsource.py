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
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from w2ltune.errors import InputError
from w2ltune.formats.known_flags import Generation, flags_of
from w2ltune.formats.listfile import Utterance, is_column, read_list
from w2ltune.runs.provenance import Fingerprint, fingerprint
from w2ltune.trials.testprogram import program_arguments

EMISSIONS = "emissions"
NOTE = "made.json"

AUDIO_PARTS = 5
AUDIO_PART_BYTES = 4096


class NoAudioError(InputError):
    """An audio file cannot be read."""


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
        content: Of all that they come from.
        gpu: Whether the program takes a GPU.
    """

    program: str
    generation: Generation
    am: str
    path: Path
    folder: str
    flags: Mapping[str, str]
    cache: Path
    content: Fingerprint
    gpu: bool

    @property
    def home(self) -> Path:
        """The folder that there is when they are whole."""
        return self.cache / f"{self.path.name}-{self.content.sha256[:16]}"

    @property
    def role(self) -> str:
        """What they come from, as an input of a sweep."""
        return role_of(self.path)

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


def role_of(path: Path) -> str:
    """Return how what the emissions of a list come from is called, wherever it lies."""
    return f"what the emissions of {path.name} are made of"


def content_of(path: Path, files: Sequence[Path], folder: str) -> Fingerprint:
    """Return the fingerprint of what the emissions of a list come from.

    Of each audio file its size and parts of it go in: hours of audio take too long to be read, and
    its place and time change where it is copied to each node.

    Args:
        path: The list.
        files: The other files, by their content.
        folder: To which the audio files of the list are relative.

    Returns:
        The fingerprint; its size is that of the audio.

    Raises:
        NoAudioError: An audio file cannot be read.
        InputError: Another file cannot be read, or the list has rows that the program cannot take.
    """
    digest = hashlib.sha256()
    digest.update(json.dumps([fingerprint(file).sha256 for file in (path, *files)]).encode())
    bytes_of_all = 0
    for utterance in read_list(path):
        _refuse(utterance, path)
        try:
            with Path(folder, utterance.path).open("rb") as file:
                size = os.fstat(file.fileno()).st_size
                digest.update(f"{size}\0".encode())
                for part in range(AUDIO_PARTS):
                    file.seek(max(0, size - AUDIO_PART_BYTES) * part // (AUDIO_PARTS - 1))
                    digest.update(file.read(AUDIO_PART_BYTES))
        except (OSError, ValueError) as error:  # the latter for a path that there cannot be
            why = getattr(error, "strerror", None) or error
            raise NoAudioError(
                f"utterance {utterance.id!r}: cannot open its audio {utterance.path!r} ({why}), "
                "and its emission is to be made from it",
                path=path,
            ) from None
        bytes_of_all += size
    return Fingerprint(size=bytes_of_all, sha256=digest.hexdigest())


def _refuse(utterance: Utterance, path: Path) -> None:
    if "/" in utterance.id:
        raise InputError(
            f"the id {utterance.id!r} has a '/', and the program cannot write its emission; "
            "rename it",
            path=path,
        )
    if utterance.offset.strip("0."):
        raise InputError(
            f"utterance {utterance.id!r} begins {utterance.offset} s into its audio, and the "
            "program would read all of it; cut the audio",
            path=path,
        )
    if not is_column(utterance.path):
        raise InputError(
            f"utterance {utterance.id!r}: its emission is made from its audio, and the program "
            f"needs a path without blanks to it, not {utterance.path!r}",
            path=path,
        )
