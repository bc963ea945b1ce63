"""``w2ltune emissions``: emissions of any toolkit's CTC model, checked before a sweep is wasted."""

from __future__ import annotations

import itertools
import shlex
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from w2ltune import files
from w2ltune.commandline import option, parse_own
from w2ltune.errors import InputError, run_command
from w2ltune.formats.blanks import split_words
from w2ltune.formats.emissions import write_emissions
from w2ltune.formats.listfile import Utterance, read_list
from w2ltune.formats.spelling import PIECE_BEGIN
from w2ltune.formats.toolkitfiles import read_lengths, read_outputs, read_vocabulary
from w2ltune.formats.toolkits import Array, Columns, Kind, arrange, convert, kind_of, what_is_wrong
from w2ltune.scoring.text import Metric, split_units, what_is_counted
from w2ltune.scoring.wer import count_matrix, total

USAGE = """
usage: w2ltune emissions --outputs=PATH --vocabulary=FILE --list=dev.lst --out=DIR
           [--lengths=FILE] [--blank=TOKEN] [--drop=TOKENS] [--layout=tv|vt] [--values=…]

Turns the outputs of a CTC model of any toolkit (saved by numpy: a folder of <id>.npy, an .npz by
id, or one .npy [utterances, frames, tokens]) into emissions for w2ltune.sweep: DIR/dev.npz with the
blank last, and DIR/tokens.txt. The greedy error rate is printed; where it says that the blank, the
axes or the vocabulary are wrong, nothing is written. README: ten lines for four toolkits.
"""

ABSURD_CER = 0.8
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
    drop: str = option("tokens to leave out, with commas; by default <s>, <unk> and the like", "")
    force: bool = option("write them although the check says that they are wrong", False)


def main(arguments: list[str]) -> int:
    """Convert, check and write."""
    options = parse_own(arguments, EmissionOptions, usage=USAGE)
    path, tokens_path = options.out / f"{options.list.stem}.npz", options.out / "tokens.txt"
    for written in (path, tokens_path):
        files.refuse_to_replace(
            written, options.outputs, options.vocabulary, options.list, options.lengths
        )
        files.refuse_unwritable(written)
    utterances = read_list(options.list)
    tokens = read_vocabulary(options.vocabulary)
    _, first = next(_outputs(options, utterances))
    columns = arrange(tokens, first.shape[1], blank=options.blank, drop=options.drop)
    shown = f"blank {columns.blank!r} moved to the end"
    left = f"; left out: {', '.join(columns.dropped)}" if columns.dropped else ""
    print(f"{len(columns.names)} tokens and the blank ({shown}{left})")
    values = Values(options)
    survey = _survey(options, utterances, columns, values)
    print(f"the values are {values.said()}")
    wrong = _what_is_wrong(options, utterances, tokens, columns, survey)
    if wrong and not options.force:
        raise InputError(f"{wrong}; --force writes them all the same", path=options.outputs)
    options.out.mkdir(parents=True, exist_ok=True)
    write_emissions(path, _emissions(options, utterances, columns, values), dtype=np.float32)
    files.write_text(tokens_path, "".join(f"{t}\n" for t in columns.names))
    pieces = any(name.startswith(PIECE_BEGIN) for name in columns.names)
    more = [f"--wordseparator={PIECE_BEGIN}", "--usewordpiece=true"] if pieces else []
    flags_of = [f"--emission_dir={options.out}", f"--tokens={options.out}/tokens.txt", *more]
    print(f"wrote {path}; for w2ltune.sweep: {shlex.join(flags_of)}")
    return 0


class Values:
    """What the values of all utterances are: as ``--values`` says, or as all of them look.

    Args:
        options: The options of the command.
    """

    def __init__(self, options: EmissionOptions) -> None:
        self.options = options
        self.first_of: dict[Kind, str] = {}  # the first utterance of each kind

    def check(self, name: str, output: Array) -> Kind:
        """Return what the values of an utterance are.

        Raises:
            InputError: They cannot be that, or are others than those of the utterances before.
        """
        path, given = self.options.outputs, self.options.values
        kind = kind_of(output) if given == "auto" else _KINDS[given]
        wrong = what_is_wrong(output, kind)
        if wrong:
            raise InputError(f"{name!r} has {wrong}", path=path)
        self.first_of.setdefault(kind, name)
        others = [first for other, first in self.first_of.items() if other != "probabilities"]
        if others and "probabilities" in self.first_of:
            raise InputError(
                f"{self.first_of['probabilities']!r} holds probabilities that add up to 1, "
                f"{others[0]!r} does not: are its frames padded (--lengths)? Else say "
                "what they are by --values",
                path=path,
            )
        return kind

    def said(self) -> str:
        """Return in words what they are."""
        if "probabilities" in self.first_of:
            return "probabilities; their logarithms are taken"
        if "raw" in self.first_of:
            return "raw, and taken as they are"
        return "logarithms of probabilities, and taken as they are"


_KINDS: dict[str, Kind] = {"raw": "raw", "log": "log", "probabilities": "probabilities"}


def _outputs(
    options: EmissionOptions, utterances: Sequence[Utterance]
) -> Iterator[tuple[str, Array]]:
    lengths = None if options.lengths is None else read_lengths(options.lengths)
    ids = [utterance.id for utterance in utterances]
    width = 0
    for name, output in read_outputs(options.outputs, ids, lengths, layout=options.layout):
        width = width or output.shape[1]
        if output.shape[1] != width:
            raise InputError(
                f"{name!r} has {output.shape[1]} columns, {ids[0]!r} has {width}",
                path=options.outputs,
            )
        yield name, output


def _emissions(
    options: EmissionOptions, utterances: Sequence[Utterance], columns: Columns, values: Values
) -> Iterator[tuple[str, Array]]:
    for name, output in _outputs(options, utterances):
        yield name, convert(output, columns, values.check(name, output))


@dataclass(frozen=True, kw_only=True)
class Survey:
    """What the first utterances show.

    Attributes:
        best: In how many frames each column of the toolkit is the best one.
        said: Their references.
        heard: The words of the best tokens.
        cer: Character error rate, as it is printed.
        with_blanks: The same with one blank between words, as it is compared.
        wer: Word error rate.
    """

    best: NDArray[np.int64]
    said: list[str]
    heard: list[str]
    cer: float
    with_blanks: float
    wer: float


def _survey(
    options: EmissionOptions, utterances: Sequence[Utterance], columns: Columns, values: Values
) -> Survey:
    best = np.zeros(len(columns.every), np.int64)
    heard: list[str] = []
    for name, output in itertools.islice(_outputs(options, utterances), MOST_CHECKED):
        values.check(name, output)
        best += np.bincount(output.argmax(axis=1), minlength=len(best))
        heard.append(greedy(output[:, list(columns.order)], columns.names))
    said = [" ".join(utterance.reference) for utterance in utterances[: len(heard)]]

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
        cer=rate("cer"),
        with_blanks=rate("cer", blanks=True),
        wer=rate("wer"),
    )


def _what_is_wrong(
    options: EmissionOptions,
    utterances: Sequence[Utterance],
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
    if not any(survey.said):
        return "the list has no words that the outputs could be compared with"
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
    other = _survey(options, utterances, other_columns, Values(options))
    better = (other.with_blanks, other.wer) < (survey.with_blanks, survey.wer)
    same = (other.with_blanks, other.wer) == (survey.with_blanks, survey.wer)
    if better or (same and (not survey.best[blank] or often not in columns.order)):
        return f"{why} The CER would be {100 * other.cer:.1f} % then"
    return ""


def greedy(emission: NDArray[np.float32], names: Sequence[str]) -> str:
    """Return the words of the best token of each frame, repeats and blanks taken out."""
    best = emission.argmax(axis=1)
    changed = np.ones(len(best), dtype=bool)
    changed[1:] = best[1:] != best[:-1]
    kept = [names[index] for index in best[changed] if index < len(names)]
    text = "".join(" " if name == "|" else name for name in kept)
    return " ".join(split_words(text.replace(PIECE_BEGIN, " ")))


if __name__ == "__main__":
    sys.exit(run_command(main, sys.argv[1:]))
