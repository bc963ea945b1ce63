"""Models as bytes: the arrays of an ``.npz``, so that reading runs no code and notices damage."""

from __future__ import annotations

import io
import json
import os
from dataclasses import asdict
from typing import Any

import numpy as np

from w2ltune.embedded.acoustic import AcousticModel, Architecture, initial_parameters
from w2ltune.embedded.optimizer import Moments
from w2ltune.embedded.training import TrainingState
from w2ltune.errors import InputError
from w2ltune.formats.npz import parse_npz


def state_bytes(state: TrainingState) -> bytes:
    """Return a state, of a size that depends on the architecture alone."""
    model = state.model
    scale = np.array([model.feature_mean, model.feature_deviation], np.float64)
    arrays: dict[str, Any] = {
        "architecture": np.array(json.dumps(asdict(model.architecture))),
        "feature_scale": scale,
        "progress": np.array([state.epoch, state.updates], np.int64),
        **model.parameters,
        **{f"first_{name}": value for name, value in state.moments.first.items()},
        **{f"second_{name}": value for name, value in state.moments.second.items()},
    }
    file = io.BytesIO()
    np.savez(file, **arrays)
    return file.getvalue()


def parse_state(content: bytes, *, path: str | os.PathLike[str]) -> TrainingState:
    """Read what :func:`state_bytes` returned.

    Raises:
        InputError: It is cut, damaged, or something else.
    """
    arrays = parse_npz(content, path=path, what="training of w2ltune")
    try:
        sizes = json.loads(str(arrays["architecture"]))
        sizes["kernels"] = tuple(sizes["kernels"])
        architecture = Architecture(**sizes)
        names = initial_parameters(architecture, seed=0)
        mean, deviation = arrays["feature_scale"].tolist()
        epoch, updates = arrays["progress"].tolist()
        return TrainingState(
            model=AcousticModel(
                architecture=architecture,
                parameters={name: arrays[name] for name in names},
                feature_mean=mean,
                feature_deviation=deviation,
            ),
            moments=Moments(
                first={name: arrays[f"first_{name}"] for name in names},
                second={name: arrays[f"second_{name}"] for name in names},
            ),
            epoch=epoch,
            updates=updates,
        )
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(f"holds no training of w2ltune ({error})", path=path) from None
