"""A look at the inputs before the first decode: what is wrong for every weight is said at once."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from w2ltune.embedded.beamsearch import Decoder
from w2ltune.embedded.decoderfiles import check_lm_head
from w2ltune.embedded.decoderflags import DecoderFlags, why_not_in_process
from w2ltune.errors import InputError
from w2ltune.formats.emissions import check_emissions, refuse_padding
from w2ltune.formats.spelling import composed, why_unlike
from w2ltune.formats.toolkits import kind_of
from w2ltune.scoring.text import split_units
from w2ltune.scoring.wer import count_matrix, total
from w2ltune.trials.dataset import Dataset, shuffled_order

MOST_GREEDY_UTTERANCES = 1000
PROBABILITY_UTTERANCES = 20
ABSURD_CER = 0.8
ABSURD_UNKNOWN = 0.5
ABSURD_SHORT = 0.2


@dataclass(frozen=True, kw_only=True)
class Finding:
    """One line about the inputs.

    Attributes:
        text: What was found.
        advice: What it means; "" when all is well.
        absurd: Whether a sweep would be wasted.
        value: The greedy error rate in the study's metric; None for other findings.
    """

    text: str
    advice: str = ""
    absurd: bool = False
    value: float | None = None

    def __str__(self) -> str:
        return f"{self.text}; {self.advice}" if self.advice else self.text


def look_at(dataset: Dataset, flags: DecoderFlags, *, by_binary: bool) -> list[Finding]:
    """Return what is worth knowing of the inputs before decoding them.

    Args:
        dataset: The lists.
        flags: Of a trial.
        by_binary: Whether the binary decodes, which may take what the decoder in process does not.

    Raises:
        InputError: Emissions are missing or wrong, or another file is.
    """
    if not by_binary:
        return check_task(dataset, Decoder(flags))
    if flags.lm and flags.lmtype == "kenlm":
        check_lm_head(Path(flags.lm))
    decoder = None
    if not why_not_in_process(flags):
        with contextlib.suppress(InputError):
            decoder = Decoder(flags)
    if decoder is not None:
        return check_task(dataset, decoder)
    check_all_emissions(dataset, None)
    return []


def check_task(dataset: Dataset, decoder: Decoder) -> list[Finding]:
    """Return what is worth knowing of the inputs before decoding them.

    While there are no emissions it is what lexicon, LM and references tell.

    Raises:
        InputError: Emissions are missing, hold NaN, or have another number of tokens.
    """
    check_all_emissions(dataset, decoder.token_count)
    findings = []
    if dataset.emission_sets:
        findings = [_probabilities(dataset), _greedy(dataset, decoder)]
    if decoder.flags.uselexicon:
        findings.append(_outside_lexicon(dataset, decoder))
    if decoder.flags.uselexicon and decoder.flags.word_lm and decoder.flags.lm:
        findings.append(_unknown_to_lm(decoder))
    if dataset.emission_sets:
        findings.append(_too_short(dataset, decoder))
    return [finding for finding in findings if finding.text]


def check_all_emissions(dataset: Dataset, token_count: int | None) -> None:
    """Check the emissions of all lists, held-out ones too.

    Args:
        dataset: The lists.
        token_count: The columns that they must have; None where it is not known.

    Raises:
        InputError: Emissions are missing, padded, hold NaN, or have another number of tokens.
    """
    for number, emissions in enumerate(dataset.emission_sets):
        ids = [
            name for name, own in zip(dataset.ids, dataset.list_of, strict=True) if own == number
        ]
        path = dataset.task.emissions[number]
        padded = check_emissions(emissions, ids, token_count=token_count, path=path)
        refuse_padding(padded, path=path)


def refuse_absurd(findings: Sequence[Finding]) -> None:
    """Refuse inputs for which no weight can help.

    Raises:
        InputError: With the first absurd finding.
    """
    for finding in findings:
        if finding.absurd:
            raise InputError(f"{finding}. If it is meant so, give --allow_absurd_input")


def _probabilities(dataset: Dataset) -> Finding:
    """Probabilities have the same best tokens as their logarithms: greedy decoding looks well."""
    sample = range(min(PROBABILITY_UTTERANCES, len(dataset.ids)))
    if any(kind_of(dataset.emission(index)) != "probabilities" for index in sample):
        return Finding(text="")
    return Finding(
        text="the emissions add up to 1 in each frame, so they are probabilities",
        advice="decoders add up logarithms: w2ltune emissions --values=probabilities takes them",
        absurd=True,
    )


def _greedy(dataset: Dataset, decoder: Decoder) -> Finding:
    sample = shuffled_order(dataset.dev_count)[:MOST_GREEDY_UTTERANCES]
    references = [" ".join(dataset.utterances[index].reference) for index in sample]
    greedy = [" ".join(decoder.greedy(dataset.emission(index))) for index in sample]
    rates = {}
    for metric in ("wer", "cer"):
        pairs = [
            [split_units(text.lower(), "wer" if metric == "wer" else "cer") for text in texts]
            for texts in (references, greedy)
        ]
        rates[metric] = total(count_matrix(*pairs)).wer
    of = "" if len(sample) == dataset.dev_count else f" on {len(sample)} of the utterances"
    text = f"greedy (no LM, no lexicon): WER {rates['wer']:.1%}, CER {rates['cer']:.1%}{of}"
    if rates["cer"] > ABSURD_CER:
        return Finding(
            text=text,
            advice="these emissions do not spell the references: the token list has another order, "
            "the blank is not the last column, or the list belongs to other emissions",
            absurd=True,
        )
    return Finding(text=text, value=total(dataset.count(sample, greedy)).wer)


def _outside_lexicon(dataset: Dataset, decoder: Decoder) -> Finding:
    if dataset.task.metric == "cer":
        return _letters_outside_lexicon(dataset, decoder)
    tuned = dataset.utterances[: dataset.dev_count]
    words = [composed(word) for utterance in tuned for word in utterance.reference]
    known = set(map(composed, decoder.words))
    outside = [word for word in words if word not in known]
    text = f"reference words outside the lexicon: {len(outside)} of {len(words)}"
    if not outside:
        return Finding(text=text)
    share = len(outside) / len(words)
    examples = _examples(outside)
    if share > ABSURD_UNKNOWN:
        return Finding(
            text=text, advice=f"as {examples}: is the case of the letters the same?", absurd=True
        )
    return Finding(text=text, advice=f"as {examples}; the WER cannot fall below {share:.1%}")


def _letters_outside_lexicon(dataset: Dataset, decoder: Decoder) -> Finding:
    """Look at characters only: references may be written without blanks between words."""
    known = {" ", *dataset.units(" ".join(decoder.words))}
    letters = [letter for units in dataset.references[: dataset.dev_count] for letter in units]
    outside = [letter for letter in letters if letter not in known]
    text = f"reference characters in no word of the lexicon: {len(outside)} of {len(letters)}"
    if not outside:
        return Finding(text=text)
    share = len(outside) / len(letters)
    advice = f"as {_examples(outside)}; the CER cannot fall below {share:.1%}"
    why = why_unlike(set(outside), known)
    return Finding(
        text=text, advice=f"{advice}; {why}" if why else advice, absurd=share > ABSURD_UNKNOWN
    )


def _unknown_to_lm(decoder: Decoder) -> Finding:
    unknown = decoder.words_unknown_to_lm()
    text = f"lexicon words unknown to the LM: {len(unknown)} of {len(decoder.words)}"
    if not unknown:
        return Finding(text=text)
    advice = f"as {_examples(unknown)}"
    absurd = len(unknown) > ABSURD_UNKNOWN * len(decoder.words)
    if absurd:
        advice += ": is the case of the letters the same?"
    return Finding(text=text, advice=advice, absurd=absurd)


def _too_short(dataset: Dataset, decoder: Decoder) -> Finding:
    """CTC needs a frame for each token, and one more between two equal ones (not counted here)."""
    short = []
    for index, utterance in enumerate(dataset.utterances):
        needed = [decoder.shortest_spelling(word) or len(word) for word in utterance.reference]
        if not decoder.flags.usewordpiece and dataset.frames(index) < int(np.sum(needed)):
            short.append(dataset.ids[index])
    text = f"utterances with fewer frames than their reference needs: {len(short)}"
    if not short:
        return Finding(text="")
    return Finding(
        text=text,
        advice=f"as {_examples(short)}; they can never be right",
        absurd=len(short) > ABSURD_SHORT * len(dataset.ids),
    )


def _examples(names: Sequence[str], most: int = 3) -> str:
    different = list(dict.fromkeys(names))
    return ", ".join(map(repr, different[:most])) + (", …" if len(different) > most else "")
