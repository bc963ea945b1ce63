"""A small convolutional CTC acoustic model in numpy: forward and backward.

Layers of one-dimensional convolution over time with ReLU, then a linear layer per frame. The
first layer's stride makes the emission's frames longer than the features'.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from w2ltune.embedded.ctc import Floats, Integers, log_softmax

Parameters = dict[str, Floats]


@dataclass(frozen=True, kw_only=True)
class Architecture:
    """Sizes of the model.

    Attributes:
        bands: Features per frame.
        outputs: Tokens and, last, the blank.
        hidden: Channels of each convolution.
        kernels: Width of each convolution in its own input's frames; odd.
        stride: Feature frames per emission frame.
    """

    bands: int
    outputs: int
    hidden: int = 192
    kernels: tuple[int, ...] = (9, 7, 7)
    stride: int = 2


@dataclass(frozen=True, kw_only=True)
class AcousticModel:
    """An architecture with its parameters and the scale of its features.

    Attributes:
        architecture: The sizes.
        parameters: ``weight0``, ``bias0``, ...: weights [kernel * channels in, channels out];
            the last pair is the linear layer.
        feature_mean: Subtracted from every feature.
        feature_deviation: Divides the result.
    """

    architecture: Architecture
    parameters: Parameters
    feature_mean: float = 0.0
    feature_deviation: float = 1.0


def initial_parameters(architecture: Architecture, *, seed: int) -> Parameters:
    """Draw float32 parameters: normal with variance 2 / inputs (He et al., 2015), biases 0."""
    random = np.random.default_rng(seed)
    parameters: Parameters = {}
    channels = architecture.bands
    shapes = [(kernel, architecture.hidden) for kernel in architecture.kernels]
    for layer, (kernel, outputs) in enumerate([*shapes, (1, architecture.outputs)]):
        inputs = kernel * channels
        weight = random.standard_normal((inputs, outputs)) * np.sqrt(2 / inputs)
        parameters[f"weight{layer}"] = weight.astype(np.float32)
        parameters[f"bias{layer}"] = np.zeros(outputs, np.float32)
        channels = outputs
    return parameters


def emission_frames(architecture: Architecture, frames: Integers) -> Integers:
    """Return the emission's frames for utterances of so many feature frames."""
    return -(-frames // architecture.stride)


def pad_batch(
    model: AcousticModel, features: Sequence[np.ndarray[Any, Any]]
) -> tuple[Floats, Integers]:
    """Return scaled features [utterances, longest, bands], zero in padding, and frames of each."""
    frames = np.array([len(matrix) for matrix in features])
    kind = model.parameters["bias0"].dtype
    batch = np.zeros((len(features), frames.max(), model.architecture.bands), kind)
    for row, matrix in zip(batch, features, strict=True):
        row[: len(matrix)] = (matrix - model.feature_mean) / model.feature_deviation
    return batch, frames


def forward(
    model: AcousticModel,
    features: Floats,
    frames: Integers,
    *,
    dropout: float = 0.0,
    random: np.random.Generator | None = None,
) -> tuple[Floats, list[Any]]:
    """Run the model on a batch of scaled features [utterances, frames, bands], zero in padding.

    In training a share of the convolutions' outputs, ``dropout``, is set to 0, and the others grow.

    Returns:
        logits: [utterances, emission frames, outputs].
        cache: What :func:`backward` needs.
    """
    architecture = model.architecture
    real = _inside(emission_frames(architecture, frames), features.shape[1], architecture.stride)
    channels, cache = features, []
    for layer, kernel in enumerate(architecture.kernels):
        stride = architecture.stride if layer == 0 else 1
        windows = _windows(channels, kernel, stride)
        linear = windows @ model.parameters[f"weight{layer}"] + model.parameters[f"bias{layer}"]
        # Padding stays zero, so that an utterance's emission does not depend on its batch.
        active = ((linear > 0) & real).astype(linear.dtype)
        if random and dropout:
            kept = random.random(active.shape, np.float32) >= dropout
            active *= kept / active.dtype.type(1 - dropout)
        cache.append((windows, active, channels.shape, stride))
        channels = linear * active
    last = len(architecture.kernels)
    logits: Floats = channels @ model.parameters[f"weight{last}"] + model.parameters[f"bias{last}"]
    return logits, [*cache, channels]


def backward(model: AcousticModel, cache: list[Any], gradient: Floats) -> Parameters:
    """Return the parameters' gradients, from that of the logits, which is zero in padding."""
    last = len(model.architecture.kernels)
    gradients = _linear_gradients(last, cache[last], gradient)
    gradient = gradient @ model.parameters[f"weight{last}"].T
    for layer in range(last - 1, -1, -1):
        windows, active, shape, stride = cache[layer]
        gradient = gradient * active
        gradients.update(_linear_gradients(layer, windows, gradient))
        if layer:
            spread = gradient @ model.parameters[f"weight{layer}"].T
            gradient = _windows_gradient(spread, shape, stride)
    return gradients


def emission(model: AcousticModel, features: np.ndarray[Any, Any]) -> Floats:
    """Return one utterance's log-softmax outputs, [emission frames, outputs], blank last."""
    logits, _ = forward(model, *pad_batch(model, [features]))
    return log_softmax(logits[0])


def _inside(frames: Integers, feature_frames: int, stride: int) -> np.ndarray[Any, np.dtype[Any]]:
    """Return which emission frames are real, [utterances, emission frames, 1]."""
    inside: np.ndarray[Any, Any] = np.arange(-(-feature_frames // stride)) < frames[:, None]
    return inside[:, :, None]


def _windows(channels: Floats, kernel: int, stride: int) -> Floats:
    """Return the frames around every ``stride``-th one, [utterances, frames, kernel * channels]."""
    utterances, frames, width = channels.shape
    count = -(-frames // stride)
    padded = np.pad(channels, ((0, 0), (kernel // 2, kernel // 2 + stride - 1), (0, 0)))
    windows = np.empty((utterances, count, kernel, width), channels.dtype)
    for offset in range(kernel):
        windows[:, :, offset] = padded[:, offset : offset + count * stride : stride]
    return windows.reshape(utterances, count, kernel * width)


def _windows_gradient(spread: Floats, shape: tuple[int, int, int], stride: int) -> Floats:
    """Add up what the windows of :func:`_windows` say about each of their frames."""
    utterances, frames, width = shape
    count, kernel = spread.shape[1], spread.shape[2] // width
    windows = spread.reshape(utterances, count, kernel, width)
    padded = np.zeros((utterances, frames + kernel + stride - 2, width), spread.dtype)
    for offset in range(kernel):
        padded[:, offset : offset + count * stride : stride] += windows[:, :, offset]
    return padded[:, kernel // 2 : kernel // 2 + frames]


def _linear_gradients(layer: int, inputs: Floats, gradient: Floats) -> Parameters:
    """Return the gradients of one layer's weight and bias."""
    flat = gradient.reshape(-1, gradient.shape[-1])
    weight = inputs.reshape(-1, inputs.shape[-1]).T @ flat
    return {f"weight{layer}": weight, f"bias{layer}": flat.sum(0)}
