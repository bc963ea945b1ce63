"""What can be known of a training before it starts: a missing file costs a second, not a queue.

The binaries abort where they meet a missing file, hang on an empty training list, crash after the
first epoch on an empty validation list, and try for half a minute to load what is no model.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from w2ltune.binaryrules import check_name, check_together, dictionary
from w2ltune.embedded.decoderfiles import check_lm_head, dictionary_of, unknown_spelling
from w2ltune.errors import FlagError, InputError, UsageError, existing_file
from w2ltune.formats.blanks import split_words
from w2ltune.formats.distributions import Choice, parse_value
from w2ltune.formats.flagsfile import Flag
from w2ltune.formats.known_flags import KNOWN_FLAGS, Generation, check_flag, number_of
from w2ltune.listcheck import ListContent, check_words, joined_path, overlap_notes, read_content
from w2ltune.trials.trainjob import Mode

_OURS = {
    **dict.fromkeys(("rundir", "runname", "tag"), "w2ltune gives the run directory"),
    **dict.fromkeys(
        ("enable_distributed", "world_rank", "world_size", "max_devices_per_node", "rndv_filepath"),
        "w2ltune gives it according to --ngpu",
    ),
}
_ABOVE_ZERO = ("lr", "iter", "batchsize")
_TOGETHER = (
    *("criterion", "linseg", "pretrainWindow", "lm", "decodertype", "lmtype", "everstoredb"),
    *("attention", "attnWindow"),
)
_OF_TOKENS = ("criterion", "replabel", "eostoken", "surround")
_FILES = {"am": "acoustic model", "lm_vocab": "words of the LM", "sfx_config": "sound effects"}
_RESERVED_TAGS = {
    "train": "the log has train-loss and train-WER of the training itself",
    "last": "the best model of the list and the newest checkpoint would be one file",
}


def check_training(
    flags: Mapping[str, str],
    *,
    mode: Mode,
    generation: Generation,
    embedded: bool,
    where: Mapping[str, Flag] | None = None,
    extra_known: Collection[str] = (),
) -> list[str]:
    """Check the flags of a training and the files that they name.

    A flag may have a distribution: each choice and both ends of a range are checked. What
    ``continue`` and ``fork`` find in their model need not be given.

    Args:
        flags: The values by name, as they are in effect.
        mode: How the program is to be started.
        generation: Of the program.
        embedded: It is w2ltune's own trainer, which learns from features, not from audio.
        where: The flags as they were given, for messages.
        extra_known: Names that are right although no binary has them.

    Returns:
        Notes worth printing.

    Raises:
        FlagError: A name is unknown, or a value does not fit.
        UsageError: A flag is missing, or two do not go together.
        InputError: A file is missing, empty or wrong.
    """
    given = {
        name: replace((where or {}).get(name) or Flag(name=name, value=value), value=value)
        for name, value in flags.items()
    }
    own = _check_embedded(given) if embedded else ()
    for flag in given.values():
        check_flag(flag, extra_known=[*extra_known, *own], generation=generation)
    _require(given, mode, embedded)
    for name in _ABOVE_ZERO:
        for value in _values(given, name):
            if not 0 < number_of(name, {name: value}) < math.inf:
                raise _flag_error(given[name], f"{value} must be above 0")
    for name in [name for name in given if name not in extra_known]:
        for value in _values(given, name):
            if problem := check_name(name, value, generation):
                raise _flag_error(given[name], problem)
    if not embedded:
        for chosen in _combinations(given, _TOGETHER):
            known = {"criterion": KNOWN_FLAGS["criterion"].default} if mode == "train" else {}
            check_together({**known, **chosen}, generation, mode)
    tokens = _check_model_files(given, mode, generation, embedded)
    train, valid = _read_lists(given, embedded)
    notes = [
        f"--{name} ({given[name].where}) is not used: {reason}"
        for name, reason in _OURS.items()
        if name in given
    ]
    notes += overlap_notes(train, valid)
    notes += _check_lexicons(given, mode, generation, embedded, [*train, *valid], tokens)
    return list(dict.fromkeys(notes))


def valid_sets(text: str) -> dict[str, str]:
    """Return the lists of ``--valid`` by their tags, in the order given.

    Args:
        text: ``tag:file,tag2:file2``; a file without a tag is its own tag.

    Raises:
        UsageError: A tag is empty, given twice, or taken by the program itself.

    Example:
        >>> valid_sets("dev:dev-clean.lst,dev-other.lst")
        {'dev': 'dev-clean.lst', 'dev-other.lst': 'dev-other.lst'}
    """
    found: dict[str, str] = {}
    for entry in filter(None, text.split(",")):
        tag, *rest = entry.split(":")
        file = rest[0] if rest else tag
        if len(rest) > 1 or not tag or not file or (tag + file) != "".join(split_words(tag + file)):
            raise UsageError(f"--valid={text}: {entry!r} is not tag:file (no blanks, one colon)")
        if tag in _RESERVED_TAGS:
            raise UsageError(f"--valid={text}: no tag may be {tag!r}: {_RESERVED_TAGS[tag]}")
        if tag.replace("/", "#") in (other.replace("/", "#") for other in found):
            raise UsageError(f"--valid={text}: the tag {tag!r} is given twice; name them apart")
        found[tag] = file
    return found


def _values(given: Mapping[str, Flag], name: str) -> list[str]:
    """Return all values to check of a flag: its value, its choices, or the ends of its range."""
    if name not in given:
        return []
    flag = given[name]
    value = parse_value(flag.value, flag=name, path=flag.path, line=flag.line)
    if isinstance(value, str):
        return [value] if value else []
    return list(value.choices) if isinstance(value, Choice) else [str(value.low), str(value.high)]


def _combinations(given: Mapping[str, Flag], names: Sequence[str]) -> Iterator[dict[str, str]]:
    """Yield what some flags can be together; those that are not given are left out."""
    known = [name for name in names if name in given]
    for values in itertools.product(*(_values(given, name) or [""] for name in known)):
        yield dict(zip(known, values, strict=True))


def _flag_error(flag: Flag, problem: str) -> FlagError:
    return FlagError(f"--{flag.name}={flag.value}: {problem}", path=flag.path, line=flag.line)


def _require(given: Mapping[str, Flag], mode: Mode, embedded: bool) -> None:
    """Refuse what is left out; a model that is continued or forked brings flags of its own."""
    wanted = {
        "train": "the training lists, as in --train=train.lst",
        "valid": "what the best model is chosen by, as in --valid=dev:dev.lst",
        "tokens": "the token list, as in --tokens=tokens.txt",
        "lexicon": "one (without it the program ends at its first utterance: Unknown entry in "
        "dictionary)",
    }
    if embedded:
        wanted["features_dir"] = "the folder of features (w2ltune's own trainer reads no audio)"
    else:
        wanted["arch"] = "the network, as in --arch=network.arch"
    for name, what in wanted.items():
        if not given[name].value if name in given else mode == "train":
            raise UsageError(f"no --{name}: give {what}, in the config or in --extra")


def _check_embedded(given: Mapping[str, Flag]) -> Collection[str]:
    """Check the values that act in w2ltune's own trainer; return the flags that only it has."""
    from w2ltune.embedded.trainflags import FLAGS, OUR_FLAGS, train_flags  # loads numpy

    values = {name: _values(given, name) for name in given if name in FLAGS and name not in _OURS}
    defaults = {name: spec.default for name, spec in FLAGS.items()}
    # Whether they are given: see _require.
    defaults |= dict.fromkeys(("tokens", "lexicon", "features_dir"), "-")
    for name, choices in values.items():
        for choice in choices:
            try:
                train_flags({**defaults, "criterion": "ctc", name: choice})
            except FlagError as error:
                flag = given[name]
                raise FlagError(str(error), path=flag.path, line=flag.line) from None
    train_flags(defaults | {name: choices[0] for name, choices in values.items() if choices})
    return OUR_FLAGS


def _existing(given: Mapping[str, Flag], name: str, path: str, what: str) -> Path:
    """Return a file that is named by a flag and not empty."""
    source = given[name].path and f" of {given[name].where}"
    what = f"{what} (--{name}{source or ''})"
    found = existing_file(path, what)
    if found.stat().st_size == 0:
        raise InputError(f"{what}: {path!r} is empty")
    return found


def _check_model_files(
    given: Mapping[str, Flag], mode: Mode, generation: Generation, embedded: bool
) -> frozenset[str]:
    """Check the files that make the model; return the names of the tokens, or none if unknown."""

    def folder(name: str) -> str:
        old = generation == "wav2letter" and name in given
        return given[name].value if old else ""

    tokens: set[str] = set()
    for value in _values(given, "tokens"):
        path = _existing(given, "tokens", joined_path(folder("tokensdir"), value), "token list")
        for chosen in _combinations(given, _OF_TOKENS):
            if "criterion" in chosen or mode == "train":
                tokens |= dictionary(chosen, path, generation).keys()
            else:
                tokens |= dictionary_of(path, ()).keys()
    if mode == "train" and not embedded:
        for value in _values(given, "arch"):
            _existing(given, "arch", joined_path(folder("archdir"), value), "network")
    for name, what in _FILES.items():
        for value in _values(given, name):
            _existing(given, name, value, what)
    for value in _values(given, "lm"):
        path = _existing(given, "lm", value, "language model")
        if "kenlm" in (_values(given, "lmtype") or ["kenlm"]):
            check_lm_head(path)
    return frozenset(tokens)


def _check_lexicons(
    given: Mapping[str, Flag],
    mode: Mode,
    generation: Generation,
    embedded: bool,
    lists: Sequence[ListContent],
    tokens: Collection[str],
) -> list[str]:
    """Hold the words of all lists against each lexicon, as the program spells them."""
    notes: list[str] = []
    default = KNOWN_FLAGS["wordseparator"].default if mode == "train" else ""  # the model's own
    decodes = generation == "flashlight" and not embedded and any(_values(given, "lm"))
    for chosen in _combinations(given, ("lexicon", "maxword", "wordseparator")):
        lexicon = chosen.get("lexicon")
        path = _existing(given, "lexicon", lexicon, "lexicon") if lexicon else None
        separator = chosen.get("wordseparator", default)
        notes += check_words(
            *(lists, path, tokens),
            skips_letters=not embedded,
            separator=separator if generation == "flashlight" else "",  # wav2letter strips it
            maxword=int(number_of("maxword", chosen)),
            decodes=decodes,
        )
        notes += filter(None, [unknown_spelling(path) if path else ""])
    return notes


def _read_lists(
    given: Mapping[str, Flag], embedded: bool
) -> tuple[list[ListContent], list[ListContent]]:
    """Read all training lists and all validation lists."""
    read: dict[str, ListContent] = {}
    found: dict[str, list[ListContent]] = {"train": [], "valid": []}
    for flag, contents in found.items():
        for text in _values(given, flag):
            split = valid_sets(text).values() if flag == "valid" else filter(None, text.split(","))
            names = list(split)
            if not names:
                raise _flag_error(given[flag], "names no list")
            for folder in _values(given, "datadir") or [""]:
                for name in names:
                    path = str(Path(folder, name)) if embedded else joined_path(folder, name)
                    if path not in read:
                        read[path] = _read_list(given, flag, folder, name, path, embedded)
                    if read[path] not in contents:
                        contents.append(read[path])
    return found["train"], found["valid"]


def _read_list(
    given: Mapping[str, Flag], flag: str, folder: str, name: str, path: str, embedded: bool
) -> ListContent:
    if folder and not Path(path).exists() and Path(name).is_absolute() and Path(name).exists():
        raise InputError(
            f"list (--{flag}): no such file {path!r}: the program puts --datadir={folder} before "
            f"{name} too; write --datadir= with nothing after it, or a path relative to it"
        )
    found = _existing(given, flag, path, "list")
    if embedded:
        for features in _values(given, "features_dir"):
            what = f"features of {name}"
            _existing(given, "features_dir", f"{features}/{found.stem}.npz", what)
    return read_content(found, audio=not embedded)
