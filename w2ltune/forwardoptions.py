"""The options of LM forwarding, their help and their first check."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from w2ltune.cluster.slurmoptions import DecodeSlurmOptions
from w2ltune.commandline import option
from w2ltune.errors import UsageError
from w2ltune.formats.blanks import BLANKS
from w2ltune.formats.columnname import ALLOWED, is_column_name

USAGE = """
usage: python -m w2ltune.forward --hyp=dev-clean.lst.hyp --lm=LM.bin [--name=lm]
       python -m w2ltune.forward --hyp=dev-clean.lst.hyp --causal_lm=FOLDER_OR_NAME [--name=tr]
       python -m w2ltune.forward --hyp=dev-clean.lst.hyp --command='python forward_lm.py {input}'

Scores every hypothesis of a beam dump (--isbeamdump=true, or w2ltune.sweep --dump) with an LM, for
w2ltune.rescore: writes dev-clean-NAME.ppl with a line "id log-probability" for each hypothesis, in
the order of the dump (natural logarithm, higher is better). Each different sentence is scored once
and in shards that are kept: whatever ends the command, the same command continues. A program of
--command gets the sentences of a shard, one a line, in the file {input} or on its standard input,
and prints (or writes to the file {output}) a line for each that ends with its score. With
RAY_ADDRESS set it runs on that Ray cluster, else it starts one on this machine.
"""

SHARD_SENTENCES = {"kenlm": 50_000, "causal": 2_000, "command": 10_000}
"""A shard takes some minutes at most, and more than what it takes to hand it over."""


@dataclass(frozen=True, kw_only=True)
class ForwardOptions(DecodeSlurmOptions):
    """The options of LM forwarding."""

    hyp: str = option("beam dump, or several with commas between; also .gz", value="DUMP")
    lm: Path | None = option("n-gram LM, ARPA or KenLM binary", None, value="FILE")
    causal_lm: str = option(
        "neural causal LM of Hugging Face transformers, on a GPU where the cluster has one", "",
        value="FOLDER",
    )  # fmt: skip
    command: str = option(
        "a program that scores; it gets a GPU with --gpu=1. Files that the line names are its "
        "inputs: scored again when one has changed", "", value="LINE",
    )  # fmt: skip
    name: str = option("column's name, in the file's name; lm for --lm, else tr", "")
    out: str = option(
        "folder of the scores, or the file, whose name ends in .ppl; by default they lie beside "
        "the dump", "", value="DIR",
    )  # fmt: skip
    unit: str = option("what an n-gram LM was made of", "words", choices=("words", "letters"))
    word_boundary: str = option("with --unit=letters: what follows each word", "|")
    case: str = option(
        "of the words before the LM sees them", "keep", choices=("keep", "lower", "upper")
    )
    shards: int | None = option("number of shards", None, least=1)
    shard_sentences: int | None = option(
        "or sentences of a shard; by default 50000 for an n-gram LM, 2000 for a causal LM, 10000 "
        "for a program", None, least=1,
    )  # fmt: skip
    batch_tokens: int = option("tokens of a causal LM's batch, padding included", 4096, least=1)
    worker_cores: int = option("cores of each worker", 1, least=1)
    cores: int | None = option("cores of a local Ray cluster; all that may be used", None, least=1)
    replace: bool = option("scores of another LM or dump in the same file are replaced", False)
    node_wait_minutes: float = option(
        "stop (exit code 75) when the cluster had no core or GPU for this long", 5.0
    )

    @property
    def kind(self) -> str:
        """What scores."""
        return "kenlm" if self.lm is not None else "causal" if self.causal_lm else "command"

    @property
    def column(self) -> str:
        """The column's name."""
        return self.name or ("lm" if self.lm is not None else "tr")


def check_options(options: ForwardOptions) -> None:
    """Refuse values that cannot be meant."""
    given = {
        "--lm": options.lm is not None,
        "--causal_lm": bool(options.causal_lm),
        "--command": bool(options.command),
    }
    if sum(given.values()) != 1:
        found = [name for name, is_given in given.items() if is_given]
        raise UsageError(f"give one of {', '.join(given)}; given: {' and '.join(found) or 'none'}")
    if not is_column_name(options.column):
        raise UsageError(f"--name={options.name!r}: must be {ALLOWED}")
    if None not in (options.shards, options.shard_sentences):
        raise UsageError("--shards and --shard_sentences: give one of them")
    if options.lm is None and options.unit != "words":
        raise UsageError("--unit=letters is for n-gram LMs (--lm); others have their own tokens")
    if set(options.word_boundary) & set(BLANKS):
        raise UsageError(f"--word_boundary={options.word_boundary!r}: must be without blanks")
