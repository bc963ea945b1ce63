"""Read and write acoustic models as ``.npz`` files."""

from __future__ import annotations

import json
import os
import zipfile
import zlib
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from w2ltune.embedded.acoustic import AcousticModel, Architecture, initial_parameters
from w2ltune.errors import InputError, existing_file
from w2ltune.files import replacing


def save_model(path: Path, model: AcousticModel, **beside: Any) -> None:
    """Write a model as ``.npz``, in one step, with other arrays beside it."""
    scale = {"mean": model.feature_mean, "deviation": model.feature_deviation}
    header = json.dumps({"architecture": asdict(model.architecture), "features": scale})
    arrays: dict[str, Any] = {"header": np.array(header), **model.parameters, **beside}
    with replacing(path, binary=True) as file:
        np.savez(file, **arrays)


def load_model(path: str | os.PathLike[str]) -> tuple[AcousticModel, dict[str, Any]]:
    """Read what :func:`save_model` wrote.

    Returns:
        The model, and the arrays beside it.

    Raises:
        InputError: The file is missing or is no such model.
    """
    found = existing_file(path, "acoustic model")
    arrays = read_npz(found, "acoustic model of w2ltune")
    try:
        header = json.loads(str(arrays.pop("header")))
        sizes = header["architecture"]
        sizes["kernels"] = tuple(sizes["kernels"])
        architecture = Architecture(**sizes)
        names = initial_parameters(architecture, seed=0)
        model = AcousticModel(
            architecture=architecture,
            parameters={name: arrays.pop(name) for name in names},
            feature_mean=header["features"]["mean"],
            feature_deviation=header["features"]["deviation"],
        )
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(f"is no acoustic model of w2ltune ({error})", path=found) from None
    return model, arrays


def read_npz(path: Path, what: str) -> dict[str, Any]:
    """Return the arrays of an ``.npz``.

    Args:
        path: The file.
        what: What it should be, as in ``"acoustic model"``.

    Raises:
        InputError: It is damaged or something else.
    """
    try:
        if not zipfile.is_zipfile(path):
            raise ValueError("no zip archive, or one cut short")
        with path.open("rb") as file, np.load(file) as archive:
            return {name: archive[name] for name in archive.files}
    except (ValueError, KeyError, EOFError, OSError, zipfile.BadZipFile, zlib.error) as error:
        raise InputError(f"is no {what} ({error})", path=path) from None
