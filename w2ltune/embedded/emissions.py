"""``w2ltune emissions``: emissions of any toolkit's CTC model, checked before a sweep is wasted."""

from __future__ import annotations

import itertools
import shlex
import sys
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from w2ltune import files
from w2ltune.commandline import option, parse_own
from w2ltune.embedded.outputs import Outputs, Values, can_spell, greedy
from w2ltune.errors import InputError, run_command
from w2ltune.formats.emissions import open_emissions, write_emissions
from w2ltune.formats.listfile import Utterance, fit_durations, list_stem, read_list
from w2ltune.formats.padding import Array, repeated_end
from w2ltune.formats.spelling import PIECE_BEGIN
from w2ltune.formats.toolkitfiles import read_vocabulary, unlisted_outputs
from w2ltune.formats.toolkits import Columns, arrange, convert
from w2ltune.scoring.text import Metric, split_units, what_is_counted
from w2ltune.scoring.wer import count_matrix, total

USAGE = """
usage: w2ltune emissions --outputs=PATH --vocabulary=FILE --list=dev.lst --out=DIR
           [--lengths=FILE] [--blank=TOKEN] [--drop=TOKENS] [--layout=tv|vt] [--values=…]

Turns the outputs of a CTC model of any toolkit (saved by numpy: a folder of <id>.npy, an .npz by
id, or one .npy [utterances, frames, tokens]) into emissions for w2ltune.sweep: DIR/dev.npz with the
blank last, and DIR/tokens.txt. A list called text goes by its folder. Padding is cut, columns of
one token are added up, word pieces get a ▁. The greedy error rate is printed; where it says that
the blank, the axes or the vocabulary are wrong, nothing is written. README: ten lines for four
toolkits.
"""

ABSURD_CER = 0.8
FREQUENT_BLANK, RARE_BLANK = 0.3, 0.1
"""Of the frames, at least and at most."""

MOST_CHECKED = 500


@dataclass(frozen=True, kw_only=True)
class EmissionOptions:
    """The options of emissions."""

    outputs: Path = option("what the model gave, saved by numpy", value="PATH")
    vocabulary: Path = option(
        "tokens in the order of the columns: a token a line, or JSON", value="FILE"
    )
    list: Path = option("data list with ids and references, in the order of a .npy", value="FILE")
    out: Path = option("folder for LIST.npz and tokens.txt", value="DIR")
    lengths: Path | None = option("frames of each utterance of a .npy: .npy or text", None)
    layout: str = option("axes: frames then tokens, or the other way", "tv", choices=("tv", "vt"))
    values: str = option("what they are", "auto", choices=("auto", "raw", "log", "probabilities"))
    blank: str = option(
        "the blank, a token or its column (-1: the last); by its usual names", "", value="TOKEN"
    )
    drop: str = option(
        "tokens or columns to leave out, with commas; by default <s>, <unk> and the like", ""
    )
    force: bool = option("write them although the check says that they are wrong", False)


def main(arguments: list[str]) -> int:
    """Convert, check and write."""
    options = parse_own(arguments, EmissionOptions, usage=USAGE)
    path = options.out / f"{list_stem(options.list)}.npz"
    tokens_path = options.out / "tokens.txt"
    for written in (path, tokens_path):
        files.refuse_to_replace(
            written, options.outputs, options.vocabulary, options.list, options.lengths
        )
        files.refuse_unwritable(written)
    utterances = read_list(options.list)
    gone = _refuse_other_utterances(path, utterances)
    tokens = read_vocabulary(options.vocabulary)
    outputs = Outputs(
        path=options.outputs,
        ids=[utterance.id for utterance in utterances],
        layout=options.layout,
        lengths=options.lengths,
    )
    _, first = next(iter(outputs))
    columns = arrange(tokens, first.shape[1], blank=options.blank, drop=options.drop)
    brackets, *lines = columns.said()
    print("\n  ".join([f"{len(columns.names)} tokens and the blank ({brackets})", *lines]))
    values = Values(options.outputs, options.values)
    said = [" ".join(utterance.reference) for utterance in utterances[:MOST_CHECKED]]
    outputs, survey = _without_repeated_ends(outputs, said, columns, values)
    print(f"the values are {values.said()}")
    outputs.say_padding()
    wrong = _what_is_wrong(options, outputs, tokens, columns, survey)
    notes = fit_durations(utterances, survey.frames, path=options.list)[1] if any(said) else []
    others = unlisted_outputs(options.outputs, outputs.ids)
    if others:
        notes.append(f"{len(others)} outputs are in no row of the list, as {others[0]!r}")
    for note in notes:
        print(f"note: {note}")
    if wrong and not options.force:
        raise InputError(f"{wrong}; --force writes them all the same", path=options.outputs)
    options.out.mkdir(parents=True, exist_ok=True)
    write_emissions(path, _emissions(outputs, columns, values), dtype=np.float32)
    if len(utterances) > MOST_CHECKED:
        outputs.say_padding()
    if gone:
        print(f"note: {path} was replaced; {gone} of its utterances are not in {options.list}")
    _write_tokens(tokens_path, columns.names, path)
    more = [f"--wordseparator={PIECE_BEGIN}", "--usewordpiece=true"] if columns.mark else []
    flags_of = [f"--emission_dir={options.out}", f"--tokens={tokens_path}", *more]
    print(f"wrote {path}; for w2ltune.sweep: {shlex.join(flags_of)}")
    return 0


def _refuse_other_utterances(path: Path, utterances: Sequence[Utterance]) -> int:
    """Refuse to replace emissions of another list; return how many utterances would be lost."""
    if not path.exists():
        return 0
    try:
        before = open_emissions(path).ids
    except InputError as error:
        raise InputError(f"{error}; it would be replaced: choose another --out") from None
    lost = set(before).difference(utterance.id for utterance in utterances)
    if len(lost) == len(before):
        raise InputError(
            f"it holds the emissions of another list, {len(before)} utterances as {before[0]!r}, "
            "and would be replaced: choose another --out, or another name for --list",
            path=path,
        )
    return len(lost)


def _write_tokens(path: Path, names: Sequence[str], emissions: Path) -> None:
    text = "".join(f"{name}\n" for name in names)
    if path.exists() and path.read_bytes() != text.encode():
        others = sorted(other.name for other in path.parent.glob("*.npz") if other != emissions)
        belong = f"; {', '.join(others)} in this folder may belong to those" if others else ""
        print(f"note: {path} was replaced; it held other tokens{belong}")
    files.write_text(path, text)


def _emissions(outputs: Outputs, columns: Columns, values: Values) -> Iterator[tuple[str, Array]]:
    for name, output in outputs:
        yield name, convert(output, columns, values.check(name, output))


@dataclass(frozen=True, kw_only=True)
class Survey:
    """What the first utterances show.

    Attributes:
        best: In how many frames each column of the toolkit is the best one.
        said: Their references.
        heard: The words of the best tokens.
        frames: Of each utterance.
        ends: The last frame of each, and how often it is repeated at the end.
        cer: Character error rate, as it is printed.
        with_blanks: The same with one blank between words, as it is compared.
        wer: Word error rate.
    """

    best: NDArray[np.int64]
    said: list[str]
    heard: list[str]
    frames: dict[str, int]
    ends: list[tuple[bytes, int]]
    cer: float
    with_blanks: float
    wer: float


def _survey(outputs: Outputs, said: list[str], columns: Columns, values: Values) -> Survey:
    best = np.zeros(len(columns.every), np.int64)
    heard: list[str] = []
    frames: dict[str, int] = {}
    ends: list[tuple[bytes, int]] = []
    for name, output in itertools.islice(outputs, MOST_CHECKED):
        emission = convert(output, columns, values.check(name, output))
        best += np.bincount(output.argmax(axis=1), minlength=len(best))
        heard.append(greedy(emission, columns.names))
        frames[name] = len(output)
        ends.append(repeated_end(output))

    def rate(metric: Metric, *, blanks: bool = False) -> float:
        counts = total(
            count_matrix(
                [split_units(text.lower(), metric, blanks=blanks) for text in said],
                [split_units(text.lower(), metric, blanks=blanks) for text in heard],
            )
        )
        return counts.errors / max(1, counts.reference_words)

    return Survey(
        best=best,
        said=said,
        heard=heard,
        frames=frames,
        ends=ends,
        cer=rate("cer"),
        with_blanks=rate("cer", blanks=True),
        wer=rate("wer"),
    )


def _without_repeated_ends(
    outputs: Outputs, said: list[str], columns: Columns, values: Values
) -> tuple[Outputs, Survey]:
    """Return the outputs without the one frame that a toolkit made of all padding, if any.

    Such a frame ends several utterances, here once, there twenty times. So may silence, or a token
    in data that somebody made up: what is heard is to become better without it, or remain the same
    where it is the blank that is heard.
    """
    survey = _survey(outputs, said, columns, values)
    counts: dict[bytes, set[int]] = defaultdict(set)
    for frame, count in survey.ends:
        counts[frame].add(count)
    padding = frozenset(frame for frame, own in counts.items() if len(own) > 1 and max(own) > 2)
    if not padding:
        return outputs, survey
    cut = replace(outputs, padding=padding, cut={})
    without = _survey(cut, said, columns, values)
    blank = columns.order[-1]
    silent = all(np.frombuffer(frame, np.float32).argmax() == blank for frame in padding)
    better = (without.with_blanks, without.wer) < (survey.with_blanks, survey.wer)
    same = (without.with_blanks, without.wer) == (survey.with_blanks, survey.wer)
    return (cut, without) if better or (same and silent) else (outputs, survey)


def _what_is_wrong(
    options: EmissionOptions,
    outputs: Outputs,
    tokens: Sequence[str],
    columns: Columns,
    survey: Survey,
) -> str:
    """Print the greedy error rates; return what must be wrong, or "".

    Names are not believed: where another column than the blank's is best more often, and the
    words become no worse with that one as the blank, that one is the blank.
    """
    blank, often = columns.order[-1], int(survey.best.argmax())
    shares = survey.best / survey.best.sum()
    counted = what_is_counted("cer", [split_units(text, "cer") for text in survey.said])
    print(
        f"greedy: WER {100 * survey.wer:.1f} %, CER {100 * survey.cer:.1f} % on "
        f"{len(survey.heard)} utterances, the blank is best in {100 * shares[blank]:.0f} % of the "
        f"frames\n  {counted}\n  reference: {survey.said[0][:90]}\n"
        f"  greedy:    {survey.heard[0][:90]}"
    )
    lost = sum(survey.best[column] for column in columns.unused)
    if 1000 * lost >= survey.best.sum():
        most = max(columns.unused, key=survey.best.__getitem__)
        print(
            f"note: tokens that are left out are best in {100 * lost / survey.best.sum():.1f} % of "
            f"the frames, as {columns.every[most]!r}: what they say is lost"
        )
    if not any(survey.said):
        return "the list has no words that the outputs could be compared with"
    if not can_spell(survey.said, columns.names):
        print(
            "note: the tokens do not spell these words by letters, as those of phones: what they "
            "say is held against the lexicon when a sweep begins"
        )
        if shares[blank] > RARE_BLANK or shares[often] < FREQUENT_BLANK:
            return ""
        return (
            f"{columns.every[often]!r} is best in {100 * shares[often]:.0f} % of the frames, "
            f"{columns.blank!r}, which should be the blank, in {100 * shares[blank]:.0f} %"
        )
    absurd = f"a character error rate of {100 * survey.cer:.0f} % cannot be meant: "
    if shares[often] == shares[blank]:
        why = "is the list in the order of the outputs, and the vocabulary this model's?"
        return absurd + why if survey.cer > ABSURD_CER else ""
    name = str(often) if str(often) not in columns.every else columns.every[often]
    why = (
        f"{columns.every[often]!r} is best in {100 * shares[often]:.0f} % of the frames, "
        f"{columns.blank!r} in {100 * shares[blank]:.0f} %: is that the blank "
        f"({shlex.quote(f'--blank={name}')})?"
    )
    if survey.cer > ABSURD_CER:
        return absurd + why
    other_columns = arrange(tokens, len(columns.every), blank=often, drop=options.drop)
    other_values = Values(options.outputs, options.values)
    other = _survey(outputs, survey.said, other_columns, other_values)
    better = (other.with_blanks, other.wer) < (survey.with_blanks, survey.wer)
    same = (other.with_blanks, other.wer) == (survey.with_blanks, survey.wer)
    if better or (same and (not survey.best[blank] or often not in columns.order)):
        return f"{why} The CER would be {100 * other.cer:.1f} % then"
    return ""


if __name__ == "__main__":
    sys.exit(run_command(main, sys.argv[1:]))
