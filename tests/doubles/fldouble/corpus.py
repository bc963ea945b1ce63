"""What a training reads: lists, tokens, lexicon, architecture; and what is wrong with them."""

from __future__ import annotations

import os
import zlib
from pathlib import Path
from typing import NamedTuple

from fldouble.flags import Flags
from fldouble.log import CppError

LAYERS = (
    " A AC AP BN C C1 C2 CFR D DIL DO E ELU GLU GRU HT L LG LN LSM LSTM M MP P PADB PD PR R R6 RES"
    " RNN RO SAUG SKIP SKIPL SM T TDS TR V VD WN POSEMB SH SWISH HSWISH "
)


class Sample(NamedTuple):
    """One row of a list."""

    id: str
    audio: str
    milliseconds: float
    words: tuple[str, ...]

    @property
    def letters(self) -> str:
        """The target: letters, with the word separator between words."""
        return "|".join(self.words)


def read_lists(datadir: str, lists: str) -> list[Sample]:
    """Return the samples of comma-separated list files, each below ``datadir``.

    Raises:
        CppError: A file is missing or a row has fewer than 3 columns.
    """
    paths = [join(datadir, name) for name in lists.split(",") if name]
    return [sample for path in paths for sample in _read_list(path)]


def _read_list(path: str) -> list[Sample]:
    try:
        lines = Path(path).read_text(encoding="utf-8").split("\n")
    except OSError:
        raise CppError("std::invalid_argument", f"Unable to open file -{path}") from None
    samples = []
    for line in filter(None, lines):
        columns = line.split()
        if len(columns) < 3:
            reason = "has invalid columns in line (expected 3 columns at least)"
            raise CppError("std::runtime_error", f"File {path} {reason}: {line}")
        try:
            milliseconds = float(columns[2])
        except ValueError:
            raise CppError("std::invalid_argument", "stod") from None
        samples.append(Sample(columns[0], columns[1], milliseconds, tuple(columns[3:])))
    return samples


def shuffled(samples: list[Sample], seed: int, epoch: int) -> list[Sample]:
    """Return the samples in the order of that epoch."""
    return sorted(samples, key=lambda sample: zlib.crc32(f"{seed} {epoch} {sample.id}".encode()))


def open_audio(samples: list[Sample]) -> None:
    """Touch the audio files of a batch.

    Raises:
        CppError: One is missing, or is a web page.
    """
    for sample in samples:
        if not os.access(sample.audio, os.R_OK):
            raise CppError("std::runtime_error", f"could not open file for read {sample.audio}")
        with Path(sample.audio).open("rb") as file:
            if file.read(1) == b"<":  # a web page; other content is good enough for a test
                why = "loadSoundInfo: unknown format or could not open stream"
                raise CppError("std::runtime_error", why)


def read_tokens(flags: Flags) -> list[str]:
    """Return the tokens, the blank last where the criterion has one.

    Raises:
        CppError: There is no tokens file.
    """
    path = join(_folder(flags, "tokensdir"), flags["tokens"])
    try:
        tokens = Path(path).read_text(encoding="utf-8").split()
    except OSError:
        text = f'Invalid dictionary filepath specified with  --tokens: "{path}"'
        raise CppError("std::runtime_error", text) from None
    tokens += [f"<{count}>" for count in range(1, flags["replabel"] + 1)]
    return tokens + ["#"] * (flags["criterion"] == "ctc")


def count_words(path: str) -> int:
    """Return the size of the dictionary of a lexicon file, ``<unk>`` included.

    Raises:
        CppError: There is no such file.
    """
    return len({line.split()[0] for line in _lines(path) if line.strip()}) + 1


def read_architecture(flags: Flags) -> list[str]:
    """Return the layers of the architecture file, one text each.

    Raises:
        CppError: There is no such file, or a line names no layer.
    """
    layers = [line.strip() for line in _lines(architecture_path(flags))]
    layers = [line for line in layers if line and not line.startswith("#")]
    for line in layers:
        if f" {line.split()[0]} " not in LAYERS:
            raise CppError("std::invalid_argument", f"Failed parsing - {line}")
    return layers


def architecture_path(flags: Flags) -> str:
    """Return the path of the architecture file."""
    return join(_folder(flags, "archdir"), flags["arch"])


def join(folder: str, name: str) -> str:
    """Put a path together; an absolute ``name`` is put below ``folder`` as well."""
    return f"{folder.rstrip('/')}/{name}" if folder and name else folder + name


def _folder(flags: Flags, name: str) -> str:
    """The value of a folder flag that only wav2letter v0.2 has."""
    return str(flags[name]) if name in flags.values else ""


def _lines(path: str) -> list[str]:
    try:
        return Path(path).read_text(encoding="utf-8").splitlines()
    except OSError:
        text = f"Failed to open file for reading: {path}"
        raise CppError("std::runtime_error", text) from None
