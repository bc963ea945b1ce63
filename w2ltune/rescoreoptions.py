"""The options of rescoring, their help and their first check."""

from __future__ import annotations

from dataclasses import dataclass, fields
from pathlib import Path

from w2ltune.commandline import option
from w2ltune.errors import UsageError, did_you_mean
from w2ltune.formats.columnname import ALLOWED, is_column_name
from w2ltune.formats.distributions import parse_float

USAGE = """
usage: python -m w2ltune.rescore --hyp=DUMP --list=LIST --tr=SCORES [--convlm=SCORES]
           [--lm NAME=SCORES …] [--test_hyp=DUMP --test_list=LIST --test_tr=SCORES …]
       python -m w2ltune.rescore --hyp=DUMP --list=LIST --tr=SCORES --in_wts=0.3,0.1,0.3

Finds the weights of language models (and of the length) that choose the best hypotheses of a beam
dump, and says how sure they are; with --in_wts and without --search it evaluates weights. SCORES
are files of w2ltune.forward: a line "id log-probability" for each hypothesis of the dump.
    score = am score + sum of weight x LM score + weight x length
"""

METHODS = ("line", "certified", "tpe", "cmaes", "random", "grid")
LENGTHS = {"len": ("len",), "words": ("words",), "letters": ("letters",), "none": ()}
LENGTHS |= {"both": ("words", "letters")}

TOP = {
    "small": (*range(1, 11), 15, 20, 30, 40, 50, 75, 100, 200, 250),
    "large": (*range(1, 11), 20, 50, 100, 200, 250, 500, 1000, 1500, 2000, 2500),
}
"""How many of the best hypotheses of the decoder take part; all do beside."""

ANCESTORS_WEIGHTS = ("tr", "convlm", "len")
"""What the three numbers of rescore.py weigh."""

LARGEST_WEIGHT = 1e12
DEFAULT_N = {"tpe": 300, "cmaes": 300, "random": 1000, "grid": 600}


@dataclass(frozen=True, kw_only=True)
class RescoreOptions:
    """The options of rescoring."""

    hyp: Path = option("beam dump of the list that weights are tuned on", value="FILE")
    list: Path = option("the data list, with the references", value="LIST")
    tr: Path | None = option("scores of a language model, called tr", None, value="FILE")
    convlm: Path | None = option("the same, called convlm", None, value="FILE")
    lm: tuple[str, ...] = option(
        "scores of a further language model; may be given several times", (), value="NAME=FILE"
    )
    decoder_lm: bool = option("weigh the score of the decoder's own LM too, called lm", False)
    length: str = option(
        "what is weighed of the length: words + letters (len), one of the two, both, or none",
        "len", choices=tuple(LENGTHS),
    )  # fmt: skip
    search: bool = option("search weights; also without, unless --in_wts is given", False)
    method: str = option(
        "how: exact line searches; branch and bound with a proof; Optuna's samplers", "line",
        choices=METHODS,
    )  # fmt: skip
    gridsearch: bool = option("the grid of wav2letter's rescore.py: --method=grid", False)
    certify: bool = option("prove the optimum, or how far it may be off, after any search", False)
    time_limit: float = option("CPU seconds of this process that the proof may take", 60.0)
    n: int | None = option("evaluations of tpe, cmaes, random or grid", None, least=1)
    in_wts: str = option(
        "weights to evaluate, or to compare with: tr,convlm,len or NAME=WEIGHT,…", "",
        value="WEIGHTS",
    )  # fmt: skip
    top: str = option(
        "up to how many hypotheses are tried: 250, or 2500", "small", choices=("small", "large")
    )
    new: bool = option("the dump has the form 'id | score | …'; found out by itself", False)
    test_hyp: Path | None = option("beam dump that is not tuned on", None, value="FILE")
    test_list: Path | None = option("its data list", None, value="LIST")
    test_tr: Path | None = option("its scores, as --tr", None, value="FILE")
    test_convlm: Path | None = option("its scores, as --convlm", None, value="FILE")
    test_lm: tuple[str, ...] = option("its scores, as --lm", (), value="NAME=FILE")
    ancestor_wer: bool = option(
        "count as wav2letter's rescore.py did, to come to its numbers again", False
    )
    metric: str = option("what is counted: word or character errors", "wer", choices=("wer", "cer"))
    cer_blanks: bool = option(
        "with --metric=cer: count one blank between words as a character; they are left out", False
    )
    normalize: Path | None = option(
        "Python file with normalize(text), or a .glm file, applied to references and hypotheses",
        None, value="FILE",
    )  # fmt: skip
    ignore_case: bool = option("count words as the same whatever their case", False)
    cluster: str | None = option(
        "regular expression for the speaker or chapter in an utterance id; intervals are by it",
        None,
    )
    out: Path | None = option(
        "folder of the study; by default beside the dump, named after it and the weights", None,
        value="DIR",
    )  # fmt: skip
    seed: int = option("seed of the search", 1, least=0)
    format: str = option("what is printed", "table", choices=("table", "json"))

    @property
    def searches(self) -> bool:
        """Whether weights are searched, not only evaluated."""
        return self.search or self.gridsearch or self.certify or not self.in_wts

    @property
    def chosen_method(self) -> str:
        """The method, which the ancestor's ``--gridsearch`` names too."""
        return "grid" if self.gridsearch else self.method

    def scores(self, *, test: bool = False) -> dict[str, Path]:
        """Return the files of LM scores by name.

        Args:
            test: Those of the list that is not tuned on.

        Raises:
            UsageError: A name is missing, wrong or given twice.
        """
        tr, convlm = (self.test_tr, self.test_convlm) if test else (self.tr, self.convlm)
        flag = "test_lm" if test else "lm"
        found = {name: path for name, path in (("tr", tr), ("convlm", convlm)) if path}
        for text in self.test_lm if test else self.lm:
            name, equals, path = text.partition("=")
            if not (equals and name and path):
                raise UsageError(f"--{flag}={text!r}: must be NAME=FILE, as --{flag} gpt=dev.ppl")
            if not is_column_name(name):
                raise UsageError(f"--{flag}={text!r}: the name {name!r} must be {ALLOWED}")
            if name in found:
                raise UsageError(f"--{flag}={text}: there is a language model {name!r} already")
            found[name] = Path(path)
        return found

    @property
    def weights(self) -> tuple[str, ...]:
        """The weights by name, in the order of ``--in_wts``."""
        own = ("lm",) if self.decoder_lm else ()
        return (*self.scores(), *own, *LENGTHS[self.length])

    @property
    def ks(self) -> tuple[int, ...]:
        """How many of the decoder's best hypotheses take part, rising."""
        return TOP[self.top]


def check_options(options: RescoreOptions) -> None:
    """Refuse values that cannot be meant."""
    if not options.weights:
        raise UsageError(
            "nothing to weigh: give scores of language models, as --tr=dev.lst-tr.ppl "
            "(python -m w2ltune.forward writes them), or --decoder_lm or a --length"
        )
    for name in ("am", *LENGTHS["both"], "len", "lm"):
        if name in options.scores():
            raise UsageError(f"a language model cannot be called {name!r}: that is another score")
    given = [f.name for f in fields(options) if f.name.startswith("test_")]
    if any(getattr(options, name) for name in given):
        _check_test(options)
    if not options.time_limit > 0:
        raise UsageError(f"--time_limit={options.time_limit:g}: must be above 0 CPU seconds")
    if options.gridsearch and options.method not in ("line", "grid"):
        raise UsageError(f"--gridsearch and --method={options.method}: give one of them")
    if options.cer_blanks and options.metric != "cer":
        raise UsageError("--cer_blanks goes with --metric=cer: words have no blanks")
    if options.ancestor_wer and (options.metric == "cer" or options.normalize):
        raise UsageError(
            "--ancestor_wer takes the WERs of the dump: no --metric=cer, no --normalize"
        )


def _check_test(options: RescoreOptions) -> None:
    if options.test_hyp is None or options.test_list is None:
        missing = "test_hyp" if options.test_hyp is None else "test_list"
        raise UsageError(f"missing --{missing}: the list that is not tuned on needs both")
    dev, test = options.scores(), options.scores(test=True)
    for name in dev:
        if name not in test:
            flag = f"--test_{name}=FILE" if name in ("tr", "convlm") else f"--test_lm {name}=FILE"
            raise UsageError(f"no scores of {name!r} for {options.test_hyp}: give {flag}")
    for name in test:
        if name not in dev:
            raise UsageError(
                f"scores of {name!r} for {options.test_hyp}, but none to tune with"
                f"{did_you_mean(name, dev)}"
            )


def parse_weights(text: str, names: tuple[str, ...]) -> dict[str, float]:
    """Return the weights of ``--in_wts``.

    Args:
        text: ``0.3,0.1,0.3`` in the order of the weights, or ``tr=0.3,len=0.3``; others are 0. The
            three numbers of rescore.py are tr, convlm and len; as there, that of a language model
            without scores is ignored.
        names: Of the weights.

    Raises:
        UsageError: There are too many or too few, an unknown name, or no number.

    Example:
        >>> parse_weights("0.3,0,0.1", ("tr", "len"))
        {'tr': 0.3, 'len': 0.1}
        >>> parse_weights("0.3,0.2,0.1", ("tr", "len"))
        {'tr': 0.3, 'len': 0.1}
        >>> parse_weights("0.3,0.2,0.1", ("tr", "lm", "len"))
        {'tr': 0.3, 'lm': 0.2, 'len': 0.1}
    """
    parts = [part.strip() for part in text.split(",")]
    pairs = [part.partition("=") for part in parts]
    ignored: set[str] = set()
    if all(equals for _, equals, _ in pairs):
        given = {name.strip(): value for name, _, value in pairs}
        if len(given) < len(pairs):
            raise UsageError(f"--in_wts={text}: a weight is given twice")
    elif len(parts) == len(names):
        given = dict(zip(names, parts, strict=True))
    elif len(parts) == 3 and set(ANCESTORS_WEIGHTS) >= set(names):
        given = dict(zip(ANCESTORS_WEIGHTS, parts, strict=True))
        ignored = {"tr", "convlm"} - set(names)
    else:
        raise UsageError(
            f"--in_wts={text}: {len(parts)} weights, expected {len(names)}: {','.join(names)}"
        )
    found = dict.fromkeys(names, 0.0)
    for name, value in given.items():
        number = parse_float(value)
        if number is None or not abs(number) < LARGEST_WEIGHT:
            raise UsageError(f"--in_wts={text}: {value!r} is no weight")
        if name in found:
            found[name] = number
        elif name not in ignored and (name not in ANCESTORS_WEIGHTS or number):
            raise UsageError(
                f"--in_wts={text}: there is no weight {name!r}{did_you_mean(name, names)} "
                f"(weights: {', '.join(names)})"
            )
    return found
