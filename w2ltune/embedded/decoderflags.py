"""The decoder's flags, typed and checked; names, defaults and meaning are the binary's."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from w2ltune.errors import FlagError, UsageError, did_you_mean
from w2ltune.formats.beamdump import Hypothesis
from w2ltune.formats.known_flags import KNOWN_FLAGS, typed_value


@dataclass(frozen=True, kw_only=True)
class DecoderFlags:
    """The decoder's flags, typed; names, defaults and meaning are the binary's.

    ``lmweight`` multiplies log10 LM scores. ``transitions`` is ours: a ``.npy`` file with the
    [tokens, tokens] transition scores of an ASG model.
    """

    tokens: str
    tokensdir: str
    lexicon: str
    lm: str
    lmtype: str
    transitions: str
    criterion: str
    decodertype: str
    uselexicon: bool
    smearing: str
    wordseparator: str
    usewordpiece: bool
    replabel: int
    surround: str
    maxword: int
    beamsize: int
    beamsizetoken: int
    beamthreshold: float
    logadd: bool
    lmweight: float
    wordscore: float
    silscore: float
    unkscore: float

    @property
    def loaded(self) -> tuple[object, ...]:
        """What decides the loaded part (tokens, lexicon, LM, trie), as a key."""
        return (
            self.tokens, self.tokensdir, self.lexicon, self.lm, self.lmtype, self.transitions,
            self.criterion, self.decodertype, self.uselexicon, self.smearing, self.wordseparator,
            self.usewordpiece, self.replabel, self.surround, self.maxword,
        )  # fmt: skip

    @property
    def word_lm(self) -> bool:
        """Whether the LM scores words (else tokens)."""
        return self.decodertype == "wrd"

    @property
    def tokens_path(self) -> Path:
        """The token list; ``tokensdir`` is wav2letter v0.2's folder for it."""
        return Path(self.tokensdir, self.tokens)


DECODER_FLAGS = frozenset(DecoderFlags.__dataclass_fields__)
"""Flags that change what the embedded decoder gives."""

OUR_FLAGS = frozenset({"transitions"})
"""Decoder flags that the binary does not have (its model file holds the transitions)."""

OF_THE_MODEL = DECODER_FLAGS & {
    *("tokens", "tokensdir", "lexicon", "criterion", "wordseparator", "usewordpiece", "replabel"),
    *("surround", "uselexicon", "maxword"),
}
"""Decoder flags that a model is trained with."""

OF_THE_SEARCH = (DECODER_FLAGS - OF_THE_MODEL - OUR_FLAGS) | {"eosscore"}
"""Decoder flags that a training has no use for, though its model stores them as all others."""

CRITERIA = ("ctc", "asg", "s2srnn", "s2stransformer", "seq2seq", "transformer")
"""Of both generations; the sequence-to-sequence ones are decoded by the binary only."""

LINEAR = 1e-4
"""Relative difference from which on a score is not the weighted sum of its parts."""

_UNLIKE_THE_BINARY: Mapping[str, str] = {"criterion": "ctc"}
"""Defaults that the binary takes from its model file."""


def decoder_flags(flags: Mapping[str, str]) -> DecoderFlags:
    """Return the typed decoder flags among ``flags`` with the binary's defaults for the rest.

    Raises:
        FlagError: A value does not fit.
        UsageError: What any decoder needs is missing.
    """
    values: dict[str, Any] = {}
    for name in sorted(DECODER_FLAGS):
        if name in OUR_FLAGS:
            values[name] = flags.get(name, "")
            continue
        spec = KNOWN_FLAGS[name]
        text = flags.get(name, _UNLIKE_THE_BINARY.get(name, spec.default))
        values[name] = typed_value(spec, text)
    result = DecoderFlags(**values)
    _check(result, flags)
    return result


def spelled_out(flags: Mapping[str, str]) -> dict[str, str]:
    """Return the flags with those of the search that are not given, at the binary's defaults.

    Where its command line is silent, the binary takes what its model file stores.

    Args:
        flags: Of a trial.
    """
    return {name: KNOWN_FLAGS[name].default for name in sorted(OF_THE_SEARCH)} | dict(flags)


def _check(flags: DecoderFlags, given: Mapping[str, str]) -> None:
    _one_of("criterion", flags.criterion, CRITERIA, "the decoders know")
    _one_of("decodertype", flags.decodertype, ("wrd", "tkn"), "the decoders know")
    _one_of("smearing", flags.smearing, ("none", "max", "logadd"), "the decoders know")
    for name in ("beamsize", "beamsizetoken"):
        if getattr(flags, name) < 1:
            raise FlagError(f"--{name}={getattr(flags, name)}: must be 1 or more")
    if not flags.beamthreshold > 0:
        raise FlagError(f"--beamthreshold={flags.beamthreshold}: must be above 0")
    for name in ("lmweight", "wordscore", "silscore"):
        if not math.isfinite(getattr(flags, name)):
            raise FlagError(f"--{name}={given.get(name)}: must be a finite number")
    if flags.unkscore == math.inf:
        raise FlagError("--unkscore=inf: must be a finite number, or -inf")
    if not flags.tokens:
        raise UsageError(
            "no --tokens: give the token list that the acoustic model was trained with"
        )
    if flags.uselexicon and not flags.lexicon:
        raise UsageError("no --lexicon: give one, or --uselexicon=false --decodertype=tkn")
    if not flags.uselexicon and flags.word_lm:
        raise UsageError(
            "--uselexicon=false needs --decodertype=tkn: a word LM cannot score without a lexicon"
        )


def refuse_in_process(flags: DecoderFlags) -> None:
    """Refuse what only the binary can decode.

    Raises:
        UsageError: With what it is; also a FlagError.
    """
    _one_of("criterion", flags.criterion, ("ctc", "asg"), "the embedded decoder knows")
    if flags.lm and flags.lmtype != "kenlm":
        raise FlagError(
            f"--lmtype={flags.lmtype}: the embedded decoder knows kenlm only; "
            "give --binary to decode with another LM"
        )
    if flags.criterion == "asg" and not flags.transitions:
        raise UsageError(
            "--criterion=asg needs --transitions=FILE.npy [tokens, tokens] in process; "
            "else give --binary"
        )


def why_not_in_process(flags: DecoderFlags) -> str:
    """Return why only the binary can decode with these flags, or ""."""
    try:
        refuse_in_process(flags)
    except UsageError as error:
        return str(error).partition(";")[0]
    return ""


def _one_of(name: str, value: str, known: Sequence[str], who: str) -> None:
    if value not in known:
        raise FlagError(f"--{name}={value}: {who} {', '.join(known)}{did_you_mean(value, known)}")


def dead_weights(flags: DecoderFlags, token_names: Sequence[str]) -> dict[str, str]:
    """Return the weights that change nothing with these flags, each with the reason.

    Sweeping one of them is a mistake: it adds a dimension in which nothing happens.

    Args:
        flags: The decoder's flags; ``lmweight`` and the like are not looked at.
        token_names: The tokens of the model, without the blank.
    """
    dead = {}
    if flags.criterion in ("ctc", "asg"):
        dead["eosscore"] = f"--criterion={flags.criterion} has no end-of-sentence score"
    if not flags.lm:
        dead["lmweight"] = "there is no --lm"
    if not flags.uselexicon:
        dead["wordscore"] = "a lexicon-free decoder has no word score"
        dead["unkscore"] = "a lexicon-free decoder has no unknown words"
    if flags.wordseparator not in token_names:
        dead["silscore"] = f"the word separator {flags.wordseparator!r} is not a token"
    return dead


def feature_weights(flags: DecoderFlags) -> tuple[float, float, float, float, float]:
    """Return what the features of an n-best list are multiplied with; see ``formats.nbest``.

    A lexicon-free decoder has neither word score nor unknown words, and an unknown word at the
    score of minus infinity is never in a hypothesis.
    """
    unkscore = flags.unkscore if math.isfinite(flags.unkscore) else 0.0
    if not flags.uselexicon:
        return 1.0, flags.lmweight, 0.0, 0.0, flags.silscore
    return 1.0, flags.lmweight, flags.wordscore, unkscore, flags.silscore


def is_linear(entry: Hypothesis, flags: DecoderFlags) -> bool:
    """Whether a score is the weighted sum of its parts, so that other weights can be tried."""
    unknown, frames = entry.unknown_words, entry.silence_frames
    parts = (entry.am_score, entry.lm_score, len(entry.words), unknown, frames)
    total = sum(w * part for w, part in zip(feature_weights(flags), parts, strict=True))
    return abs(entry.score - total) <= LINEAR * max(1.0, abs(entry.score))
