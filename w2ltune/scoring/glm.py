"""NIST's word-mapping files (``.glm``), as sclite's ``csrfilt.sh`` applies them before scoring.

::

    ;; a comment; the first line of the file is one
    * case_sensitive = 'F'
    [gonna] => [going to] / [ ] __ [ ]
    colour => color

A rule replaces its left side where the text before and behind is that of its context (``[ ]`` is a
blank). The rules are tried in the order of the file at each place from left to right, and what was
put in is not looked at again. Source: ``rfilter1`` of SCTK 2.4, whose output a test compares.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from w2ltune.errors import InputError, existing_file

_PART = r"\s*(?:\[(?P<{0}>[^\]]*)\]|\"(?P<{0}q>[^\"]*)\"|(?P<{0}w>[^\s/\[\]\"{{}}]+))?\s*"
_RULE = re.compile(
    _PART.format("old") + "=>" + _PART.format("new")
    + "(?:/" + _PART.format("left") + "__" + _PART.format("right") + ")?"
)  # fmt: skip
_OPTION = re.compile(r"\*\s*(\w+)\s*=?\s*['\"]?([^'\"]*)['\"]?")


@dataclass(frozen=True, kw_only=True)
class Rule:
    """One rule.

    Attributes:
        old: What is replaced.
        new: By what.
        left: What must stand before; "" for anything.
        right: What must stand behind.
    """

    old: str
    new: str
    left: str = ""
    right: str = ""


def load_glm(path: Path) -> Callable[[str], str]:
    """Return what a word-mapping file does to a text.

    Raises:
        InputError: The first line is no comment, a line is no rule, a rule allows alternatives, or
            there is none.
    """
    existing_file(path, "word-mapping file (--normalize)")
    rules, case_sensitive = [], False
    for number, line in _lines(path):
        option = _OPTION.fullmatch(line) if line.startswith("*") else None
        if option:
            if option[1] == "case_sensitive":
                case_sensitive = option[2].upper().startswith("T")
            continue
        rules.append(_parse(line, path, number))
    if not rules:
        raise InputError(
            "no rule in it; lines that begin as the first one does are comments", path=path
        )
    return _replacer(rules, case_sensitive=case_sensitive)


class _Folds(dict[int, str]):
    """For ``str.translate``: one character for all that :data:`re.IGNORECASE` takes for one."""

    def __init__(self) -> None:
        super().__init__()
        self.first: dict[str, str] = {}

    def __missing__(self, code: int) -> str:
        lower = chr(code).lower()[0]
        self[code] = self.first.setdefault(lower.upper(), lower)
        return self[code]


def _replacer(rules: Sequence[Rule], *, case_sensitive: bool) -> Callable[[str], str]:
    """Return the function that applies rules, of which there may be thousands.

    They are looked up by their left side, so that a text costs its own length times that of the
    left sides that begin with the same character, whatever the number of rules.
    """
    folds: Mapping[int, str] = {} if case_sensitive else _Folds()
    rules_of: dict[str, list[tuple[int, Rule]]] = {}
    lengths: dict[str, set[int]] = {}
    for order, rule in enumerate(rules):
        old = rule.old.translate(folds)
        left, right = rule.left.translate(folds), rule.right.translate(folds)
        rules_of.setdefault(old, []).append((order, replace(rule, left=left, right=right)))
        lengths.setdefault(old[0], set()).add(len(old))

    def fitting(text: str, begin: int) -> Rule | None:
        """Return the first rule in the order of the file that fits at this place."""
        best, first = None, len(rules)
        for length in lengths.get(text[begin], ()):
            end = begin + length
            for order, rule in rules_of.get(text[begin:end], ()):
                if order >= first:
                    break
                if text.endswith(rule.left, 0, begin) and text.startswith(rule.right, end):
                    best, first = rule, order
                    break
        return best

    def apply(text: str) -> str:
        text = f" {text} "  # for the contexts; csrfilt.sh does so too
        folded = text.translate(folds)
        parts, begin, kept = [], 0, 0
        while begin < len(text):
            rule = fitting(folded, begin)
            if rule is None:
                begin += 1
                continue
            parts += [text[kept:begin], rule.new]
            begin = kept = begin + len(rule.old)
        return " ".join("".join([*parts, text[kept:]]).split())

    return apply


def _lines(path: Path) -> Iterator[tuple[int, str]]:
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except UnicodeDecodeError as error:
        raise InputError(f"not UTF-8 text ({error.reason})", path=path) from None
    first = lines[0] if lines else ""
    mark = first[:1]
    # A rule would make comments of all rules that begin as it does.
    is_rule = mark.isalnum() or mark in '["' or ("=>" in first and mark != ";")
    if mark in ("*", "") or is_rule:
        raise InputError(
            "its first line must be a comment, as ';; names of places'", path=path, line=1
        )
    for number, line in enumerate(lines, start=1):
        if line.strip() and not line.startswith(mark):
            yield number, line.strip()


def _parse(line: str, path: Path, number: int) -> Rule:
    if "{" in line:
        raise InputError(
            f"the rule {line!r} allows several readings, which cannot be counted here; keep one "
            "of them, or score the .trn files of --dump with sclite",
            path=path,
            line=number,
        )
    match = _RULE.fullmatch(line)
    sides = {} if match is None else {
        name: next((v for v in (match[name], match[f"{name}q"], match[f"{name}w"]) if v), "")
        for name in ("old", "new", "left", "right")
    }  # fmt: skip
    if not sides.get("old"):
        raise InputError(
            f"{line!r} is no rule; expected [old] => [new] / [ ] __ [ ]", path=path, line=number
        )
    return Rule(**sides)
