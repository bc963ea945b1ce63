"""Which lists and emissions a decode works on, by the flags that name them."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path

from w2ltune.errors import UsageError, existing_file
from w2ltune.formats.emissions import locate_emissions
from w2ltune.formats.listfile import iterate_list, list_stem
from w2ltune.trials.dataset import DecodeProgram, DecodeTask, Metric


def find_task(
    flags: Mapping[str, str],
    *,
    metric: Metric,
    normalize: Path | None,
    ignore_case: bool,
    heldout: str = "",
    program: DecodeProgram | None = None,
    emissions: Sequence[Path] | None = None,
) -> DecodeTask:
    """Return the task that ``--test``, ``--datadir`` and ``--emission_dir`` describe.

    Args:
        flags: The decoder's flags.
        metric: What is counted.
        normalize: The normalisation file.
        ignore_case: Whether upper and lower case are the same.
        heldout: Lists that are decoded once at the end, as ``--test`` names them.
        program: The binary that decodes; None for the decoder in process.
        emissions: Those of each list, instead of ``--emission_dir``; none while they are not made
            yet.

    Raises:
        UsageError: One of the flags is missing, or two lists have the same name.
        InputError: There are no emissions for a list.
    """
    names, apart = (
        [name for name in text.split(",") if name] for text in (flags.get("test", ""), heldout)
    )
    if not names:
        raise UsageError("no --test: name the data list to tune on, as in --test=dev.lst")
    if emissions is None and not flags.get("emission_dir"):
        raise UsageError(
            "no --emission_dir: the embedded decoder needs the emissions of the list (a .npz file, "
            "or the folder that fl_asr_test --emission_dir wrote)"
        )
    folder = Path(flags.get("datadir", ""))
    places = [os.path.normpath(folder / name) for name in (*names, *apart)]
    for number, (name, place) in enumerate(zip([*names, *apart], places, strict=True)):
        if place in places[:number]:
            if number >= len(names) > places.index(place):
                raise UsageError(
                    f"--heldout={name} is in --test too: what is held out may not be tuned on"
                )
            raise UsageError(f"{name!r} stands twice in --test or --heldout; name it once")
    every = [*names, *apart]
    stems = [list_stem(folder / name) for name in every]
    for stem in stems:
        if stems.count(stem) > 1:
            raise UsageError(f"two lists are named {stem!r}: rename one, results go by these names")
    if emissions is None:
        for flag, own in (("test", names), ("heldout", apart)):
            for name in own:
                _require_list(folder / name, flag)
        emissions = [
            locate_emissions(Path(flags["emission_dir"]), name, datadir=flags.get("datadir", ""))
            for name in every
        ]
    return DecodeTask(
        lists=tuple(folder / name for name in names),
        heldout=tuple(folder / name for name in apart),
        emissions=tuple(emissions),
        metric=metric,
        normalize=normalize,
        ignore_case=ignore_case,
        program=program,
    )


def _require_list(path: Path, flag: str) -> None:
    existing_file(path, f"list (--{flag})")
    next(iterate_list(path))  # an empty one has no emissions, which is not what is wrong with it
