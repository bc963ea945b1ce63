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


def evaluate(model: AcousticModel, corpus: Corpus, *, batch_utterances: int = 16) -> Evaluation:
    """Return loss and errors on a list."""
    order = np.argsort([len(matrix) for matrix in corpus.features], kind="stable")
    batches = [order[i : i + batch_utterances] for i in range(0, len(order), batch_utterances)]
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
        path = recognise(corpus, values[:length])
        token_errors += count_errors(spelling(corpus, i), path)
        word_errors += count_errors(reference_words(corpus, i), words_of(corpus, path))
    loss = float(losses.mean())
    return Evaluation(loss=loss, token_errors=token_errors, word_errors=word_errors), gradient


def recognise(corpus: Corpus, emission: Floats) -> list[str]:
    """Return the tokens of the best path through one utterance's emission, blank last."""
    blank = emission.shape[-1] - 1
    return [corpus.tokens[token] for token in best_path(emission, blank=blank)]


def spelling(corpus: Corpus, index: int) -> list[str]:
    """Return the tokens of an utterance's reference."""
    return [corpus.tokens[token] for token in corpus.targets[index]]


def reference_words(corpus: Corpus, index: int) -> list[str]:
    """Return the words of an utterance's reference, as they are counted."""
    return split_units(" ".join(corpus.references[index]), "wer")


def words_of(corpus: Corpus, tokens: Sequence[str]) -> list[str]:
    """Return the words that tokens spell, as they are counted."""
    return split_units("".join(tokens).replace(corpus.separator, " "), "wer")


def pool(parts: Sequence[Evaluation], utterances: Sequence[int]) -> Evaluation:
    """Put the results of batches with so many utterances together."""
    return Evaluation(
        loss=float(np.average([part.loss for part in parts], weights=utterances)),
        token_errors=sum((part.token_errors for part in parts), ErrorCounts.zero()),
        word_errors=sum((part.word_errors for part in parts), ErrorCounts.zero()),
    )
