"""Emissions: the acoustic model's scores for each frame and token, kept on disk.

They come in two forms: one ``.npz`` with a whole list (:mod:`w2ltune.formats.emissionnpz`), or a
folder with one ``.bin`` for each utterance (:mod:`w2ltune.formats.emissionbin`). The values are
raw network outputs; the blank of CTC is the last column.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from w2ltune.errors import InputError, existing_file
from w2ltune.formats.emissionbin import (
    read_emission_bin,
    read_emission_shape,
    write_emission_bin,
)
from w2ltune.formats.emissionnpz import map_npz, write_emissions
from w2ltune.formats.listfile import list_stem
from w2ltune.formats.padding import without_padding

__all__ = [
    "Emission",
    "EmissionSet",
    "check_emissions",
    "locate_emissions",
    "open_emissions",
    "refuse_padding",
    "write_emission_bin",
    "write_emissions",
]

Emission: TypeAlias = NDArray[np.float32]


@dataclass(frozen=True, kw_only=True)
class EmissionSet:
    """The emissions of a list, read when asked for.

    Args:
        path: The ``.npz`` or the folder.
        token_count: Columns of each emission, the blank included.
        frame_counts: Number of frames by utterance id.
        load: Returns the emission of an utterance.
    """

    path: Path
    token_count: int
    frame_counts: dict[str, int] = field(repr=False)
    load: Callable[[str], Emission] = field(repr=False)

    @cached_property
    def ids(self) -> tuple[str, ...]:
        """The utterances, in the order of the file or of the files' names."""
        return tuple(self.frame_counts)

    def frames(self, name: str) -> int:
        """Return the number of frames of the utterance ``name``."""
        return self.frame_counts[name]

    def emission(self, name: str) -> Emission:
        """Return the raw scores of an utterance: float32, C order, [frames, token_count].

        The array may be a read-only view of the file.

        Raises:
            KeyError: There is no such utterance.
            InputError: The file changed since it was opened.
        """
        return self.load(name)

    def __contains__(self, name: object) -> bool:
        return name in self.frame_counts

    def __len__(self) -> int:
        return len(self.frame_counts)


def open_emissions(path: Path, *, scratch: Path | None = None) -> EmissionSet:
    """Open a ``.npz`` or a folder of ``.bin`` files and check that it is whole.

    The values of an ``.npz`` are mapped where possible, so that the processes of a node share one
    copy in memory; those of a ``.bin`` are read each time.

    Args:
        path: The ``.npz`` or the folder.
        scratch: A folder on this node where a compressed ``.npz`` is unpacked once, for all
            processes to map. Without it each process holds the values in its own memory.

    Raises:
        InputError: Something about a file is wrong (it is named).
    """
    if path.is_dir():
        return _open_folder(path)
    return _open_npz(existing_file(path, "emissions"), scratch)


def _open_folder(folder: Path) -> EmissionSet:
    paths = _emission_bins(folder)
    if not paths:
        raise InputError("the folder holds no emission file (*.bin)", path=folder)
    shapes = {path.stem: read_emission_shape(path) for path in paths}
    token_count = shapes[paths[0].stem][1]
    for path in paths:
        if shapes[path.stem][1] != token_count:
            raise InputError(
                f"{shapes[path.stem][1]} tokens, but {paths[0].name} has {token_count}: "
                "the files come from different models",
                path=path,
            )

    def load(name: str) -> Emission:
        shape, path = shapes[name], folder / f"{name}.bin"
        emission = read_emission_bin(path)
        if emission.shape != shape:
            raise InputError("changed while it was in use", path=path)
        return emission

    return EmissionSet(
        path=folder,
        token_count=token_count,
        frame_counts={name: frames for name, (frames, _) in shapes.items()},
        load=load,
    )


def _emission_bins(folder: Path) -> list[Path]:
    return sorted(path for path in folder.glob("*.bin") if not path.name.startswith("."))


def _open_npz(path: Path, scratch: Path | None) -> EmissionSet:
    ids, frames, rows = map_npz(path, scratch)
    frame_counts = dict(zip(ids, frames, strict=True))
    starts = dict(zip(ids, itertools.accumulate(frames, initial=0), strict=False))

    def load(name: str) -> Emission:
        part = rows[starts[name] : starts[name] + frame_counts[name]]
        return np.require(part, np.float32, ["C", "A"])  # a member of a zip may begin anywhere

    return EmissionSet(path=path, token_count=rows.shape[1], frame_counts=frame_counts, load=load)


def locate_emissions(emission_dir: Path, test: str, *, datadir: str = "") -> Path:
    """Find the emissions of a list.

    Args:
        emission_dir: ``--emission_dir``: an ``.npz``; a folder with ``<list>.npz`` or with the
            folder that flashlight's programs make for the list; or such a folder of ``.bin``.
        test: ``--test``: the list, as given.
        datadir: ``--datadir``: the folder of the list.

    Returns:
        The ``.npz`` or the folder of ``.bin`` files.

    Raises:
        InputError: There is none (the message lists where it was looked for).
    """
    if emission_dir.is_file() and emission_dir.suffix == ".npz":
        return emission_dir
    if not emission_dir.is_dir():
        raise InputError(f"--emission_dir: no such folder or .npz file {str(emission_dir)!r}")
    folder = emission_dir / test.replace("/", "#")
    stem, called = Path(test).stem, list_stem(Path(datadir, test))
    names = [folder.name, Path(folder.name).stem, stem]
    if called != stem:  # by the name of its folder; what goes by its own may be another's
        names.insert(0, called)
    archives = [emission_dir / f"{name}.npz" for name in dict.fromkeys(names)]
    if folder.is_dir():
        return folder
    for archive in archives:
        if archive.is_file():
            return archive
    if _emission_bins(emission_dir):
        return emission_dir
    looked_for = ", ".join(path.name for path in (folder, *archives))
    raise InputError(
        f"--emission_dir has no emissions of --test={test}; looked for {looked_for} and *.bin",
        path=emission_dir,
    )


def check_emissions(
    emissions: EmissionSet, ids: Sequence[str], *, token_count: int | None, path: Path
) -> dict[str, int]:
    """Refuse emissions that do not fit a list or a tokens file, or hold no numbers.

    Every emission of the list is read, one at a time.

    Args:
        emissions: The emissions.
        ids: The utterances of the list.
        token_count: Number of tokens, the blank included; None when it is not known.
        path: What the emissions were read from, for messages.

    Returns:
        How many frames of an utterance are padding, where some are; for `refuse_padding`.

    Raises:
        InputError: An utterance has no emission, the number of tokens differs, or a value is nan
            or +inf (-inf is the logarithm of 0 and may be).
    """
    missing = [name for name in ids if name not in emissions]
    if missing:
        raise InputError(
            f"{len(missing)} of the list's {len(ids)} utterances have no emission: "
            f"{', '.join(missing[:3])}{', ...' if len(missing) > 3 else ''}",
            path=path,
        )
    if token_count is not None and token_count != emissions.token_count:
        raise InputError(
            f"emissions of {emissions.token_count} tokens, but the tokens file gives "
            f"{token_count}, the blank included; the blank is the last column, so the tokens file "
            "(--tokens) is not that of these emissions",
            path=path,
        )
    padded: dict[str, int] = {}
    for name in ids:
        emission = emissions.emission(name)
        if emission.max(initial=-np.inf) < np.inf:  # false for nan too
            own = without_padding(emission)
            if len(own) < len(emission):
                padded[name] = len(emission) - len(own)
            continue
        wrong = ~(emission < np.inf)
        frame, column = np.argwhere(wrong)[0].tolist()
        raise InputError(
            f"the emission of {name!r} has {emission[frame, column]} in frame {frame} (from 0); "
            "the acoustic model diverged or the file is damaged",
            path=path,
        )
    return padded


def refuse_padding(padded: Mapping[str, int], *, path: Path) -> None:
    """Refuse emissions with frames at an end that have one value for all tokens.

    Raises:
        InputError: There are such.
    """
    if padded:
        first = next(iter(padded))
        raise InputError(
            f"{len(padded)} utterances are padded, as {first!r} with {padded[first]} frames that "
            "have one value for all tokens, and decoders take them for speech: cut each emission "
            "to its own frames, as w2ltune emissions does",
            path=path,
        )
