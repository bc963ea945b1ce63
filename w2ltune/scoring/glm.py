"""NIST's word-mapping files (``.glm``), as its program ``rfilter1`` reads and applies them.

::

    ;; a comment; the first word of the first line is what begins one, here and behind rules
    * case_sensitive = 'F'
    [gonna] => [going to] / [ ] __ [ ]  ;; only between blanks
    colour => color

A rule replaces its left side where the text before and behind is that of its context (``[ ]`` is a
blank). The rules are tried in the order of the file at each place from left to right, and what was
put in is not looked at again. Upper and lower case differ unless the file says otherwise; then it
is that of A to Z. ``* copy_no_hit = 'F'`` drops what no rule replaces. More rules than rfilter1 has
memory for (``* max_nrules``) are taken. Source: SCTK 2.4, whose output a test compares; sclite's
``csrfilt.sh -s`` calls it with a blank around each text, as is done here. What else that script
does (upper case without ``-s``, hyphens with ``-dh``, words in parentheses) is not done.

Rules and texts are compared in Unicode's NFC. What rfilter1 does not read as it is written is
refused.
"""

from __future__ import annotations

import re
import string
import unicodedata
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from w2ltune.errors import InputError, did_you_mean, existing_file
from w2ltune.formats.blanks import BLANKS, split_words
from w2ltune.formats.compressed import MARKED

_LONGEST_LINE = 131
"""Bytes; rfilter1 takes what is beyond for another line."""

_OPTIONS = ("NAME", "DESC", "FORMAT", "MAX_NRULES", "COPY_NO_HIT", "CASE_SENSITIVE")
_GRAPHIC = string.ascii_letters + string.digits + string.punctuation
_LOWER = str.maketrans(string.ascii_uppercase, string.ascii_lowercase)
_APPLICATION = re.compile(r'INPUT_DEPENDENT_APPLICATION\s*=\s*"([^"]*)"')


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
    rules, options = [], {"COPY_NO_HIT": "T", "CASE_SENSITIVE": "T"}
    for number, line in _lines(path):
        try:
            if line.startswith("*"):
                options |= _parse_option(line)
            else:
                rules.append(_parse(line))
        except ValueError as error:
            raise InputError(str(error), path=path, line=number) from None
    if not rules:
        raise InputError(
            "no rule in it; lines that begin as the first one does are comments", path=path
        )
    return _replacer(
        rules,
        case_sensitive=_is_true(options["CASE_SENSITIVE"]),
        copied=_is_true(options["COPY_NO_HIT"]),
    )


def _is_true(value: str) -> bool:
    return value.upper() in ("T", "YES", "TRUE")


def _replacer(rules: Sequence[Rule], *, case_sensitive: bool, copied: bool) -> Callable[[str], str]:
    """Return the function that applies rules, of which there may be thousands.

    Looked up by their left side, their number costs nothing.
    """
    folds = {} if case_sensitive else _LOWER
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
        text = f" {unicodedata.normalize('NFC', text)} "  # for the contexts
        folded = text.translate(folds)
        parts, begin, kept = [], 0, 0
        while begin < len(text):
            rule = fitting(folded, begin)
            if rule is None:
                begin += 1
                continue
            parts += [text[kept:begin] if copied else "", rule.new]
            begin = kept = begin + len(rule.old)
        parts += [text[kept:] if copied else ""]
        return " ".join(split_words("".join(parts)))

    return apply


def _lines(path: Path) -> Iterator[tuple[int, str]]:
    """Yield the lines that are no comments, without comments and blanks behind."""
    mark = ""
    for number, raw in enumerate(path.read_bytes().split(b"\n"), start=1):
        try:
            line = unicodedata.normalize("NFC", raw.decode("utf-8")).rstrip(BLANKS)
            mark = mark or _comment_mark(line)
            if len(raw) > _LONGEST_LINE:
                raise ValueError(
                    f"{len(raw)} bytes, of which rfilter1 takes those behind {_LONGEST_LINE} for "
                    "another line: make it shorter"
                )
            if line.startswith(mark):
                _check_application(line)
                continue
            if line and not line.startswith("*"):
                line = line.partition(mark)[0]
                if "=>" not in line:
                    raise ValueError(
                        f"{line.strip(BLANKS) or mark!r} is no rule; expected [old] => [new] / [ ] "
                        f"__ [ ] (a comment begins with {mark!r}, as in line 1, and without blanks)"
                    )
        except UnicodeDecodeError as error:
            raise InputError(f"not UTF-8 text ({error.reason})", path=path, line=number) from None
        except ValueError as error:
            raise InputError(str(error), path=path, line=number) from None
        if line:
            yield number, line


def _comment_mark(first: str) -> str:
    """Return what begins a comment: the first word of the file."""
    if first.startswith("\ufeff"):
        raise ValueError(MARKED)
    mark = first.removesuffix(first.lstrip(_GRAPHIC))
    # A rule would make comments of all rules that begin as it does.
    old, arrow, _ = first.partition("=>")
    is_rule = arrow and (old.strip(BLANKS) == mark or any(map(str.isalnum, mark.lstrip(";"))))
    if not mark or is_rule or mark[0].isalnum() or mark[0] in '["*':
        raise ValueError(
            f"its first line must be a comment, as ';; names of places', not {first[:60]!r}"
        )
    return mark


def _check_application(comment: str) -> None:
    """Refuse rules for some files only, as csrfilt.sh knows them: here they are for all."""
    found = _APPLICATION.search(comment)
    if not found:
        return
    try:
        kinds = [kind for kind in ("trn", "ref", "hyp") if re.search(found[1].lower(), kind)]
    except re.error:
        kinds = []
    if kinds[:1] != ["trn"] and len(kinds) < 2:
        raise ValueError(
            f"the rules behind {found[0]} are for some files only, but all are applied to "
            "references and hypotheses alike: leave them out"
        )


def _parse_option(line: str) -> dict[str, str]:
    """Return what a line ``* name = 'value'`` sets: all options that it names anywhere."""
    value = re.search("['\"]([^'\"]*)", line)
    if value is None:
        raise ValueError(f"{line!r} has no value in quotes; expected * case_sensitive = 'T'")
    named = [name for name in _OPTIONS if name in line.upper()]
    if "FORMAT" in named and value[1] != "NIST1":
        raise ValueError(f"{line!r}: the format must be 'NIST1', rfilter1 knows no other")
    if not named:
        words = re.findall(r"\w+", line[: value.start()].upper())
        hint = next(filter(None, (did_you_mean(word, _OPTIONS) for word in words)), "")
        if hint:
            raise ValueError(f"{line!r} names no option of rfilter1{hint}")
    return dict.fromkeys(named, value[1])


def _parse(line: str) -> Rule:
    """Return the rule of a line, where rfilter1 reads what is written."""
    arrow, slash = line.find("=>"), line.rfind("/")
    if slash >= 0 and line.find("]", slash) < line.find("[", slash):  # "/" within brackets
        slash = -1
    new, context = (line[arrow:], "") if slash < 0 else (line[arrow:slash], line[slash:])
    if re.search(r"\{[^{}]*/", line[arrow:]):
        raise ValueError(
            f"the rule {line!r} allows several readings, which cannot be counted here; keep one "
            "of them, or score the .trn files of --dump with sclite"
        )
    match = re.fullmatch(r"(/)([^_]*)(_+)(.*)", context)
    left, right = (match[2], match[4]) if match else ("", "")
    if context and (match is None or slash < arrow):
        raise ValueError(
            f"{line!r}: the last '/' begins the context for rfilter1, and there is no '__' behind "
            "it; a '/' of words needs brackets and a context behind, as [a/b] => [c/d] / __"
        )
    for part in (new[2:], left, right):
        if part and part[0] not in BLANKS:
            raise ValueError(f"{line!r}: there must be a blank behind '=>', '/' and '__'")
    old, new, left, right = (
        _unbound(part.strip(BLANKS), line) for part in (line[:arrow], new[2:], left, right)
    )
    if not old:
        raise ValueError(f"{line!r} is no rule: it replaces nothing; expected [old] => [new]")
    return Rule(old=old, new=new, left=left, right=right)


def _unbound(part: str, line: str) -> str:
    """Return a part of a rule without the brackets or quotes around it."""
    if part.startswith("[") != part.endswith("]"):
        raise ValueError(f"{line!r}: {part!r} has a bracket on one side only")
    return part[1:-1] if part[:1] + part[-1:] in ("[]", '""') else part
