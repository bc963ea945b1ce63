"""The name of a run directory, out of the config's path and the flags of ``--extra``.

``<..>/project/name.cfg`` with ``--extra="--lr=0.1"`` is ``<root>/project/name_lr0.1``.
"""

from __future__ import annotations

import hashlib
import os
import re
import unicodedata
from collections.abc import Sequence
from pathlib import Path

from w2ltune.errors import UsageError
from w2ltune.formats.flagsfile import Flag
from w2ltune.formats.known_flags import KNOWN_FLAGS, is_boolean

NAME_BYTES = 200
"""The longest name of a run directory; file systems end at 255, and files are named after it."""


def suffix(extra: Sequence[Flag]) -> str:
    """Return what the flags of ``--extra`` add to a run directory's name.

    Different flags or values give different names: where a value cannot stand in a name as it is,
    or reads like another flag, a short hash follows it.

    Example:
        >>> suffix([Flag(name="lr", value="0.1"), Flag(name="itersave", value="false")])
        '_lr0.1_noitersave'
    """
    return "".join(map(_part, extra))


def run_name(config: Path, extra: Sequence[Flag]) -> str:
    """Return the name of a run directory, at most `NAME_BYTES` long.

    Example:
        >>> run_name(Path("exp/librispeech/tds.cfg"), [Flag(name="lr", value="0.1")])
        'tds_lr0.1'
    """
    name = plain_name(config.stem) + suffix(extra)
    if len(name) <= NAME_BYTES:
        return name
    mark = _hash(name)
    return f"{name[: NAME_BYTES - len(mark)]}{mark}"


def run_directory(root: Path, config: Path, extra: Sequence[Flag], *, project: str = "") -> Path:
    """Return the run directory of a config below a root; nothing is created.

    Args:
        root: Where all projects are.
        config: The training's flagsfile.
        extra: The flags of ``--extra``.
        project: The folder between; by default the name of the config's folder.

    Raises:
        UsageError: ``project`` is no name, or the config's folder has none.
    """
    if project and (project != plain_name(project) or project in (".", "..")):
        raise UsageError(
            f"--project={project}: not a plain folder name; write letters, digits and . _ - only"
        )
    folder = project or plain_name(Path(os.path.abspath(config)).parent.name)  # noqa: PTH100
    if not folder:
        raise UsageError(f"{config} lies in no project's folder; name one with --project=NAME")
    return root / folder / run_name(config, extra)


def plain_name(text: str) -> str:
    """Return ``text`` as a file's name or a part of one: ASCII letters, digits and ``_.,+=-``.

    A hash follows it when it had to be changed, so that different texts stay different.

    Example:
        >>> plain_name("Zoë/dev 1.lst")
        'Zoe-dev-1.lst-44281153'
    """
    letters = unicodedata.normalize("NFKD", text).encode("ascii", "ignore").decode("ascii")
    plain = re.sub(r"[^A-Za-z0-9_.,+=-]+", "-", letters)
    if plain != text:
        return plain.strip("-.") + _hash(text)
    return f"{plain.lstrip('.')}{_hash(text)}" if plain.startswith(".") else plain


def _part(flag: Flag) -> str:
    if is_boolean(flag.name) and flag.value in ("true", "false"):
        return f"_{flag.name}" if flag.value == "true" else f"_no{flag.name}"
    text = plain_name(flag.value)
    if text == flag.value and _is_ambiguous(flag):
        text += _hash(flag.value)
    return f"_{flag.name}{text}"


def _is_ambiguous(flag: Flag) -> bool:
    """Whether name and value read as another flag's: ``--lm=weight2``, or ``--tag=a_lr0.1``."""
    first, *others = flag.value.split("_")
    known = tuple(KNOWN_FLAGS)
    longer = tuple(name for name in known if len(name) > len(flag.name))
    return (flag.name + first).startswith(longer) or any(
        other.startswith(known) or other.removeprefix("no").startswith(known) for other in others
    )


def _hash(text: str) -> str:
    return "-" + hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:8]
