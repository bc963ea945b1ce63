"""Loss and errors of an acoustic model on a list, without a language model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from w2ltune.embedded.acoustic import AcousticModel, emission_frames, forward, pad_batch
from w2ltune.embedded.corpus import Corpus
from w2ltune.embedded.ctc import Floats, Integers, best_path, ctc_loss, log_softmax
from w2ltune.scoring.text import split_units
from w2ltune.scoring.wer import ErrorCounts, count_errors

BATCH = 16  # utterances at once


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """How well a model does on a list, by the best path, without a language model.

    Attributes:
        loss: CTC loss per utterance, in nats.
        token_errors: Error counts over tokens.
        word_errors: Error counts over words.
    """

    loss: float
    token_errors: ErrorCounts
    word_errors: ErrorCounts


@dataclass(frozen=True, kw_only=True)
class Recognised:
    """One utterance, by the best path.

    Attributes:
        name: Its id.
        target: Tokens of its reference.
        tokens: Tokens of the best path.
        words: Their words.
        token_errors: Error counts over tokens.
        word_errors: Error counts over words.
    """

    name: str
    target: list[str]
    tokens: list[str]
    words: list[str]
    token_errors: ErrorCounts
    word_errors: ErrorCounts


def evaluate(model: AcousticModel, corpus: Corpus) -> Evaluation:
    """Return loss and errors on a list."""
    order = np.argsort([len(matrix) for matrix in corpus.features], kind="stable")
    batches = [order[i : i + BATCH] for i in range(0, len(order), BATCH)]
    parts = []
    for batch in batches:
        features, frames = pad_batch(model, [corpus.features[i] for i in batch])
        with np.errstate(over="ignore", invalid="ignore"):  # a diverged model is told by its loss
            logits, _ = forward(model, features, frames)
            parts.append(score_batch(model, corpus, batch, logits, frames)[0])
    return pool(parts, [len(batch) for batch in batches])


def score_batch(
    model: AcousticModel,
    corpus: Corpus,
    batch: Integers,
    logits: Floats,
    frames: Integers,
) -> tuple[Evaluation, Floats]:
    """Return a batch's mean loss and errors, and the gradient of the losses' sum.

    ``frames`` are those of the features; logits are [utterances, emission frames, outputs].
    """
    log_probabilities = log_softmax(logits)
    blank = model.architecture.outputs - 1
    frames = emission_frames(model.architecture, frames)
    targets = [corpus.targets[i] for i in batch]
    losses, gradient = ctc_loss(log_probabilities, frames, targets, blank=blank)
    token_errors, word_errors = ErrorCounts.zero(), ErrorCounts.zero()
    for i, values, length in zip(batch, log_probabilities, frames, strict=True):
        found = recognise(corpus, i, values[:length])
        token_errors += found.token_errors
        word_errors += found.word_errors
    loss = float(losses.mean())
    return Evaluation(loss=loss, token_errors=token_errors, word_errors=word_errors), gradient


def recognise(corpus: Corpus, index: int, emission: Floats) -> Recognised:
    """Return what the best path through an utterance's emission, blank last, spells."""
    blank = emission.shape[-1] - 1
    tokens = [corpus.tokens[token] for token in best_path(emission, blank=blank)]
    target = [corpus.tokens[token] for token in corpus.targets[index]]
    words = split_units("".join(tokens).replace(corpus.separator, " "), "wer")
    reference = split_units(" ".join(corpus.references[index]), "wer")
    return Recognised(
        name=corpus.ids[index],
        target=target,
        tokens=tokens,
        words=words,
        token_errors=count_errors(target, tokens),
        word_errors=count_errors(reference, words),
    )


def pool(parts: Sequence[Evaluation], utterances: Sequence[int]) -> Evaluation:
    """Put the results of batches with so many utterances together."""
    return Evaluation(
        loss=float(np.average([part.loss for part in parts], weights=utterances)),
        token_errors=sum((part.token_errors for part in parts), ErrorCounts.zero()),
        word_errors=sum((part.word_errors for part in parts), ErrorCounts.zero()),
    )
