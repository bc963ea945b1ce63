"""The programs: of which generation they are, and what they refuse every time.

The latter by their source (flashlight v0.3, wav2letter v0.2): they die of it after the start, after
hours in a queue too, and again at every retry.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterable, Mapping
from pathlib import Path
from types import MappingProxyType

from w2ltune.embedded.decoderfiles import added_tokens, dictionary_of, read_lexicon
from w2ltune.embedded.decoderflags import CRITERIA, DecoderFlags
from w2ltune.errors import FlagError, InputError, UsageError, did_you_mean, nearest_sibling
from w2ltune.formats.known_flags import KNOWN_FLAGS, Generation, number_of
from w2ltune.trials.trainjob import Mode

SEQUENCE_TO_SEQUENCE = CRITERIA[2:]

_OPTIMIZERS = ("sgd", "adam", "rmsprop", "adadelta", "adagrad", "amsgrad", "novograd")
_NAMES: Mapping[str, tuple[str, ...]] = {
    "netoptim": _OPTIMIZERS,
    "critoptim": _OPTIMIZERS,
    "onorm": ("none", "input", "target"),
}
_NAMES_OF: Mapping[Generation, Mapping[str, tuple[str, ...]]] = MappingProxyType(
    {
        "wav2letter": {**_NAMES, "criterion": ("ctc", "asg", "seq2seq", "transformer")},
        "flashlight": {
            **_NAMES,
            "criterion": ("ctc", "asg", "s2srnn", "s2stransformer"),
            "features_type": ("mfsc", "pow", "raw"),
            "batching_strategy": ("none", "dynamic", "rand", "randdynamic"),
            "fl_optim_mode": ("DEFAULT", "O1", "O2", "O3"),
        },
    }
)
_ATTENTIONS = {
    "attention": (
        *("content", "keyvalue", "location", "multi", "multikv", "multisplit", "multikvsplit"),
        *("neural", "neuralloc", "simpleloc"),
    ),
    "attnWindow": ("no", "median", "soft", "softPretrain", "step"),
}
_LOG_LEVELS = ("INFO", "WARNING", "ERROR", "FATAL", "DISABLED")
_OTHER_NAMES = {
    "seq2seq": "s2srnn",
    "transformer": "s2stransformer",
    "s2srnn": "seq2seq",
    "s2stransformer": "transformer",
}


def check_binary(path: Path) -> Path:
    """Return the absolute path of a program that can be started."""
    if path.is_dir():
        programs = [p.name for p in sorted(path.iterdir()) if p.is_file() and os.access(p, os.X_OK)]
        inside = f"; in it are {', '.join(programs[:6])}" if programs else ""
        raise UsageError(f"--binary={path} is a folder; name the program itself{inside}")
    if not path.exists():
        in_path = shutil.which(path) if path.name == str(path) else None
        if in_path is None:
            raise UsageError(f"--binary={path}: no such program{nearest_sibling(path)}")
        path = Path(in_path)
    if not os.access(path, os.X_OK):
        raise UsageError(
            f"--binary={path} may not be executed: chmod +x {path}, or copy it to where you may"
        )
    return Path.cwd() / path


def generation_of(binary: Path) -> Generation:
    """Return the generation of a program by its name: wav2letter v0.2's have no ``fl_asr_``.

    Example:
        >>> generation_of(Path("build/Train")), generation_of(Path("bin/asr/fl_asr_train"))
        ('wav2letter', 'flashlight')
    """
    return "wav2letter" if binary.name in ("Train", "Test", "Decoder") else "flashlight"


def check_name(name: str, value: str, generation: Generation) -> str:
    """Return what is wrong with the value of a flag that is one of some names, or "".

    Args:
        name: The flag; of others nothing is said.
        value: Its value.
        generation: Of the program.

    Example:
        >>> check_name("criterion", "seq2seq", "flashlight")
        "the program knows no 'seq2seq'; it is s2srnn in flashlight"
    """
    names = _NAMES_OF[generation].get(name)
    if names is None or value in names or (name == "fl_optim_mode" and not value):
        return ""
    if name == "features_type" and value == "mfcc":
        return "no release of flashlight can compute mfcc (it aborts); take mfsc, pow or raw"
    if name == "criterion" and value in _OTHER_NAMES:
        hint = f"; it is {_OTHER_NAMES[value]} in {generation}"
    else:
        hint = did_you_mean(value, names) or f"; take one of {', '.join(names)}"
    return f"the program knows no {value!r}{hint}"


def check_together(flags: Mapping[str, str], generation: Generation, mode: Mode | None) -> None:
    """Refuse flags that do not go together in a program."""
    criterion = flags.get("criterion", "")
    if number_of("everstoredb", flags):
        raise UsageError("--everstoredb=true: the programs were published without it; remove it")
    if mode in (None, "continue") or not criterion:
        return
    for name, names in _ATTENTIONS.items() if mode == "train" else ():
        value = flags.get(name, names[0])
        if criterion in SEQUENCE_TO_SEQUENCE and value not in names:
            hint = did_you_mean(value, names) or f"; take one of {', '.join(names)}"
            raise FlagError(f"--{name}={value}: the program knows none of that name{hint}")
    if criterion != "asg" and number_of("linseg", flags) > 0:
        raise UsageError(
            f"--linseg={flags['linseg']} with --criterion={criterion}: the program takes it with "
            "asg only; remove it"
        )
    if criterion not in SEQUENCE_TO_SEQUENCE and number_of("pretrainWindow", flags) > 0:
        raise UsageError(
            f"--pretrainWindow={flags['pretrainWindow']} with --criterion={criterion}: the program "
            "takes it with sequence-to-sequence criteria only; remove it"
        )
    if generation == "flashlight" and flags.get("lm"):
        wanted = {"criterion": "ctc", "decodertype": "wrd", "lmtype": "kenlm"}
        for name, only in wanted.items():
            value = criterion if name == "criterion" else flags.get(name, only)
            if value != only:
                raise UsageError(
                    f"--lm in a training with --{name}={value}: the program decodes in a training "
                    f"with {only} only; leave out --lm"
                )


def dictionary(flags: Mapping[str, str], path: Path, generation: Generation) -> Mapping[str, int]:
    """Return the names of the program's tokens; 0 instead of a line for those it adds itself.

    Args:
        flags: Of the program.
        path: The token list.
        generation: Of the program.

    Raises:
        InputError: A token that the program adds stands in the list too, or the list is damaged.
        UsageError: There is no token of ``--surround``, or none for the end.
    """
    criterion = flags.get("criterion", KNOWN_FLAGS["criterion"].default)
    added = added_tokens(
        criterion,
        replabel=int(number_of("replabel", flags)),
        generation=generation,
        eostoken=bool(number_of("eostoken", flags)),
    )
    names = dictionary_of(path, added)
    if generation == "wav2letter" and criterion in SEQUENCE_TO_SEQUENCE and "$" not in names:
        raise UsageError(
            f"--criterion={criterion} without --eostoken=true: the program looks for a token '$', "
            "and ends of it"
        )
    surround = flags.get("surround", "")
    if surround and surround not in names:
        raise FlagError(
            f"--surround={surround}: is no token of {path}, and the program ends at the first "
            "utterance"
        )
    return names


def check_decoder(
    flags: DecoderFlags, given: Mapping[str, str], generation: Generation, *, by_binary: bool
) -> None:
    """Refuse what the decoder program ends of, whatever the utterances are.

    Args:
        flags: Of the decoder, typed.
        given: All flags, those of the model too.
        generation: Of the program.
        by_binary: It is to decode, so that the lexicon is checked nowhere else.

    Raises:
        UsageError: With what to do; also a FlagError or an InputError.
    """
    for name in ("criterion", "features_type"):
        if problem := check_name(name, given.get(name, ""), generation) if name in given else "":
            raise FlagError(f"--{name}={given[name]}: {problem}")
    check_together(given, generation, None)
    if number_of("emission_queue_size", given) < 1:
        raise UsageError(
            "--emission_queue_size: must be 1 or more; the program would wait for ever"
        )
    if given.get("fl_log_level", "INFO") not in ("", *_LOG_LEVELS):
        known = ", ".join(_LOG_LEVELS)
        raise FlagError(f"--fl_log_level={given['fl_log_level']}: must be one of {known}")
    if not given.get("am") and flags.criterion != "ctc":
        raise UsageError(
            f"--criterion={flags.criterion} without --am: the program has the "
            f"{'transitions' if flags.criterion == 'asg' else 'decoder network'} from the acoustic "
            "model, and crashes without it; give --am=MODEL.bin"
        )
    if not flags.lexicon:
        raise UsageError(
            "no --lexicon: the program ends without one, with --uselexicon=false too; give any "
            "that fits --tokens"
        )
    if flags.lm and flags.lmtype == "convlm" and not given.get("lm_vocab"):
        raise UsageError("--lmtype=convlm without --lm_vocab: give the words of the LM")
    names = dictionary({**given, "criterion": flags.criterion}, flags.tokens_path, generation)
    if flags.wordseparator and flags.wordseparator not in names:
        raise FlagError(
            f"--wordseparator={flags.wordseparator}: is no token of {flags.tokens_path}, and the "
            f"program ends of it{_separator_hint(names)}"
        )
    for line, word, spelling in (
        read_lexicon(Path(flags.lexicon), maxword=flags.maxword) if by_binary else ()
    ):
        if flags.uselexicon and (unknown := [token for token in spelling if token not in names]):
            raise InputError(
                f"token {unknown[0]!r} in the spelling of {word!r} is not in {flags.tokens_path}"
                f"{did_you_mean(unknown[0], names)}",
                path=flags.lexicon,
                line=line,
            )


def _separator_hint(names: Iterable[str]) -> str:
    marked = next((mark for mark in ("▁", "_", "|") if mark in names), "")
    return f"; {marked!r} is one" if marked else "; add it to the token list, as the model has it"
