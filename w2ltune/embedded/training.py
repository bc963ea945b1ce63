"""Train a small CTC acoustic model in numpy, from report to report.

All that changes is in a :class:`TrainingState` that each update replaces, and what is random in an
epoch comes from the seed and its number. So a run that was stopped at the end of an epoch and goes
on from its saved state ends with the same parameters as one that was not. As in fl_asr_train, a
state from within an epoch goes on with the next one, so that the rest of its epoch is not seen.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

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
from w2ltune.embedded.ctc import Integers
from w2ltune.embedded.evaluation import Evaluation, pool, score_batch
from w2ltune.embedded.masking import Masks, mask
from w2ltune.embedded.optimizer import Moments, clip, optimize
from w2ltune.embedded.schedule import Schedule, learning_rate_at
from w2ltune.errors import TrialFailedError

PHASES = ("sample", "forward", "criterion", "backward", "optimizer")


@dataclass(frozen=True, kw_only=True)
class TrainingOptions:
    """How to train.

    Attributes:
        optimizer: ``adam`` or ``sgd`` (with momentum).
        schedule: The learning rate, and the number of updates.
        report_updates: Updates between two reports; 0 reports at the end of each epoch.
        momentum: Of ``sgd``.
        maximum_gradient_norm: Longer gradients are shortened to it; 0 leaves them.
        batch_utterances: Utterances per update.
        masks: What is hidden of an utterance.
        dropout: Share of each convolution's outputs set to 0 at random.
        seed: Of all that is random but the first parameters.
    """

    optimizer: str = "adam"
    schedule: Schedule = Schedule()
    report_updates: int = 0
    momentum: float = 0.9
    maximum_gradient_norm: float = 5.0
    batch_utterances: int = 8
    masks: Masks = Masks()
    dropout: float = 0.1
    seed: int = 1


@dataclass(frozen=True, kw_only=True)
class TrainingState:
    """All that training goes on from.

    Attributes:
        model: The acoustic model.
        moments: What the optimizer remembers.
        epoch: Epochs begun.
        updates: Updates done.
    """

    model: AcousticModel
    moments: Moments
    epoch: int = 0
    updates: int = 0


@dataclass(frozen=True, kw_only=True)
class Batch:
    """What one update saw.

    Attributes:
        training: Loss and errors before the update.
        utterances: Their number.
        frames: Feature frames of all of them.
        target_lengths: Tokens of each.
        seconds: Time for each of ``PHASES``.
    """

    training: Evaluation
    utterances: int
    frames: int
    target_lengths: tuple[int, ...]
    seconds: tuple[float, ...]


@dataclass(frozen=True, kw_only=True)
class Report:
    """What happened since the report before.

    Attributes:
        epoch: The epoch that it was made in, from 1.
        updates: Updates since the start.
        learning_rate: Of the last update.
        batches: Of each update.
    """

    epoch: int
    updates: int
    learning_rate: float
    batches: tuple[Batch, ...]

    @property
    def training(self) -> Evaluation:
        """Loss and errors on the batches, each before its update."""
        parts = [batch.training for batch in self.batches]
        return pool(parts, [batch.utterances for batch in self.batches])

    @property
    def seconds(self) -> float:
        """Time that the updates took."""
        return sum(sum(batch.seconds) for batch in self.batches)


def start(corpus: Corpus, architecture: Architecture, *, seed: int) -> TrainingState:
    """Return the state before the first epoch; the features' scale is that of the corpus."""
    values = np.concatenate(corpus.features)
    model = AcousticModel(
        architecture=architecture,
        parameters=initial_parameters(architecture, seed=seed),
        feature_mean=float(values.mean()),
        feature_deviation=float(values.std()) or 1.0,
    )
    return start_from(model)


def start_from(model: AcousticModel) -> TrainingState:
    """Return the state before the first epoch of a model that has learned already."""
    zeros = {name: np.zeros_like(value) for name, value in model.parameters.items()}
    return TrainingState(model=model, moments=Moments(first=zeros, second=zeros))


def train(
    state: TrainingState,
    corpus: Corpus,
    options: TrainingOptions,
    *,
    epoch_begins: Callable[[int], None] = lambda epoch: None,
) -> Iterator[tuple[TrainingState, Report]]:
    """Train until the schedule's updates are done, from wherever the state is.

    Yields:
        State and report at the end of each epoch and at the last update, or after every
        ``report_updates`` updates: then what comes after the last report is never seen.

    Raises:
        TrialFailedError: The loss became infinite or not a number.
    """
    since: list[Batch] = []
    while state.updates < options.schedule.updates:
        random = np.random.default_rng([options.seed, state.epoch])
        state = replace(state, epoch=state.epoch + 1)
        epoch_begins(state.epoch)
        batches = _batches(corpus, options.batch_utterances, random)
        batches = batches[: options.schedule.updates - state.updates]
        for number, chosen in enumerate(batches, start=1):
            rate = learning_rate_at(options.schedule, epoch=state.epoch, update=state.updates + 1)
            # A diverging model overflows: that is found by its loss.
            with np.errstate(over="ignore", invalid="ignore"):
                state, batch = _step(state, corpus, chosen, options, rate, random)
            since.append(batch)
            every = options.report_updates
            if state.updates % every == 0 if every else number == len(batches):
                yield (
                    state,
                    Report(
                        epoch=state.epoch,
                        updates=state.updates,
                        learning_rate=rate,
                        batches=tuple(since),
                    ),
                )
                since.clear()


def _step(
    state: TrainingState,
    corpus: Corpus,
    chosen: Integers,
    options: TrainingOptions,
    learning_rate: float,
    random: np.random.Generator,
) -> tuple[TrainingState, Batch]:
    """Learn from one batch."""
    clock = [time.perf_counter()]
    features, frames = pad_batch(state.model, [corpus.features[i] for i in chosen])
    for matrix, length in zip(features, frames, strict=True):
        mask(matrix[:length], options.masks, random, update=state.updates + 1)
    clock.append(time.perf_counter())
    logits, cache = forward(state.model, features, frames, dropout=options.dropout, random=random)
    clock.append(time.perf_counter())
    training, gradient = score_batch(state.model, corpus, chosen, logits, frames)
    if not math.isfinite(training.loss):
        raise TrialFailedError(
            f"the loss is {training.loss} at update {state.updates + 1}; "
            f"try a lower --lr than {options.schedule.peak:g}"
        )
    clock.append(time.perf_counter())
    gradients = backward(state.model, cache, gradient / len(chosen))
    clock.append(time.perf_counter())
    parameters, moments = optimize(
        state.model.parameters,
        clip(gradients, options.maximum_gradient_norm),
        state.moments,
        optimizer=options.optimizer,
        learning_rate=learning_rate,
        momentum=options.momentum,
        update=state.updates + 1,
    )
    clock.append(time.perf_counter())
    batch = Batch(
        training=training,
        utterances=len(chosen),
        frames=int(frames.sum()),
        target_lengths=tuple(len(corpus.targets[i]) for i in chosen),
        seconds=tuple(np.diff(clock).tolist()),
    )
    model = replace(state.model, parameters=parameters)
    return replace(state, model=model, moments=moments, updates=state.updates + 1), batch


def _batches(corpus: Corpus, batch_utterances: int, random: np.random.Generator) -> list[Integers]:
    """Cut the list into batches of similar lengths, different ones in each epoch."""
    lengths = np.array([len(matrix) for matrix in corpus.features])
    order = np.argsort(lengths * random.uniform(0.7, 1.3, len(lengths)))
    batches = [order[i : i + batch_utterances] for i in range(0, len(order), batch_utterances)]
    return [batches[i] for i in random.permutation(len(batches))]
