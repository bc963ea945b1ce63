"""``w2ltune emissions``: emissions of any toolkit's CTC model, checked before a sweep is wasted."""

from __future__ import annotations

import shlex
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from w2ltune import files
from w2ltune.commandline import option, parse_own
from w2ltune.errors import InputError, run_command
from w2ltune.formats.emissions import write_emissions
from w2ltune.formats.listfile import Utterance, read_list
from w2ltune.formats.spelling import PIECE_BEGIN
from w2ltune.formats.toolkits import (
    Columns,
    arrange,
    best_tokens,
    convert,
    read_outputs,
    read_vocabulary,
)
from w2ltune.scoring.text import split_units
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
    blank: str = option("the blank, a token or its column; by its usual names", "", value="TOKEN")
    drop: str = option("tokens to leave out, with commas; by default <s>, <unk> and the like", "")
    force: bool = option("write them although the check says that they are wrong", False)


def main(arguments: list[str]) -> int:
    """Convert, check and write."""
    options = parse_own(arguments, EmissionOptions, usage=USAGE)
    utterances = read_list(options.list)
    tokens = read_vocabulary(options.vocabulary)
    columns = _columns(options, utterances, tokens)
    shown = f"blank {columns.blank!r} moved to the end"
    left = f"; left out: {', '.join(columns.dropped)}" if columns.dropped else ""
    print(f"{len(columns.names)} tokens and the blank ({shown}{left})")
    wrong = _check(options, utterances, columns)
    if wrong and not options.force:
        raise InputError(f"{wrong}; --force writes them all the same", path=options.outputs)
    options.out.mkdir(parents=True, exist_ok=True)
    path = options.out / f"{options.list.stem}.npz"
    write_emissions(path, _emissions(options, utterances, columns), dtype=np.float32)
    files.write_text(options.out / "tokens.txt", "".join(f"{t}\n" for t in columns.names))
    pieces = any(name.startswith(PIECE_BEGIN) for name in columns.names)
    more = [f"--wordseparator={PIECE_BEGIN}", "--usewordpiece=true"] if pieces else []
    flags_of = [f"--emission_dir={options.out}", f"--tokens={options.out}/tokens.txt", *more]
    print(f"wrote {path}; for w2ltune.sweep: {shlex.join(flags_of)}")
    return 0


def _columns(
    options: EmissionOptions, utterances: Sequence[Utterance], tokens: Sequence[str]
) -> Columns:
    _, first = next(_outputs(options, utterances))
    return arrange(tokens, first.shape[1], blank=options.blank, drop=options.drop)


def _outputs(
    options: EmissionOptions, utterances: Sequence[Utterance]
) -> Iterator[tuple[str, NDArray[np.floating]]]:
    lengths = None if options.lengths is None else _lengths(options.lengths)
    ids = [utterance.id for utterance in utterances]
    yield from read_outputs(options.outputs, ids, lengths, layout=options.layout)


def _lengths(path: Path) -> list[int]:
    try:
        if path.suffix == ".npy":
            return [int(value) for value in np.load(path, allow_pickle=False).ravel()]
        return [int(word) for word in path.read_text(encoding="utf-8").split()]
    except (OSError, ValueError) as error:
        raise InputError(f"no lengths ({error})", path=path) from None


def _emissions(
    options: EmissionOptions, utterances: Sequence[Utterance], columns: Columns
) -> Iterator[tuple[str, NDArray[np.float32]]]:
    for name, output in _outputs(options, utterances):
        yield name, _converted(options, name, output, columns)


def _converted(
    options: EmissionOptions, name: str, output: NDArray[np.floating], columns: Columns
) -> NDArray[np.float32]:
    if output.shape[1] != len(columns.order) + len(columns.dropped):
        raise InputError(f"{name!r}: {output.shape[1]} columns, unlike the first one",
                             path=options.outputs)  # fmt: skip
    if not np.isfinite(output).all() and options.values != "log":
        raise InputError(f"{name!r} has values that are no numbers", path=options.outputs)
    return convert(output, columns, values=options.values)


def _check(options: EmissionOptions, utterances: Sequence[Utterance], columns: Columns) -> str:
    """Print the greedy error rates of the first utterances; return what must be wrong, or ""."""
    references = {utterance.id: " ".join(utterance.reference) for utterance in utterances}
    said: list[str] = []
    heard: list[str] = []
    best: Counter[str] = Counter()
    for name, output in _outputs(options, utterances):
        heard.append(greedy(_converted(options, name, output, columns), columns.names))
        said.append(references[name])
        best += best_tokens(output, columns)
        if len(heard) == MOST_CHECKED:
            break
    rates = {}
    for metric in ("wer", "cer"):
        counts = total(
            count_matrix(
                [split_units(text.lower(), metric) for text in said],
                [split_units(text.lower(), metric) for text in heard],
            )
        )
        rates[metric] = counts.errors / max(1, counts.reference_words)
    frames = max(1, best.total())
    share = best[columns.blank] / frames
    print(
        f"greedy: WER {100 * rates['wer']:.1f} %, CER {100 * rates['cer']:.1f} % on "
        f"{len(heard)} utterances, the blank is best in {100 * share:.0f} % of the frames"
    )
    if heard:
        print(f"  reference: {said[0][:90]}\n  greedy:    {heard[0][:90]}")
    if rates["cer"] <= ABSURD_CER:
        return ""
    why = "is the list in the order of the outputs, and the vocabulary this model's?"
    often, times = best.most_common(1)[0]
    if often != columns.blank:
        why = (
            f"{often!r} is best in {100 * times / frames:.0f} % of the frames, "
            f"{columns.blank!r} in {100 * share:.0f} %: is that the blank (--blank)?"
        )
    return f"a character error rate of {100 * rates['cer']:.0f} % cannot be meant: {why}"


def greedy(emission: NDArray[np.float32], names: Sequence[str]) -> str:
    """Return the words of the best token of each frame, repeats and blanks taken out."""
    best = emission.argmax(axis=1)
    changed = np.ones(len(best), dtype=bool)
    changed[1:] = best[1:] != best[:-1]
    kept = [names[index] for index in best[changed] if index < len(names)]
    text = "".join(" " if name == "|" else name for name in kept)
    return " ".join(text.replace(PIECE_BEGIN, " ").split())


if __name__ == "__main__":
    sys.exit(run_command(main, sys.argv[1:]))
