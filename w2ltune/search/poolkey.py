"""Which n-best lists belong together: those of one model, LM and data, whatever the beam."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path

from w2ltune.embedded.decoderflags import decoder_flags
from w2ltune.errors import InputError, storage_fault
from w2ltune.formats.nbest import NBest, read_nbest
from w2ltune.runs.provenance import Fingerprint, fingerprint
from w2ltune.runs.trialdir import trial_directories
from w2ltune.scoring.nbest import merge
from w2ltune.search.linear import LINEAR_WEIGHTS


def pool_key(
    flags: Mapping[str, str],
    *,
    data: Sequence[str],
    scoring: Mapping[str, str],
    inputs: Mapping[str, Fingerprint],
    programs: Sequence[str] = (),
) -> str:
    """Return a key that two trials share if one's n-best lists tell of the other's.

    Args:
        flags: A trial's flags.
        data: Names among the inputs of lists, emissions and the normalisation, in order.
        scoring: How errors are counted.
        inputs: Fingerprints of all files by path.
        programs: The binary that decodes and its model; none for the decoder in process.
    """
    typed = decoder_flags(flags)
    files = [str(typed.tokens_path), typed.lexicon, typed.lm, typed.transitions]
    content = {
        "files": [_hash(path, inputs) for path in [*files, *data]],
        "decoder": [
            typed.criterion, typed.decodertype, typed.uselexicon, typed.smearing,
            typed.wordseparator, typed.usewordpiece, typed.replabel, typed.surround,
            typed.maxword, typed.logadd,
        ],
        "counted": [
            scoring.get("metric", ""), scoring.get("ignore_case", ""),
            *(["no blanks"] if scoring.get("cer_blanks") == "false" else []),
        ],
    }  # fmt: skip
    if "end_frame" in scoring:
        content["end_frame"] = [scoring["end_frame"]]
    if programs:
        content["programs"] = [_hash(path, inputs) for path in programs]
    return hashlib.sha256(json.dumps(content).encode()).hexdigest()


def _hash(path: str, inputs: Mapping[str, Fingerprint]) -> str:
    if not path:
        return ""
    # A baseline of an earlier command may name another file.
    return (inputs.get(path) or fingerprint(Path(path))).sha256


def same_but_searched(a: Mapping[str, str], b: Mapping[str, str]) -> bool:
    """Whether two trials have the same beam and weights, if their pool is the same."""
    names = ("beamsize", "beamsizetoken", "beamthreshold", "logadd", *LINEAR_WEIGHTS)
    first, second = decoder_flags(a), decoder_flags(b)
    return all(getattr(first, name) == getattr(second, name) for name in names)


def warm_lists(sweep: Path) -> list[Path]:
    """Return the files with the n-best lists of an earlier sweep.

    Raises:
        InputError: It has none.
    """
    found = [
        directory.nbest
        for directory in trial_directories(sweep / "trials")
        if directory.nbest.exists() and directory.read_result() is not None
    ]
    if not found:
        raise InputError(
            "--warm_start: no trial there has n-best lists; it must be the folder of a sweep with "
            "--sampler=nbest",
            path=sweep,
        )
    return found


def warm_pool(sweep: Path | None, key: str) -> dict[str, NBest]:
    """Return the n-best lists of an earlier sweep, by key.

    Args:
        sweep: Its folder; None for none.
        key: Of the pool that they must belong to.

    Raises:
        InputError: It has none, or they are of another model, LM or list.
    """
    if sweep is None:
        return {}
    found, refused = [], None
    for path in warm_lists(sweep):
        try:
            found.append(read_nbest(path, key=key, advice="leave out --warm_start"))
        except InputError as error:  # of another setting, as of another LM
            if storage_fault(error):
                raise
            refused = error
    if not found and refused is not None:
        raise refused
    return {key: merge(found)}
