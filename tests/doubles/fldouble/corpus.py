"""What a training reads: lists, tokens, lexicon, architecture; and what is wrong with them."""

from __future__ import annotations

import os
import signal
import zlib
from pathlib import Path
from typing import NamedTuple

from fldouble.flags import Flags
from fldouble.log import CppError, die_with_trace

UNKNOWN = "<unk>"

LAYERS = (
    " A AC AP BN C C1 C2 CFR D DIL DO E ELU GLU GRU HT L LG LN LSM LSTM M MP P PADB PD PR R R6 RES"
    " RNN RO SAUG SKIP SKIPL SM T TDS TR V VD WN POSEMB SH SWISH HSWISH "
)


class Sample(NamedTuple):
    """One row of a list."""

    id: str
    audio: str
    milliseconds: float
    words: tuple[str, ...]

    @property
    def letters(self) -> str:
        """The target: letters, with the word separator between words."""
        return "|".join(self.words)


def read_lists(datadir: str, lists: str) -> list[Sample]:
    """Return the samples of comma-separated list files, each below ``datadir``.

    Raises:
        CppError: A file is missing or a row has fewer than 3 columns.
    """
    paths = [join(datadir, name) for name in lists.split(",") if name]
    return [sample for path in paths for sample in _read_list(path)]


def split_words(text: str) -> list[str]:
    """Split as C++'s isspace does: str.split() also splits at a no-break space."""
    return [word.decode() for word in text.encode().split()]


def _read_list(path: str) -> list[Sample]:
    try:
        lines = Path(path).read_text(encoding="utf-8").split("\n")
    except OSError:
        raise CppError("std::invalid_argument", f"Unable to open file -{path}") from None
    samples = []
    for line in filter(None, lines):
        columns = split_words(line)
        if len(columns) < 3:
            reason = "has invalid columns in line (expected 3 columns at least)"
            raise CppError("std::runtime_error", f"File {path} {reason}: {line}")
        try:
            milliseconds = float(columns[2])
        except ValueError:
            raise CppError("std::invalid_argument", "stod") from None
        samples.append(Sample(columns[0], columns[1], milliseconds, tuple(columns[3:])))
    return samples


def shuffled(samples: list[Sample], seed: int, epoch: int) -> list[Sample]:
    """Return the samples in the order of that epoch."""
    return sorted(samples, key=lambda sample: zlib.crc32(f"{seed} {epoch} {sample.id}".encode()))


def open_audio(samples: list[Sample]) -> None:
    """Touch the audio files of a batch.

    Raises:
        CppError: One is missing, or is a web page.
    """
    for sample in samples:
        if not os.access(sample.audio, os.R_OK):
            raise CppError("std::runtime_error", f"could not open file for read {sample.audio}")
        with Path(sample.audio).open("rb") as file:
            if file.read(1) == b"<":  # a web page; other content is good enough for a test
                why = "loadSoundInfo: unknown format or could not open stream"
                raise CppError("std::runtime_error", why)


def read_tokens(flags: Flags) -> list[str]:
    """Return the tokens, and those that the program adds: for repetitions, and by the criterion.

    Raises:
        CppError: There is no tokens file, or a token comes twice.
    """
    path = join(_folder(flags, "tokensdir"), flags["tokens"])
    try:
        tokens = split_words(Path(path).read_text(encoding="utf-8"))
    except OSError:
        text = f'Invalid dictionary filepath specified with  --tokens: "{path}"'
        raise CppError("std::runtime_error", text) from None
    for token in tokens:
        if tokens.count(token) > 1:
            raise CppError("std::invalid_argument", f"Duplicate entry name in dictionary '{token}'")
    is_wav2letter = "eostoken" in flags.values
    form = "{}" if is_wav2letter else "<{}>"
    added = [form.format(count) for count in range(1, flags["replabel"] + 1)]
    added += ["#"] * (flags["criterion"] == "ctc")
    added += ["$", "<pad>"] * (flags["criterion"] in ("s2srnn", "s2stransformer"))
    added += ["$"] * (is_wav2letter and flags["eostoken"])
    for token in added:
        if token in tokens:
            raise CppError("std::invalid_argument", f"Duplicate entry in dictionary '{token}'")
        tokens.append(token)
    return tokens


def load_words(flags: Flags) -> dict[str, list[list[str]]]:
    """Return the spellings by word; ``<unk>``, the last one, has none. Without --lexicon: nothing.

    Raises:
        CppError: There is no such file, or a line is not a word and a spelling.
    """
    lexicon: dict[str, list[list[str]]] = {}
    if not flags["lexicon"]:
        return lexicon
    lines = iter(_lines(flags["lexicon"]))
    while len(lexicon) != flags["maxword"] and (line := next(lines, None)) is not None:
        entries = split_words(line)
        if len(entries) < 2:
            raise CppError("std::runtime_error", f"[loadWords] Invalid line: {line}")
        lexicon.setdefault(entries[0], []).append(entries[1:])
    lexicon.pop(UNKNOWN, None)
    return {**lexicon, UNKNOWN: []}


def spell_targets(
    samples: list[Sample],
    flags: Flags,
    tokens: list[str],
    lexicon: dict[str, list[list[str]]],
) -> None:
    """Make the targets of utterances, as their features are made.

    Raises:
        CppError: A word is in no dictionary, for want of a lexicon, or a token is in none.
    """
    surround = flags["surround"]
    for sample in samples:
        spelled = [_spelling(word, flags, tokens, lexicon) for word in sample.words]
        target = [token for spelling in spelled for token in spelling]
        for token in target + [surround] * bool(surround):
            if token not in tokens:
                text = f"Unknown entry in dictionary: '{token}'"
                raise CppError("std::invalid_argument", text)
        if sample.words and not lexicon:
            text = f"Unknown entry in dictionary: '{sample.words[0]}'"
            raise CppError("std::invalid_argument", text)


def _spelling(
    word: str, flags: Flags, tokens: list[str], lexicon: dict[str, list[list[str]]]
) -> list[str]:
    if word in lexicon:
        if not lexicon[word]:  # <unk>: the first of no spellings
            die_with_trace(signal.SIGSEGV)
        return lexicon[word][0]
    letters = [letter for letter in word if letter in tokens]
    separator = flags["wordseparator"]
    if not separator or "eostoken" in flags.values:  # wav2letter has it between words only
        return letters
    return [separator, *letters] if flags["usewordpiece"] else [*letters, separator]


def require_unknown(lexicon: dict[str, list[list[str]]]) -> None:
    """Look up the number of the unknown word, which pads the words of an utterance.

    Raises:
        CppError: There is no lexicon.
    """
    if not lexicon:
        raise CppError("std::invalid_argument", f"Unknown entry in dictionary: '{UNKNOWN}'")


def check_features(flags: Flags) -> None:
    """Look up the kind of features.

    Raises:
        CppError: There is none of that name; mfcc is looked for under another one's.
    """
    if flags.values.get("features_type", "raw") not in ("mfsc", "pow", "raw"):
        text = "Unsupported feature type for audio preprocessing '"
        raise CppError("std::runtime_error", f"{text}{flags['features_type']}'")


def read_architecture(flags: Flags) -> list[str]:
    """Return the layers of the architecture file, one text each.

    Raises:
        CppError: There is no such file, or a line names no layer.
    """
    layers = [line.strip() for line in _lines(architecture_path(flags))]
    layers = [line for line in layers if line and not line.startswith("#")]
    for line in layers:
        if f" {line.split()[0]} " not in LAYERS:
            raise CppError("std::invalid_argument", f"Failed parsing - {line}")
    return layers


def architecture_path(flags: Flags) -> str:
    """Return the path of the architecture file."""
    return join(_folder(flags, "archdir"), flags["arch"])


def join(folder: str, name: str) -> str:
    """Put a path together; an absolute ``name`` is put below ``folder`` as well."""
    return f"{folder.rstrip('/')}/{name}" if folder and name else folder + name


def _folder(flags: Flags, name: str) -> str:
    """The value of a folder flag that only wav2letter v0.2 has."""
    return str(flags[name]) if name in flags.values else ""


def _lines(path: str) -> list[str]:
    try:
        content = Path(path).read_bytes().decode("utf-8")
    except OSError:
        text = f"Failed to open file for reading: {path}"
        raise CppError("std::runtime_error", text) from None
    return content.removesuffix("\n").split("\n") if content else []
