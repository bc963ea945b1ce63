"""Emissions that the Test program writes once for all decodes, kept by what they come from.

::

    emissions/3f2a…/             by model, program and lists
      dev.lst/                   what the program wrote, one .bin for each utterance
      dev.lst.json               written last: this list is whole
      dev.lst.log                what the program printed

A list that is whole is not made again, by whichever sweep.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from w2ltune.trials.testprogram import program_arguments


@dataclass(frozen=True, kw_only=True)
class EmissionSource:
    """How emissions are made.

    Attributes:
        program: The Test program.
        am: The acoustic model.
        lists: As ``--test`` names them.
        datadir: The folder that the program puts before them; "" for none.
        folder: Where it runs.
        flags: Flags that the user gave, over those of the model.
        cache: The folder in which emissions are kept.
        content: Hashes of what they come from.
        gpu: Whether the program takes a GPU.
    """

    program: str
    am: str
    lists: tuple[str, ...]
    datadir: str
    folder: str
    flags: Mapping[str, str]
    cache: Path
    content: tuple[str, ...]
    gpu: bool

    @cached_property
    def emission_dir(self) -> Path:
        """Where they are, as ``--emission_dir``."""
        content = json.dumps([self.content, self.lists, dict(self.flags)])
        return self.cache / hashlib.sha256(content.encode()).hexdigest()[:16]

    def missing(self) -> list[str]:
        """Return the lists that are not made yet."""
        return [name for name in self.lists if not self.mark(name).exists()]

    def mark(self, name: str) -> Path:
        """Return the file that says that a list is whole."""
        return self.emission_dir / f"{plain_list(name)}.json"

    def arguments(self, name: str, folder: Path) -> tuple[str, ...]:
        """Return the command line that writes a list's emissions to a folder.

        Args:
            name: The list.
            folder: Where they are written.
        """
        given = {
            "am": self.am,
            "datadir": self.datadir,
            "test": name,
            **self.flags,
            "emission_dir": str(folder),
            "sclite": "",
            "log_dir": str(folder / "glog"),
        }
        return program_arguments((self.program,), given)


def plain_list(name: str) -> str:
    """Return a list's name as the name of a folder, as the program makes it."""
    return name.replace("/", "#")
