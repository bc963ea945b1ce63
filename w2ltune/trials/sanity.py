"""A look at the inputs before the first decode: what is wrong for every weight is said at once."""

from __future__ import annotations

import math
import unicodedata
from collections.abc import Collection, Sequence
from pathlib import Path

from w2ltune.embedded.beamsearch import Decoder
from w2ltune.embedded.decoderfiles import UNKNOWN_WORD, check_lm_head
from w2ltune.embedded.decoderflags import DecoderFlags, why_not_in_process
from w2ltune.errors import InputError, UsageError
from w2ltune.formats.emissions import check_emissions, refuse_padding
from w2ltune.formats.spelling import composed, why_unlike
from w2ltune.formats.toolkits import kind_of
from w2ltune.trials.dataset import Dataset
from w2ltune.trials.greedy import Finding, decode_greedily

PROBABILITY_UTTERANCES = 20
ABSURD_UNKNOWN = 0.9
"""Of the reference words; half of them where it is seen how they differ from the lexicon's."""

ABSURD_SHORT = 0.5

_MARKS = {"<s>", "</s>"}


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
        return check_task(dataset, Decoder(flags, to_decode=False))
    if flags.lm and flags.lmtype == "kenlm":
        check_lm_head(Path(flags.lm))
    why = why_not_in_process(flags)
    if not why:
        try:
            decoder = Decoder(flags, to_decode=False)
        except UsageError as error:  # flashlight-text may not be there
            why = str(error)
        else:
            return check_task(dataset, decoder)
    check_all_emissions(dataset, None)
    return [Finding(text=f"words, spellings and LM were not looked at: {why}")]


def check_task(dataset: Dataset, decoder: Decoder) -> list[Finding]:
    """Return what is worth knowing of the inputs before decoding them.

    While there are no emissions it is what lexicon, LM and references tell.
    """
    check_all_emissions(dataset, decoder.token_count)
    findings = []
    if dataset.emission_sets:
        findings = [_probabilities(dataset), decode_greedily(dataset, decoder)]
    if decoder.flags.uselexicon:
        findings.append(_outside_lexicon(dataset, decoder))
        findings.append(_crowded_out(dataset, decoder))
    if decoder.flags.lm:
        word_lm = decoder.flags.word_lm
        findings.append(_unknown_to_lm(decoder) if word_lm else _tokens_unknown_to_lm(decoder))
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
            raise InputError(f"{finding}; if it is meant so, give --allow_absurd_input")


def _probabilities(dataset: Dataset) -> Finding:
    """Probabilities have the same best tokens as their logarithms: greedy decoding looks well."""
    sample = range(min(PROBABILITY_UTTERANCES, len(dataset.ids)))
    if any(kind_of(dataset.as_given(index)) != "probabilities" for index in sample):
        return Finding(text="")
    return Finding(
        text="the emissions add up to 1 in each frame, so they are probabilities",
        advice="decoders add up logarithms: w2ltune emissions --values=probabilities takes them",
        absurd=True,
    )


def _outside_lexicon(dataset: Dataset, decoder: Decoder) -> Finding:
    if dataset.task.metric == "cer":
        return _letters_outside_lexicon(dataset, decoder)
    words = _reference_words(dataset)
    outside = _not_among(decoder.words, words, dataset)
    text = f"reference words outside the lexicon: {len(outside)} of {len(words)}"
    if not outside:
        return Finding(text=text)
    share = len(outside) / len(words)
    why = why_unlike(list(dict.fromkeys(outside)), decoder.words)
    advice = f"as {_examples(outside)}{why and f': {why}'}; the WER cannot fall below {share:.1%}"
    return Finding(text=text, advice=advice, absurd=share > (0.5 if why else ABSURD_UNKNOWN))


def _reference_words(dataset: Dataset) -> list[str]:
    tuned = dataset.utterances[: dataset.dev_count]
    return [word for utterance in tuned for word in utterance.reference]


def _not_among(known: Collection[str], words: Sequence[str], dataset: Dataset) -> list[str]:
    """Return the words that are none of the known ones, as they are counted."""
    left = {word for word in words if word not in known}
    if left and not all(map(str.isascii, left)):
        alike = set(map(composed, known))
        left = {word for word in left if composed(word) not in alike}
    if left and (dataset.task.normalize is not None or dataset.task.ignore_case):
        units = {unit for word in known for unit in _normalized(word, dataset)}
        left = {word for word in left if not units.issuperset(_normalized(word, dataset))}
    return [word for word in words if word in left]


def _normalized(word: str, dataset: Dataset) -> list[str]:
    try:
        return dataset.normalize(word).split()
    except InputError:  # of a user's function, which may not be for all words of a lexicon
        return [word]


def _crowded_out(dataset: Dataset, decoder: Decoder) -> Finding:
    crowded = set(decoder.crowded_out())
    if not crowded:
        return Finding(text="")
    words = _reference_words(dataset)
    lost = set(_not_among(decoder.words - crowded, words, dataset))
    share = sum(word in lost for word in words) / len(words)
    lost -= {*_not_among(decoder.words, words, dataset)}
    holding = [u for u in dataset.utterances[: dataset.dev_count] if lost.intersection(u.reference)]
    examples = _examples([*sorted(lost), *sorted(crowded)])
    return Finding(
        text=f"words that are never decoded, as six others have their spelling: {len(crowded)}",
        advice=f"as {examples}; {len(holding)} references hold such words; the WER cannot fall "
        f"below {share:.1%}",
    )


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
    words = len(decoder.words - {UNKNOWN_WORD})
    text = f"lexicon words unknown to the LM: {len(unknown)} of {len(decoder.words)}"
    if not unknown:
        return Finding(text=text)
    known = decoder.lm_words
    if known is None:  # all of them may have the score of an unknown word
        return Finding(text=text, advice=f"as {_examples(unknown)}, by their scores")
    why = why_unlike(unknown, known)
    units = known - _MARKS
    if _nearly_all(units, decoder.token_names) and not _nearly_all(units, decoder.words):
        why = "its words are the tokens, so that it needs --decodertype=tkn"
    absurd = len(unknown) == words or (bool(why) and 2 * len(unknown) > words)
    return Finding(text=text, advice=f"as {_examples(unknown)}{why and f': {why}'}", absurd=absurd)


def _tokens_unknown_to_lm(decoder: Decoder) -> Finding:
    known = decoder.lm_words
    if known is None:
        return Finding(text="")
    tokens = decoder.token_names
    unknown = [token for token in tokens if token not in known]
    text = f"tokens unknown to the LM: {len(unknown)} of {len(tokens)}"
    if not unknown:
        return Finding(text=text)
    why = why_unlike(unknown, known)
    if _nearly_all(known - _MARKS, decoder.words):
        why = "its words are those of the lexicon, so that it needs --decodertype=wrd"
    absurd = len(unknown) == len(tokens) or (bool(why) and 2 * len(unknown) > len(tokens))
    return Finding(text=text, advice=f"as {_examples(unknown)}{why and f': {why}'}", absurd=absurd)


def _nearly_all(names: Collection[str], known: Collection[str]) -> bool:
    """Whether nearly all of some names are known ones."""
    return sum(name in known for name in names) > 0.9 * len(names)


def _too_short(dataset: Dataset, decoder: Decoder) -> Finding:
    """CTC needs a frame for each token, and one more between two equal ones (not counted here)."""
    longest = max(map(len, decoder.token_names))

    def needed(word: str) -> int:
        if decoder.flags.uselexicon:  # a word outside the lexicon is another finding
            return decoder.shortest_spelling(word) or 0
        return math.ceil(len(unicodedata.normalize("NFC", word)) / longest)

    short = [
        name
        for index, (name, utterance) in enumerate(zip(dataset.ids, dataset.utterances, strict=True))
        if dataset.frames(index) < sum(map(needed, utterance.reference))
    ]
    if not short:
        return Finding(text="")
    return Finding(
        text=f"utterances with fewer frames than their reference needs: {len(short)}",
        advice=f"as {_examples(short)}; they can never be right",
        absurd=len(short) > ABSURD_SHORT * len(dataset.ids),
    )


def _examples(names: Sequence[str], most: int = 3) -> str:
    different = list(dict.fromkeys(names))
    return ", ".join(map(repr, different[:most])) + (", …" if len(different) > most else "")
