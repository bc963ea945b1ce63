"""Train a small CTC acoustic model in numpy, epoch by epoch.

All that changes is in a :class:`TrainingState` that each epoch replaces, and what is random in an
epoch comes from the seed and its number. So a run that was stopped and goes on from a saved state
ends with the same parameters as one that was not.
"""

from __future__ import annotations

import math
import os
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from w2ltune.embedded.acoustic import (
    AcousticModel,
    Architecture,
    backward,
    forward,
    initial_parameters,
    pad_batch,
)
from w2ltune.embedded.corpus import Corpus
from w2ltune.embedded.ctc import Floats, Integers
from w2ltune.embedded.evaluation import Evaluation, pool, score_batch
from w2ltune.embedded.modelfile import load_model, save_model
from w2ltune.embedded.optimizer import OPTIMIZERS, Moments, clip, optimize
from w2ltune.errors import InputError, TrialFailedError, UsageError, did_you_mean


@dataclass(frozen=True, kw_only=True)
class TrainingOptions:
    """How to train.

    Attributes:
        optimizer: ``adam`` or ``sgd`` (with momentum).
        learning_rate: Its peak, after the warm-up.
        momentum: Of ``sgd``.
        maximum_gradient_norm: Longer gradients are shortened to it; 0 leaves them.
        batch_utterances: Utterances per update.
        epochs: Passes over the list; the learning rate falls to 0 at their end, as a cosine.
        warmup_updates: Updates in which the learning rate rises from 0.
        mask_bands: Most neighbouring bands hidden in an utterance (SpecAugment).
        mask_frames: Most neighbouring frames hidden, twice in an utterance.
        dropout: Share of each convolution's outputs set to 0 at random.
        seed: Of all that is random but the first parameters.
    """

    optimizer: str = "adam"
    learning_rate: float = 0.003
    momentum: float = 0.9
    maximum_gradient_norm: float = 5.0
    batch_utterances: int = 8
    epochs: int = 26
    warmup_updates: int = 40
    mask_bands: int = 4
    mask_frames: int = 12
    dropout: float = 0.1
    seed: int = 1


@dataclass(frozen=True, kw_only=True)
class TrainingState:
    """All that training goes on from.

    Attributes:
        model: The acoustic model.
        moments: What the optimizer remembers.
        epoch: Epochs done.
        updates: Updates done.
    """

    model: AcousticModel
    moments: Moments
    epoch: int = 0
    updates: int = 0


@dataclass(frozen=True, kw_only=True)
class EpochReport:
    """What an epoch did.

    Attributes:
        epoch: Its number, from 1.
        updates: Updates since the start.
        learning_rate: At its end.
        training: Loss and errors on the batches, each before its update.
        seconds: Time that it took.
    """

    epoch: int
    updates: int
    learning_rate: float
    training: Evaluation
    seconds: float


def start(corpus: Corpus, architecture: Architecture, *, seed: int) -> TrainingState:
    """Return the state before the first epoch; the features' scale is that of the corpus."""
    values = np.concatenate(corpus.features)
    model = AcousticModel(
        architecture=architecture,
        parameters=initial_parameters(architecture, seed=seed),
        feature_mean=float(values.mean()),
        feature_deviation=float(values.std()) or 1.0,
    )
    zeros = {name: np.zeros_like(value) for name, value in model.parameters.items()}
    return TrainingState(model=model, moments=Moments(first=zeros, second=zeros))


def train(
    state: TrainingState, corpus: Corpus, options: TrainingOptions
) -> Iterator[tuple[TrainingState, EpochReport]]:
    """Train until ``options.epochs`` are done, from wherever the state is.

    Args:
        state: From :func:`start` or :func:`load_state`.
        corpus: The training list.
        options: How.

    Yields:
        After each epoch its state and report. The caller saves, evaluates, or stops asking.

    Raises:
        UsageError: An option is out of its range.
        TrialFailedError: The loss became infinite or not a number.
    """
    _check(options)
    while state.epoch < options.epochs:
        state, report = train_epoch(state, corpus, options)
        yield state, report


def train_epoch(
    state: TrainingState, corpus: Corpus, options: TrainingOptions
) -> tuple[TrainingState, EpochReport]:
    """Pass once over the training list; see :func:`train`."""
    begin = time.monotonic()
    random = np.random.default_rng([options.seed, state.epoch])
    batches = _batches(corpus, options.batch_utterances, random)
    parts, learning_rate = [], 0.0
    for batch in batches:
        learning_rate = learning_rate_at(options, state.updates + 1, len(batches))
        # A diverging model overflows: that is found by its loss.
        with np.errstate(over="ignore", invalid="ignore"):
            state, part = _step(state, corpus, batch, options, learning_rate, random)
        parts.append(part)
    state = replace(state, epoch=state.epoch + 1)
    report = EpochReport(
        epoch=state.epoch,
        updates=state.updates,
        learning_rate=learning_rate,
        training=pool(parts, [len(batch) for batch in batches]),
        seconds=time.monotonic() - begin,
    )
    return state, report


def _step(
    state: TrainingState,
    corpus: Corpus,
    batch: Integers,
    options: TrainingOptions,
    learning_rate: float,
    random: np.random.Generator,
) -> tuple[TrainingState, Evaluation]:
    """Learn from one batch."""
    features, frames = pad_batch(state.model, [corpus.features[i] for i in batch])
    for matrix, length in zip(features, frames, strict=True):
        _mask(matrix[:length], options, random)
    logits, cache = forward(state.model, features, frames, dropout=options.dropout, random=random)
    part, gradient = score_batch(state.model, corpus, batch, logits, frames)
    if not math.isfinite(part.loss):
        raise TrialFailedError(
            f"the loss is {part.loss} at update {state.updates + 1}; try a learning rate below "
            f"{options.learning_rate:g}"
        )
    gradients = backward(state.model, cache, gradient / len(batch))
    parameters, moments = optimize(
        state.model.parameters,
        clip(gradients, options.maximum_gradient_norm),
        state.moments,
        optimizer=options.optimizer,
        learning_rate=learning_rate,
        momentum=options.momentum,
        update=state.updates + 1,
    )
    model = replace(state.model, parameters=parameters)
    return replace(state, model=model, moments=moments, updates=state.updates + 1), part


def learning_rate_at(options: TrainingOptions, update: int, updates_per_epoch: int) -> float:
    """Return the learning rate of an update, counted from 1."""
    rise = min(1.0, update / max(options.warmup_updates, 1))
    done = (update - 1) / (options.epochs * updates_per_epoch)
    return options.learning_rate * rise * 0.5 * (1 + math.cos(math.pi * min(done, 1.0)))


def save_state(path: Path, state: TrainingState) -> None:
    """Write a state in one step; :func:`..acoustic.load_model` reads the model in it too."""
    moments = {f"first_{name}": value for name, value in state.moments.first.items()}
    moments |= {f"second_{name}": value for name, value in state.moments.second.items()}
    save_model(path, state.model, progress=np.array([state.epoch, state.updates]), **moments)


def load_state(path: str | os.PathLike[str]) -> TrainingState:
    """Read what :func:`save_state` wrote.

    Raises:
        InputError: The file is missing, or holds no state of training.
    """
    model, beside = load_model(path)
    try:
        moments = Moments(
            first={name: beside[f"first_{name}"] for name in model.parameters},
            second={name: beside[f"second_{name}"] for name in model.parameters},
        )
        return TrainingState(
            model=model,
            moments=moments,
            epoch=int(beside["progress"][0]),
            updates=int(beside["progress"][1]),
        )
    except KeyError as error:
        raise InputError(
            f"holds a model but no state of training (no {error}); it cannot be continued",
            path=path,
        ) from None


def _check(options: TrainingOptions) -> None:
    """Refuse options that cannot work."""
    if options.optimizer not in OPTIMIZERS:
        hint = did_you_mean(options.optimizer, OPTIMIZERS)
        raise UsageError(f"unknown optimizer {options.optimizer!r}{hint or '; take adam or sgd'}")
    if not options.learning_rate > 0:
        raise UsageError(f"learning rate {options.learning_rate}: give one above 0")
    if options.batch_utterances < 1:
        raise UsageError(f"batch of {options.batch_utterances} utterances: give 1 or more")


def _batches(corpus: Corpus, batch_utterances: int, random: np.random.Generator) -> list[Integers]:
    """Cut the list into batches of similar lengths, different ones in each epoch."""
    lengths = np.array([len(matrix) for matrix in corpus.features])
    order = np.argsort(lengths * random.uniform(0.7, 1.3, len(lengths)))
    batches = [order[i : i + batch_utterances] for i in range(0, len(order), batch_utterances)]
    return [batches[i] for i in random.permutation(len(batches))]


def _mask(features: Floats, options: TrainingOptions, random: np.random.Generator) -> None:
    """Set some neighbouring bands and frames of one utterance to the mean (Park et al., 2019)."""
    frames, bands = features.shape
    width = random.integers(min(options.mask_bands, bands) + 1)
    first = random.integers(bands - width + 1)
    features[:, first : first + width] = 0
    for _ in range(2):
        width = random.integers(min(options.mask_frames, frames) + 1)
        first = random.integers(frames - width + 1)
        features[first : first + width] = 0
