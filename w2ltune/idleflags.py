"""Flags of the programs that a decode sweep does not use: each kind is said in one line."""

from __future__ import annotations

from collections.abc import Collection, Mapping

from w2ltune.embedded.decoderflags import DECODER_FLAGS, DecoderFlags, dead_weights
from w2ltune.errors import InputError, UsageError
from w2ltune.formats.checkpoint import read_header
from w2ltune.formats.known_flags import KNOWN_FLAGS, Generation, number_of, typed_value

_FEATURES = (
    *("samplerate", "channels", "features_type", "mfcccoeffs", "melfloor", "filterbanks"),
    *("devwin", "framesizems", "framestridems", "lowfreqfilterbank", "highfreqfilterbank"),
    *("localnrmlleftctx", "localnrmlrightctx", "mfcc", "mfsc", "pow"),
)
_KINDS: Mapping[str, Collection[str]] = {
    "a sweep keeps no files of the program; --dump writes all hypotheses of the answer": (
        *("isbeamdump", "sclite"),
    ),
    "a sweep shows no single utterance; --dump writes all hypotheses of the answer": (
        *("show", "showletters"),
    ),
    "w2ltune decodes on all cores that it has (--cores)": (
        *("nthread", "nthread_decoder", "nthread_decoder_am_forward", "emission_queue_size"),
    ),
    "w2ltune keeps its own log": (
        *("logtostderr", "alsologtostderr", "log_dir", "minloglevel", "stderrthreshold", "v"),
        *("vmodule", "fl_log_level", "fl_vlog_level", "fl_log_mem_ops_interval"),
    ),
    "the emissions are made as the model was trained": _FEATURES,
}
_TAKEN = DECODER_FLAGS | {"am", "emission_dir", "test", "datadir", "flagsfile", "flagfile"}


def refuse_unmet(given: Mapping[str, str]) -> None:
    """Refuse flags by which the program would give other numbers than a sweep."""
    if number_of("maxload", given) > 0:
        raise UsageError(
            f"--maxload={given['maxload']}: a sweep decodes its whole list; make a shorter one, as "
            f"by head -n {given['maxload']} dev.lst > part.lst"
        )
    if not given.get("am") or given.get("emission_dir"):
        return
    try:
        stored = read_header(given["am"]).flags
    except InputError:  # of wav2letter
        return
    for name in _FEATURES:
        if name in given and name in stored and _value(name, given) != _value(name, stored):
            raise UsageError(
                f"--{name}={given[name]}: the emissions are made as the model was trained, with "
                f"--{name}={stored[name]}; leave it out"
            )


def idle_flags(
    given: Mapping[str, str],
    flags: DecoderFlags,
    tokens: Collection[str],
    *,
    generation: Generation | None,
    by_binary: bool,
) -> list[str]:
    """Return a line for each kind of flags that have no effect, and why.

    Args:
        given: The user's flags with one value.
        flags: Of the decoder, typed.
        tokens: The tokens of the model.
        generation: Of the program, which does not get what only the other one knows.
        by_binary: The program decodes, and is given what it alone knows.
    """
    left = {
        name: f"--{name}={value}"
        for name, value in given.items()
        if name not in _TAKEN
        and (name not in KNOWN_FLAGS or _value(name, given) != _value(name, {}))
    }
    lines = []
    for reason, names in _KINDS.items():
        if found := [left.pop(name) for name in names if name in left]:
            lines.append(f"{', '.join(found)}: not used; {reason}")
    for name, reason in dead_weights(flags, list(tokens)).items():
        if name in given and _value(name, given) != _value(name, {}):
            left.pop(name, None)
            lines.append(f"--{name}={given[name]}: not used; {reason}")
    if flags.criterion != "asg" and given.get("transitions"):
        lines.append(f"--transitions={given['transitions']}: not used; it is for --criterion=asg")
    for name in [n for n in left if n in KNOWN_FLAGS and generation]:
        if generation not in (having := KNOWN_FLAGS[name].generations):
            lines.append(f"{left.pop(name)}: not used; only {having[0]} has it")
    if left and not by_binary:
        lines.append(f"{', '.join(left.values())}: no effect in this sweep")
    return lines


def _value(name: str, flags: Mapping[str, str]) -> bool | int | float | str:
    spec = KNOWN_FLAGS[name]
    return typed_value(spec, flags.get(name, spec.default))
