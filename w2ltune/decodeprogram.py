"""The programs of a decode sweep: which one decodes, and which one writes the emissions.

With ``--am`` and no ``--emission_dir`` the Test program writes the emissions once. Where the
decoder in process gives the words and scores of ``--binary``, which is tried on a sample, it
decodes; the binary is for what it cannot do.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from w2ltune.binaryrules import check_binary, check_decoder, check_name, dictionary, generation_of
from w2ltune.embedded.decoderfiles import read_tokens
from w2ltune.embedded.decoderflags import (
    OF_THE_MODEL,
    OF_THE_SEARCH,
    DecoderFlags,
    decoder_flags,
    refuse_in_process,
    why_not_in_process,
)
from w2ltune.errors import InputError, UsageError, existing_file
from w2ltune.formats.checkpoint import read_header, read_whole
from w2ltune.formats.known_flags import KNOWN_FLAGS, Generation, number_of, typed_value
from w2ltune.formats.spelling import PIECE_BEGIN, piece_mark
from w2ltune.idleflags import refuse_unmet
from w2ltune.listcheck import check_words, read_content
from w2ltune.runs.provenance import Fingerprint, read_request
from w2ltune.search.decodespace import example_flags, split_auto
from w2ltune.search.space import ANCESTOR_RANGES, SearchSpace
from w2ltune.sweepoptions import SweepOptions
from w2ltune.trials.dataset import DecodeProgram
from w2ltune.trials.emissionsource import EmissionSource, NoAudioError, content_of, role_of
from w2ltune.trials.testprogram import find_test_program


def decode_program(options: SweepOptions, fixed: Mapping[str, str]) -> DecodeProgram | None:
    """Return the binary that ``--binary`` names; None without one."""
    if options.binary is None:
        if options.decoder == "binary":
            raise UsageError("--decoder=binary: which? give it, as --binary=…/fl_asr_decode")
        return None
    path = check_binary(options.binary)
    return DecodeProgram(
        path=str(path),
        generation=_generation(options, path),
        am=_absolute(fixed.get("am", "")),
        folder=str(Path.cwd()),
    )


def _generation(options: SweepOptions, path: Path) -> Generation:
    if options.generation:
        return "wav2letter" if options.generation == "wav2letter" else "flashlight"
    return generation_of(path)


def _absolute(path: str) -> str:
    return os.path.abspath(path) if path else ""  # noqa: PTH100 (links are the user's own)


def settle_flags(
    options: SweepOptions, space: SearchSpace
) -> tuple[SearchSpace, Mapping[str, str], DecoderFlags, DecodeProgram | None, str]:
    """Return what a command's flags come to.

    Args:
        options: Of the command.
        space: Its flags.

    Returns:
        The space with the flags of the acoustic model, the beam flags that are ``auto`` with their
        first values, the flags of a trial, the binary, and why it has to decode, or "".

    Raises:
        W2LTuneError: A flag is wrong, or there is no decoder that could do it.
    """
    program = decode_program(options, space.fixed)
    is_started = program is not None and options.decoder != "process"
    _check_model(space.fixed.get("am", ""), options, program, loaded=is_started)
    refuse_unmet(space.fixed)
    space, auto = split_auto(with_piece_flags(with_model_flags(space)))
    flags = decoder_flags(example_flags(space))
    by_binary = must_be_binary(options, flags)
    if by_binary and program is None:
        refuse_in_process(flags)
    if program is not None and is_started:
        example = example_flags(space)
        check_decoder(flags, example, program.generation, by_binary=bool(by_binary))
    return space, auto, flags, program, by_binary


def _check_model(
    am: str, options: SweepOptions, program: DecodeProgram | None, *, loaded: bool
) -> None:
    """Refuse what is no model of flashlight; where a program loads it, also one that is cut."""
    generation = options.generation if program is None else program.generation
    if am and generation != "wav2letter":
        model = existing_file(am, "acoustic model (--am)")
        if loaded:
            read_whole(model, resumed=False)
        else:
            read_header(model)


def must_be_binary(options: SweepOptions, flags: DecoderFlags) -> str:
    """Return why the binary has to decode, or "" where the decoder in process may."""
    if options.decoder == "binary":
        return "--decoder=binary"
    reason = why_not_in_process(flags)
    if reason and options.decoder == "process":
        raise UsageError(f"--decoder=process: {reason}")
    return reason


def with_model_flags(space: SearchSpace) -> SearchSpace:
    """Add the decoder flags of the acoustic model that the command leaves out, as the binary does.

    The model files of wav2letter cannot be read here: theirs are to be given.
    """
    am = space.fixed.get("am")
    if not am:
        return space
    existing_file(am, "acoustic model (--am)")
    try:
        stored = read_header(am).flags
    except InputError:
        return space
    given = {*space.fixed, *space.distributions}
    if not space.distributions and space.script is None:
        given |= ANCESTOR_RANGES.keys()  # which are searched then
    own = {
        name: value
        for name, value in stored.items()
        if name not in given
        and (
            (name in OF_THE_MODEL and value) or (name in OF_THE_SEARCH and _is_special(name, value))
        )
    }
    return replace(space, fixed={**own, **space.fixed})


def _is_special(name: str, text: str) -> bool:
    """Whether a stored flag of the search is another than the binary's default."""
    spec = KNOWN_FLAGS[name]
    return typed_value(spec, text) != typed_value(spec, spec.default)


def with_piece_flags(space: SearchSpace) -> SearchSpace:
    """Add the flags of word pieces, and of letters with a ``▁`` between words, where none is given.

    Without them the decoders take all words of an utterance for one where they join tokens.
    """
    fixed = space.fixed
    if not fixed.get("tokens"):
        return space
    path = Path(fixed.get("tokensdir", ""), fixed["tokens"])
    names = read_tokens(path)
    mark = piece_mark(names)
    pieces = any(name != mark and PIECE_BEGIN in (name[0], name[-1]) for name in names)
    if mark in (PIECE_BEGIN, "_") and (pieces or "|" not in names):
        given = {**fixed, **space.distributions}
        own = {"wordseparator": mark, "usewordpiece": "true"}
        return (
            replace(space, fixed={**own, **fixed})
            if given.get("wordseparator", mark) == mark
            else space
        )
    if mark not in ("", PIECE_BEGIN) and fixed.get("uselexicon") == "false":
        raise InputError(
            f"word pieces marked by {mark!r}, which the decoders cannot join without a lexicon; "
            "write the tokens with '▁' at the edges of words, as w2ltune emissions does",
            path=path,
        )
    return space


def piece_note(given: Mapping[str, str], flags: DecoderFlags, tokens: Sequence[str]) -> str:
    """Return what word pieces mean for a sweep that was given some flags; "" for letters."""
    if flags.usewordpiece and "usewordpiece" not in given:
        taken = f"--wordseparator={flags.wordseparator} --usewordpiece=true"
        return f"the tokens are word pieces: {taken}"
    mark = piece_mark(tokens)
    if mark in ("", PIECE_BEGIN, "_"):
        return ""
    return (
        f"the tokens are word pieces marked by {mark!r}: the lexicon makes words of them, the "
        "greedy line does not (w2ltune emissions writes them with '▁')"
    )


def emission_sources(options: SweepOptions, fixed: Mapping[str, str]) -> tuple[EmissionSource, ...]:
    """Return how the emissions of each list are made; nothing where ``--emission_dir`` has them."""
    if fixed.get("emission_dir"):
        return ()
    am = fixed.get("am")
    if not am:
        raise UsageError(
            "no --emission_dir: give the emissions of the list (a .npz file, or the folder that "
            "fl_asr_test --emission_dir wrote), or --am=MODEL.bin with --binary, and they are made"
        )
    model = existing_file(am, "acoustic model (--am)")
    program, generation = _test_program(options)
    stored = read_whole(model, resumed=False).flags if generation == "flashlight" else None
    names = [name for name in (fixed.get("test", "") + "," + options.heldout).split(",") if name]
    if not fixed.get("test"):
        raise UsageError("no --test: name the data list to tune on, as in --test=dev.lst")
    flags = {name: fixed[name] for name in ("tokens", "tokensdir", "lexicon") if name in fixed}
    inputs = [model, Path(program)]
    if flags.get("tokens"):
        tokens = Path(flags.get("tokensdir", ""), flags["tokens"])
        inputs.append(existing_file(tokens, "token list (--tokens)"))
    if flags.get("lexicon"):
        inputs.append(existing_file(flags["lexicon"], "lexicon (--lexicon)"))
    folder = str(Path.cwd())
    cache = Path(_absolute(str(options.emission_cache or options.folder / "emissions")))

    def source(path: Path, content: Fingerprint) -> EmissionSource:
        return EmissionSource(
            program=program,
            generation=generation,
            am=_absolute(am),
            path=path,
            folder=folder,
            flags=flags,
            cache=cache,
            content=content,
            gpu=options.gpu > 0,
        )

    sources = []
    for path in (Path(fixed.get("datadir", ""), name) for name in names):
        try:
            sources.append(source(path, content_of(path, inputs, folder)))
        except NoAudioError:  # which decoding in process does without
            earlier = read_request(options.folder / "sweep.json")
            known = None if earlier is None else earlier.inputs.get(role_of(path))
            if known is None or not source(path, known).whole():
                raise
            sources.append(source(path, known))
    if stored is not None:
        _check_test({**stored, **flags}, [source.path for source in sources if not source.whole()])
    return tuple(sources)


def _check_test(flags: Mapping[str, str], lists: Sequence[Path]) -> None:
    """Refuse what fl_asr_test would end of, with its model's flags and those that it is given."""
    if not flags.get("lexicon"):
        raise UsageError("no --lexicon, and none in the model: fl_asr_test ends without one")
    if problem := check_name("features_type", flags.get("features_type", "mfsc"), "flashlight"):
        raise UsageError(f"--features_type={flags['features_type']}, of the model: {problem}")
    tokens = existing_file(flags.get("tokens", ""), "token list (--tokens, or the model's)")
    lexicon = existing_file(flags["lexicon"], "lexicon (--lexicon, or the model's)")
    names = dictionary(flags, tokens, "flashlight")
    check_words(
        [read_content(path, audio=False) for path in lists],
        lexicon,
        names,
        skips_letters=True,
        separator=flags.get("wordseparator", ""),
        maxword=int(number_of("maxword", flags)),
    )


def _test_program(options: SweepOptions) -> tuple[str, Generation]:
    if options.test_binary is None and options.binary is None:
        raise UsageError(
            "--am without --emission_dir: name the program that writes the emissions, as "
            "--test_binary=…/fl_asr_test, or the decoder beside it, as --binary=…/fl_asr_decode"
        )
    decoder = Path() if options.binary is None else check_binary(options.binary)
    program = find_test_program(
        options.test_binary,
        decoder=decoder,
        generation="flashlight" if options.binary is None else _generation(options, decoder),
        needed_for="--am without --emission_dir",
    )
    return program, _generation(options, Path(program))
