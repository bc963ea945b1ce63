"""Which n-best lists belong together: those of one model, LM and data, whatever the beam."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path

from w2ltune.embedded.decoderflags import decoder_flags
from w2ltune.runs.provenance import Fingerprint, fingerprint
from w2ltune.search.linear import LINEAR_WEIGHTS


def pool_key(
    flags: Mapping[str, str],
    *,
    data: Sequence[Path],
    scoring: Mapping[str, str],
    inputs: Mapping[str, Fingerprint],
) -> str:
    """Return a key that two trials share if one's n-best lists tell of the other's.

    Args:
        flags: A trial's flags.
        data: Lists, emissions and the normalisation, in order.
        scoring: How errors are counted.
        inputs: Fingerprints of all files by path.
    """
    typed = decoder_flags(flags)
    files = [str(typed.tokens_path), typed.lexicon, typed.lm, typed.transitions]
    content = {
        "files": [_hash(path, inputs) for path in [*files, *map(str, data)]],
        "decoder": [
            typed.criterion, typed.decodertype, typed.uselexicon, typed.smearing,
            typed.wordseparator, typed.usewordpiece, typed.replabel, typed.surround,
            typed.maxword, typed.logadd,
        ],
        "counted": [scoring.get("metric", ""), scoring.get("ignore_case", "")],
    }  # fmt: skip
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
