"""Everything that a decode sweep is given, checked and put together before the first decode."""

from __future__ import annotations

import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from shlex import quote

import numpy as np
import numpy.typing as npt

from w2ltune.binaryrules import check_decoder
from w2ltune.decodeprogram import piece_note, settle_flags, with_model_flags
from w2ltune.embedded.decoderfiles import read_tokens, unknown_spelling
from w2ltune.embedded.decoderflags import decoder_flags, refuse_in_process
from w2ltune.errors import UsageError
from w2ltune.formats.blanks import split_words
from w2ltune.formats.listfile import list_name
from w2ltune.formats.nbest import BYTES_PER_HYPOTHESIS, NBest
from w2ltune.idleflags import idle_flags
from w2ltune.listcheck import refuse_unknown_word
from w2ltune.runs.outcome import NAME as OUTCOME
from w2ltune.runs.provenance import (
    SweepRequest,
    fingerprint,
    fingerprints,
    git_commit,
    read_request,
    require_same,
    versions,
)
from w2ltune.samplerchoice import settle_sampler
from w2ltune.scoring.significance import Clusters, bootstrap_interval, clusters_from_ids
from w2ltune.scoring.text import read_otherwise, what_is_counted
from w2ltune.search.decodespace import (
    complete_space,
    example_flags,
    input_paths,
    make_box,
    read_baseline,
)
from w2ltune.search.linear import Box
from w2ltune.search.plan import Score
from w2ltune.search.poolkey import pool_key, warm_lists
from w2ltune.search.space import SearchSpace
from w2ltune.sweepoptions import SweepOptions
from w2ltune.trials.binarydecoder import refuse_ids
from w2ltune.trials.dataset import Dataset, DecodeProgram, require_same_counts, shuffled_order
from w2ltune.trials.dumps import refuse_dump_ids
from w2ltune.trials.emissionsource import EmissionSource
from w2ltune.trials.ending import bare_beginnings, end_tokens, padding_note
from w2ltune.trials.findtask import find_task
from w2ltune.trials.greedy import Finding
from w2ltune.trials.sanity import check_all_emissions, look_at, refuse_absurd

AM, BINARY = "--am", "--binary"
"""Inputs that stay the same when their files move."""


@dataclass(frozen=True, kw_only=True)
class DecodeInput:
    """What a decode sweep works with.

    Attributes:
        options: The command's options; ``sampler`` is a name, not "auto".
        space: What is searched.
        auto: Beam flags that w2ltune chooses, with their first values; part of ``space.fixed``.
        dataset: Utterances, references and emissions.
        request: What ``sweep.json`` is to hold.
        baseline: Flags of the first trial; None without one.
        token_count: Tokens of the model.
        has_lm: Whether a language model is searched with.
        findings: What is worth knowing of the inputs; empty when they were looked at before.
        program: The binary, if one was given.
        by_binary: Why it has to decode; "" where the decoder in process may.
        made_of: Inputs that stand for the emissions of the dev lists, where w2ltune makes them.
        warm: N-best lists of the earlier sweep of ``--warm_start``, by key.
    """

    options: SweepOptions
    space: SearchSpace
    auto: Mapping[str, str]
    dataset: Dataset
    request: SweepRequest
    baseline: Mapping[str, str] | None
    token_count: int
    has_lm: bool
    findings: Sequence[Finding]
    program: DecodeProgram | None
    by_binary: str
    made_of: Sequence[str] = ()
    warm: Mapping[str, NBest] = field(default_factory=dict)

    @property
    def folder(self) -> Path:
        """The study's folder."""
        return self.options.folder

    @property
    def list_names(self) -> list[str]:
        """The dev lists by name."""
        return [list_name(path) for path in self.dataset.task.lists]

    def utterances_of(self, number: int) -> npt.NDArray[np.intp]:
        """Return the utterances of a list, held-out lists after the dev lists."""
        return np.flatnonzero(np.array(self.dataset.list_of) == number)

    def targets(self) -> dict[str, npt.NDArray[np.intp]]:
        """Return what weights are searched for: each list by name, or "" for all together."""
        if len(self.list_names) > 1 and self.options.tune_for == "each":
            return {name: self.utterances_of(n) for n, name in enumerate(self.list_names)}
        return {"": np.arange(self.dataset.dev_count)}

    def clusters(self, utterances: Sequence[int] | npt.NDArray[np.intp]) -> Clusters:
        """Return what is resampled for an interval over these utterances."""
        return clusters_from_ids([self.dataset.ids[i] for i in utterances], self.options.cluster)

    def key(self, flags: Mapping[str, str]) -> str:
        """Return the name of the pool of a trial's flags."""
        task = self.dataset.task
        emissions = self.made_of or [str(path) for path in task.emissions[: len(task.lists)]]
        data = [*map(str, task.lists), *emissions]
        data += [str(task.normalize)] if task.normalize else []
        by = self.program if self.by_binary else None
        return pool_key(
            flags,
            data=data,
            scoring=self.request.scoring,
            inputs=self.request.inputs,
            programs=() if by is None else (BINARY, AM) if by.am else (BINARY,),
        )

    def audio_seconds(self, utterances: Sequence[int] | npt.NDArray[np.intp]) -> float | None:
        """Return the length of some utterances; None where the list does not tell."""
        lengths = [self.dataset.utterances[i].duration_milliseconds for i in utterances]
        known = [length for length in lengths if length]
        return sum(known) / 1000 if len(known) == len(lengths) else None

    def score(self, counts: npt.NDArray[np.int32]) -> Score:
        """Return interval and counts by list of a whole decode, in the shuffled order."""
        ordered = np.empty_like(counts)
        ordered[shuffled_order(self.dataset.dev_count)] = counts
        clusters = self.clusters(range(self.dataset.dev_count))
        found = bootstrap_interval(ordered[:, :3].sum(axis=1), ordered[:, 3], clusters)
        lists: dict[str, tuple[int, ...]] = {}
        if len(self.list_names) > 1:
            for number, name in enumerate(self.list_names):
                own = ordered[self.utterances_of(number)]
                lists[name] = tuple(own.sum(axis=0, dtype=np.int64).tolist())
        return Score(
            interval=(found.low, found.high), unit=f"{found.unit} ({found.count})", lists=lists
        )

    def box(self, flags: Mapping[str, str]) -> Box:
        """Return the box of linear weights, with a trial's other weights."""
        return make_box(self.space.distributions, flags)

    def disk_note(self) -> str:
        """Return how much disk the n-best lists will take at most."""
        flags = decoder_flags(example_flags(self.space))
        each = min(flags.beamsize, self.options.nbest) * self.dataset.dev_count
        mib = each * BYTES_PER_HYPOTHESIS / 2**20
        return f"n-best lists: at most {mib:.1f} MiB a trial on disk"


def prepare(
    options: SweepOptions,
    space: SearchSpace,
    *,
    command: Sequence[str],
    sources: Sequence[EmissionSource] = (),
) -> DecodeInput:
    """Check the inputs and put them together.

    Args:
        options: Of the command.
        space: Its flags.
        command: Its arguments.
        sources: How the emissions of each list are made, instead of ``--emission_dir``. While some
            are not made yet, all is checked that does not need them.

    Raises:
        W2LTuneError: Something is missing, damaged or does not fit, or the folder holds another
            sweep.
    """
    given, with_stored = space.fixed, with_model_flags(space).fixed
    space, auto, flags, program, by_binary = settle_flags(options, space)
    stored = [f"--{n}={quote(v)}" for n, v in sorted(with_stored.items()) if n not in given]
    tokens = read_tokens(flags.tokens_path)
    token_count = len(tokens) + (flags.criterion == "ctc") + flags.replabel
    space = complete_space(space, flags, tokens)
    example = example_flags(space)
    options, why_sampler = settle_sampler(options, space, flags, auto, by_binary=bool(by_binary))
    baseline, left = None, list[str]()
    if options.baseline is not None:
        baseline, left = read_baseline(options.baseline, example)
        before = {**example, **baseline}
        if not by_binary:
            refuse_in_process(decoder_flags(before))
        else:
            assert program is not None
            check_decoder(decoder_flags(before), before, program.generation, by_binary=True)
    task = find_task(
        example,
        metric="cer" if options.metric == "cer" else "wer",
        normalize=options.normalize,
        ignore_case=options.ignore_case,
        heldout=options.heldout,
        program=program if by_binary else None,
        emissions=_emissions(sources) if sources else None,
    )
    folder = str(Path.cwd())
    task = replace(
        task,
        cer_blanks=options.cer_blanks,
        stage_lm=options.stage_lm,
        gpu=options.gpu > 0,
        folder=folder,
    )
    dataset = Dataset(task)
    _check_utterances(dataset, options, by_binary=bool(by_binary))
    free, no_end = end_tokens(dataset, flags, tokens)
    if no_end and program is None and not sources:  # else as the binary decodes
        dataset.task = task = replace(task, end_tokens=free)
    if program is not None and options.decoder != "process":
        for utterance in dataset.utterances:
            refuse_unknown_word(utterance.reference, f"the reference of {utterance.id!r}")
    if options.warm_start is not None:
        warm_lists(options.warm_start)
        require_same_counts(dataset, options.warm_start)
    inputs = fingerprints(
        input_paths(space, replace(task, emissions=()) if sources else task, baseline)
    )
    inputs |= {source.role: source.content for source in sources if source.path in task.lists}
    if program is not None:
        inputs[BINARY] = fingerprint(Path(program.path))
    if sources or (program is not None and program.am):
        inputs[AM] = fingerprint(Path(example["am"]))
    scoring = {
        "metric": options.metric,
        "normalize": str(options.normalize or ""),
        "ignore_case": str(options.ignore_case).lower(),
        "cluster": options.cluster or "",
    }
    if task.end_tokens:
        scoring["end_frame"] = flags.wordseparator
    if task.metric == "cer":
        scoring["cer_blanks"] = str(options.cer_blanks).lower()
    if len(task.lists) > 1:
        scoring["tune_for"] = options.tune_for
    searched = {name: str(value) for name, value in space.distributions.items()}
    searched |= dict.fromkeys(auto, "auto")
    if space.script is not None:
        searched["space"] = str(space.script)
    request = SweepRequest(
        task="decode",
        flags={name: value for name, value in space.fixed.items() if name not in auto},
        space=searched,
        scoring=scoring,
        inputs=inputs,
        seed=secrets.randbelow(2**31) if options.seed is None else options.seed,
        versions=versions(),
        commit=git_commit(),
        command=tuple(command),
    )
    path = options.folder / "sweep.json"
    old = read_request(path)
    if old is not None:
        require_same(old, request, path=path)
        require_same_counts(dataset, options.folder)
    counted = what_is_counted(task.metric, dataset.references, blanks=task.cer_blanks)
    findings = [Finding(text=counted)] if counted else []
    generation = None if program is None else program.generation
    idle = idle_flags(given, flags, tokens, generation=generation, by_binary=bool(by_binary))
    idle += [f"of --baseline={options.baseline} not used: {', '.join(left)}"] * bool(left)
    findings += [Finding(text=line) for line in idle]
    if by_binary and program is not None:
        findings += [Finding(text=f"decoded by {Path(program.path).name}: {by_binary}")]
    if stored:
        findings.append(Finding(text=f"as stored in {example['am']}: {' '.join(stored)}"))
    if no_end:
        added = "one more frame behind each has room for it"
        lost = "last words may be lost, and are lost to the binary just so"
        findings.append(Finding(text=no_end, advice=added if task.end_tokens else lost))
    if no_mark := bare_beginnings(dataset, flags, tokens):
        findings.append(
            Finding(text=no_mark, advice="first words may be lost: spell words without it as well")
        )
    if why_sampler:
        findings.append(Finding(text=why_sampler))
    if flags.lexicon and (spelled := unknown_spelling(Path(flags.lexicon))):
        findings += [Finding(text=spelled)]
    # What is found goes to the outcome: a kill before that loses nothing.
    if old is None or old.inputs != request.inputs or not (options.folder / OUTCOME).exists():
        odd = read_otherwise(word for text in dataset.texts for word in split_words(text))
        findings += [Finding(text=odd)] if odd else []
        found = look_at(dataset, flags, by_binary=bool(by_binary))
        if not options.allow_absurd_input:
            refuse_absurd(found)
        notes = [piece_note(given, flags, tokens), *dataset.notes, padding_note(dataset)]
        findings += [*(Finding(text=note) for note in notes if note), *found]
    elif task.heldout:  # they may be new to an old sweep
        check_all_emissions(dataset, None if by_binary else token_count)
    return DecodeInput(
        options=options,
        space=space,
        auto=auto,
        dataset=dataset,
        request=request,
        baseline=baseline,
        token_count=token_count,
        has_lm=bool(flags.lm),
        findings=findings,
        program=program,
        by_binary=by_binary,
        made_of=[source.role for source in sources if source.path in task.lists],
    )


def _emissions(sources: Sequence[EmissionSource]) -> list[Path]:
    made = all(source.whole() for source in sources)
    return [source.emissions for source in sources] if made else []


def _check_utterances(dataset: Dataset, options: SweepOptions, *, by_binary: bool) -> None:
    """Refuse lists that cannot hold out to the end of what is asked."""
    if options.max_rtf is not None and any(not u.duration_milliseconds for u in dataset.utterances):
        raise UsageError(
            f"--max_rtf={options.max_rtf:g}: the lists do not tell how long each utterance is"
        )
    if by_binary:
        refuse_ids(dataset)
    if options.dump:
        refuse_dump_ids(dataset)
    clusters_from_ids(dataset.ids, options.cluster)
