"""One decode sweep from its inputs to its answer: search, probe of the beam, held-out lists."""

from __future__ import annotations

import contextlib
import functools
import secrets
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from w2ltune.cluster.jobs import owned
from w2ltune.cluster.session import Session, connect
from w2ltune.decodeinput import DecodeInput
from w2ltune.decoderchoice import Decision, check_answer, keep_decision
from w2ltune.embedded.decoderflags import decoder_flags
from w2ltune.errors import StoppedError, TrialFailedError
from w2ltune.formats.beamdump import Hypothesis
from w2ltune.formats.listfile import list_name
from w2ltune.report.leaderboard import read_leaderboard
from w2ltune.report.progress import State, View, at_work, bar, say
from w2ltune.report.terminal import finish, write_best
from w2ltune.runs.lock import StudyLock
from w2ltune.runs.outcome import Choice, Look, Outcome, Probe, read_outcome, write_outcome
from w2ltune.runs.provenance import settle_request
from w2ltune.runs.rundir import make_shared
from w2ltune.runs.signals import by_hand, stopping_signals
from w2ltune.runs.trialdir import TrialDirectory, TrialResult
from w2ltune.scoring.nbestpool import Pool
from w2ltune.scoring.significance import bootstrap_interval
from w2ltune.search.choice import Decoded, choose, compare
from w2ltune.search.decodespace import example_flags
from w2ltune.search.linear import Box
from w2ltune.search.method import NOTE, PlainMethod, SearchMethod, has_baseline
from w2ltune.search.nbest import NBestSearch
from w2ltune.search.nbestsampler import linear_weights
from w2ltune.search.part import Found, Parts
from w2ltune.search.plan import Plan
from w2ltune.search.poolkey import same_but_searched
from w2ltune.search.probe import BEAM_FLAGS, Scene, choose_beam, look_first, probe
from w2ltune.search.pruning import PairedPruner
from w2ltune.search.run import StudyRun
from w2ltune.search.study import counted, open_study, settle
from w2ltune.search.surface import Surface
from w2ltune.trials.dataset import MOST_BLOCKS, read_utterance_counts, shuffled_order
from w2ltune.trials.dumps import write_dump

if TYPE_CHECKING:
    from rich.console import Console

    from w2ltune.trials.single import SomeDecoded

EXPECTED_DECODES = 5
"""What the n-best search takes as a rule; for the time that is left."""

LEAST_TRIALS = 3
"""With fewer no part of the list is decoded first: who asks for one decode gets one."""


def run(given: DecodeInput, decision: Decision, console: Console) -> int:
    """Run or continue a sweep, print its answer and return the exit code.

    Args:
        given: The sweep's inputs.
        decision: What decodes.
        console: Where to show it.
    """
    for finding in given.findings:
        say(console, f"  {finding}")
    with owned(given.folder) as lock:
        keep_seed = given.options.seed is None
        request = settle_request(given.folder / "sweep.json", given.request, keep_seed=keep_seed)
        keep_decision(given, decision)
        with DecodeSweep(replace(given, request=request), lock, console) as sweep:
            sweep.search()
            sweep.hold_out()
            sweep.check_answers()
            sweep.dump()
        return finish(given.folder, console, surfaces=sweep.surfaces())


class DecodeSweep:
    """The steps of a sweep whose study is ours; a context manager that ends Ray."""

    def __init__(self, given: DecodeInput, lock: StudyLock, console: Console) -> None:
        self.given = given
        self.lock = lock
        self.console = console
        self.trials = given.folder / "trials"
        make_shared(self.trials)
        self.study = open_study(given.folder, lock)
        self.settled = settle(self.study, self.trials, given.space)
        self.outcome = read_outcome(given.folder)
        self.method: SearchMethod | None = None
        self.beam: dict[str, str] = dict(given.auto)
        self._stack = contextlib.ExitStack()
        self._session: Session | None = None
        self._pool: Any = None
        self._pool_name = f"decoder-pool {given.folder.absolute()} {secrets.token_hex(8)}"
        self._tell_waits: Callable[[], None] = lambda: None
        board = read_leaderboard(given.folder)
        self.results: list[TrialResult] = list(board.results)
        self.earlier = len(self.results)
        if self.results or self.settled.interrupted:
            say(
                console,
                f"continuing {given.folder}: {self.settled.finished} trials finished before, "
                f"{len(self.settled.interrupted)} interrupted",
            )

    def __enter__(self) -> DecodeSweep:
        return self

    def __exit__(self, *exception: object) -> None:
        self._pool, self._tell_waits = None, lambda: None  # it lives as long as these references
        self._stack.close()

    # Searching.

    def search(self) -> None:
        """Search on a part of the list, then on all of it; then look at a wider beam."""
        self._write()
        begun = self._begin()
        if begun is not None:
            self._raise(begun.raised)
        self._search_at(self.beam, begun)
        choices = self._choose()
        self._write(choices=tuple(choices))
        if self.given.options.probe and not self.given.auto:
            self._probe(choices[0])

    def _raise(self, raised: Mapping[str, str]) -> None:
        """Take a wider beam, and nothing else that a file of others may say."""
        self.beam |= {name: value for name, value in raised.items() if name in self.beam}

    def _begin(self) -> Probe | None:
        """Return what a part of the list tells before the first trial, where that is needed."""
        before = [found for found in self.outcome.probes if found.trial < 0]
        given, auto = self.given, list(self.given.auto)
        if before or given.options.sampler != "nbest" or given.options.n < LEAST_TRIALS:
            return before[-1] if before else None
        others = given.space.distributions.keys() - set(linear_weights(given.space.distributions))
        if not auto and (others or self.results or given.warm):
            return None
        flags = {**example_flags(given.space), **self.beam}
        beam, box = _beam_of(flags), given.box(flags)
        scene = self._scene(flags, box)
        usual = zip(box.names, box.start().tolist(), strict=True)
        present = given.baseline or {}
        start = np.array([float(present.get(name, value)) for name, value in usual])
        start = np.clip(start, box.low, box.high)
        if auto:
            found: Probe | None = choose_beam(scene, beam=beam, auto=auto, start=start)
        else:
            found = look_first(scene, beam=beam, start=start)
        if found is not None:
            self._write(probes=(*self.outcome.probes, found))
            if found.advice:
                say(self.console, f"beam: {found.advice}")
        return found

    def _scene(self, flags: Mapping[str, str], box: Box) -> Scene:
        """Return what beams are compared on: parts of the dev lists, decoded beside the trials."""
        given = self.given
        fixed = {name: text for name, text in flags.items() if name not in box.names}
        words = np.array([len(r) for r in given.dataset.references[: given.dataset.dev_count]])
        order = shuffled_order(given.dataset.dev_count)

        def decode(flags: Mapping[str, str], utterances: Sequence[int]) -> Found:
            what = f"{len(utterances)} utterances at beamsize {decoder_flags(flags).beamsize}"
            found = self._decode_some(flags, utterances, what, nbest=given.options.nbest)
            assert found.nbest is not None
            return found.counts, found.nbest, found.work_seconds, found.linear

        return Scene(
            parts=Parts(decode, fixed, box, order, words.astype(np.int32)),
            clusters=given.clusters,
            audio_seconds=given.audio_seconds,
            token_count=given.token_count,
            max_rtf=given.options.max_rtf,
        )

    def _search_at(self, beam: Mapping[str, str], begun: Probe | None) -> None:
        options = self.given.options
        space = replace(self.given.space, fixed={**self.given.space.fixed, **beam})
        if options.sampler == "nbest":
            self.method = NBestSearch(
                study=self.study,
                trials=self.trials,
                space=space,
                box=self.given.box,
                key=self.given.key,
                targets=self.given.targets(),
                trial_count=options.n,
                seed=self.given.request.seed,
                beam=beam,
                start=begun.start if begun else None,
                level=begun.level if begun else 0.0,
                warm=self.given.warm,
            )
        else:
            self.method = PlainMethod(
                options.sampler,
                seed=self.given.request.seed,
                distributions=space.distributions,
                trial_count=options.n,
            )
        due = self.given.baseline is not None and not has_baseline(self.study)
        if due and self.settled.finished >= options.n:
            self.console.print("--baseline: all trials are done; a larger --n lets it be decoded")
        over = self.settled.finished >= options.n or (self.method.finished() and not due)
        if over and not self.settled.interrupted:
            self._write(reason=self.method.finished() or f"all {options.n} trials are done")
            return
        pool = self._decoder_pool()
        from w2ltune import tuner
        from w2ltune.trials.decoding import RESOURCES, DecodeTrial, LiveTrials
        from w2ltune.trials.resources import trials_that_fit

        session = self._session
        assert session is not None and pool is not None
        pruner = PairedPruner() if options.pruner == "paired" else None
        if pruner is not None:
            self._restore_incumbent(pruner)
        live_trials = options.concurrent_trials
        plan = Plan(
            study=self.study,
            trials=self.trials.absolute(),
            space=space,
            method=self.method,
            trial_count=options.n,
            live_trials=live_trials,
            settled=self.settled,
            pruner=pruner,
            score=lambda result: self.given.score(result["utterance_counts"]),
            on_result=self._on_result,
            config=self._config,
            is_ours=self.lock.is_ours,
            generation=self.lock.generation,
            capacity=LiveTrials(live_trials),
            baseline=self.given.baseline,
            beam=beam,
        )
        if options.sampler == "nbest":
            say(self.console, self.given.disk_note())
        started = time.monotonic()

        def show(run: StudyRun) -> None:
            self._tell_waits()
            view.show(self._state(run, started))

        with View(self.console, metric=options.metric) as view:
            reason = tuner.run(
                plan,
                DecodeTrial,
                resources=RESOURCES,
                private=session.scratch / "tune",
                show=show,
                fits=lambda: session.lives() and trials_that_fit([{"CPU": 1}]) > 0,
                node_wait_minutes=session.node_wait_minutes(options.node_wait_minutes),
            )
        reason = reason or f"all {options.n} trials are done"
        if isinstance(self.method, NBestSearch) and self.method.nonlinear:
            reason += f" (by tpe, because {self.method.nonlinear})"
        self._write(reason=reason)

    def _config(self, flags: Mapping[str, str]) -> Mapping[str, Any]:
        """Tell a trial who decodes it, which n-best lists it keeps, and where they belong."""
        given = {"pool": self._pool_name, "most_blocks": MOST_BLOCKS, "nbest": 0, "key": ""}
        if self.given.by_binary and self._session is not None:  # each block is a start of it
            given["most_blocks"] = 2 * self._session.cores
        if self.given.options.sampler == "nbest":
            given |= {"nbest": self.given.options.nbest, "key": self.given.key(flags)}
        return given

    def _state(self, run: StudyRun, started: float) -> State:
        with run.lock:
            running = at_work(run.live.values())
            few = self.given.options.sampler == "nbest" and not any(
                trial.user_attrs.get(NOTE, {}).get("how") == "tpe" for trial in counted(self.study)
            )
            most = self.given.options.n
            expected = max(EXPECTED_DECODES, len(self.results) + 1)
            return State(
                earlier=self.earlier,
                results=list(self.results),
                running=running,
                budget=min(most, expected) if few else most,
                most=most,
                seconds=time.monotonic() - started,
            )

    def _on_result(self, result: TrialResult) -> None:
        self.results.append(result)
        write_best(self.given.folder, self.results, metric=self.given.options.metric)

    def _restore_incumbent(self, pruner: PairedPruner) -> None:
        best = read_leaderboard(self.given.folder).best
        if best is not None:
            counts = self._utterance_counts(best, shuffled=True)
            errors = counts[:, :3].sum(axis=1)
            pruner.take_incumbent(best.value, errors, number=best.number)

    def _utterance_counts(self, result: TrialResult, *, shuffled: bool) -> npt.NDArray[np.int32]:
        return read_utterance_counts(
            TrialDirectory(self.trials, result.number).utterances,
            total=result.counts,
            rows=self.given.dataset.dev_count,
            shuffled=shuffled,
        )

    # The answer.

    def _decoded(self) -> list[Decoded]:
        notes = [trial.user_attrs.get(NOTE, {}) for trial in self.study.get_trials(deepcopy=False)]
        return [
            Decoded(
                result=result,
                counts=self._utterance_counts(result, shuffled=False),
                note=notes[result.number],
            )
            for result in sorted(self.results, key=lambda result: result.number)
            if result.state == "COMPLETE"
        ]

    def _choose(self) -> list[Choice]:
        """Return the answer for each list; the first one is that of all lists together."""
        decoded = self._decoded()
        if not decoded:
            first = min(self.results, key=lambda result: result.number, default=None)
            reason = first.reason if first else "there was none"
            raise TrialFailedError(f"no trial succeeded: {reason}")
        baseline = next((d for d in decoded if d.note.get("how") == "baseline"), None)
        self._write(baseline_trial=None if baseline is None else baseline.result.number)
        # The answer is at the beam that was asked for, whatever the baseline's was.
        candidates = [
            d for d in decoded if d is not baseline or self._as_asked(d.result)
        ] or decoded
        targets = {"": np.arange(self.given.dataset.dev_count), **self.given.targets()}
        return [
            choose(
                candidates,
                target=target,
                utterances=utterances,
                clusters=self.given.clusters(utterances),
                baseline=baseline,
                middle=self._middle(target),
                oracle=self._oracle(decoded[0].result.flags, utterances),
            )
            for target, utterances in targets.items()
        ]

    def _as_asked(self, result: TrialResult) -> bool:
        """Whether a trial differs from the command in searched flags only."""
        searched = {n: result.flags[n] for n in self.given.space.distributions if n in result.flags}
        asked = {**result.flags, **self.given.space.fixed, **self.beam, **searched}
        same_key = self.given.key(asked) == self.given.key(result.flags)
        return same_key and same_but_searched(asked, result.flags)

    def _oracle(self, flags: Mapping[str, str], utterances: npt.NDArray[np.intp]) -> float | None:
        pool = self._nbest_pool(flags)
        if pool is None:
            return None
        own = pool.subset(utterances)
        return own.oracle_errors() / own.reference_words

    def _middle(self, target: str) -> int | None:
        if not isinstance(self.method, NBestSearch) or target not in self.given.targets():
            return None
        return self.method.middle(target)

    def _nbest_pool(self, flags: Mapping[str, str]) -> Pool | None:
        if isinstance(self.method, NBestSearch):
            return self.method.pool(self.given.key(flags))
        return None

    def surfaces(self) -> list[Surface]:
        """Return the error rates over the linear weights, around each answer."""
        if not isinstance(self.method, NBestSearch):
            return []
        answers = {choice.target: choice for choice in self.outcome.choices}
        return [
            surface
            for target in self.given.targets()
            if (surface := self.method.surface(answers[target].trial, target)) is not None
        ]

    # Decodes beside the trials.

    def _probe(self, choice: Choice) -> None:
        """Measure what a wider beam than the answer's gives."""
        chosen = next(d for d in self._decoded() if d.result.number == choice.trial)
        flags, box = chosen.result.flags, self.given.box(chosen.result.flags)
        beam = _beam_of(flags)
        values = np.array([float(flags[name]) for name in box.names])
        for known in self.outcome.probes:
            if known.trial == choice.trial and dict(known.rows[0].beam) == beam:
                return
        found = probe(
            self._scene(flags, box),
            trial=choice.trial,
            beam=beam,
            values=np.where(np.isfinite(values), values, box.low),
            counts=chosen.counts,
            seconds=chosen.result.work_seconds,
            has_lm=self.given.has_lm,
        )
        self._write(probes=(*self.outcome.probes, found))

    def check_answers(self) -> None:
        """Hold each answer against the binary, where there is one and the answer is in process."""
        if (
            self.given.program is None
            or self.given.by_binary
            or self.given.options.decoder != "auto"
        ):
            return
        for choice in self.outcome.choices:
            flags = next(r.flags for r in self.results if r.number == choice.trial)
            known = [check.flags for check in self.outcome.checks if check.equal]
            if flags not in known:
                found = check_answer(self.given, flags, self.console)
                kept = [check for check in self.outcome.checks if check.flags != flags]
                self._write(checks=(*kept, found))

    def _chosen_for(self, number: int) -> TrialResult:
        """Return the answer for a held-out list."""
        choices = [c for c in self.outcome.choices if c.target] or list(self.outcome.choices)
        # As many held-out lists as dev lists belong together in order.
        matched = len(self.given.dataset.task.heldout) == len(choices)
        choice = choices[number] if matched else self.outcome.choices[0]
        return next(result for result in self.results if result.number == choice.trial)

    def dump(self) -> None:
        """Write all hypotheses of the answer, of dev and held-out lists, for rescoring."""
        if not self.given.options.dump:
            return
        folder = self.given.folder / "dumps"
        make_shared(folder)
        dev = self.given.list_names
        for number, name in enumerate([*dev, *map(list_name, self.given.dataset.task.heldout)]):
            if number < len(dev):
                by_name = {choice.target: choice.trial for choice in self.outcome.choices}
                trial = by_name.get(name, self.outcome.choices[0].trial)
                chosen = next(result for result in self.results if result.number == trial)
            else:
                chosen = self._chosen_for(number - len(dev))
            utterances = self.given.utterances_of(number).tolist()
            lists = self._decode_lists(chosen.flags, utterances, f"beam dump of {name}")
            written = write_dump(folder, name, self.given.dataset, utterances, lists)
            say(self.console, f"beam dump: {written}")

    def hold_out(self) -> None:
        """Decode each held-out list once with the answer; a changed answer does not look again."""
        given = self.given
        for number, name in enumerate(map(list_name, given.dataset.task.heldout)):
            chosen = self._chosen_for(number)
            before = [look for look in self.outcome.looks if look.name == name]
            if before and (before[-1].flags == chosen.flags or not given.options.look_again):
                if before[-1].flags != chosen.flags:
                    say(
                        self.console,
                        f"{name} was decoded with trial {before[-1].trial}, but the answer is trial"
                        f" {chosen.number} now; --look_again decodes it once more, and says so",
                    )
                continue
            look = self._look(name, len(given.list_names) + number, chosen)
            self._write(looks=(*self.outcome.looks, look))

    def _look(self, name: str, number: int, chosen: TrialResult) -> Look:
        utterances = self.given.utterances_of(number)
        found = self._decode_some(chosen.flags, utterances.tolist(), f"held-out {name}")
        counts, missing = found.counts, found.missing
        clusters = self.given.clusters(utterances)
        interval = bootstrap_interval(counts[:, :3].sum(axis=1), counts[:, 3], clusters)
        baseline = next((r for r in self.results if r.number == self.outcome.baseline_trial), None)
        total, comparison = None, None
        if baseline is not None:
            what = f"held-out {name} with the baseline"
            theirs = self._decode_some(baseline.flags, utterances.tolist(), what).counts
            total, comparison = _total(theirs), compare(counts, theirs, clusters)
        return Look(
            name=name,
            trial=chosen.number,
            flags=dict(chosen.flags),
            counts=_total(counts),
            interval=(interval.low, interval.high),
            unit=f"{interval.unit} ({interval.count})",
            missing=missing,
            baseline=total,
            against_baseline=comparison,
        )

    def _decode_some(
        self, flags: Mapping[str, str], utterances: Sequence[int], what: str, *, nbest: int = 0
    ) -> SomeDecoded:
        pool = self._decoder_pool()
        from w2ltune.trials.single import BLOCKS, decode_some

        # Each block is a start of the binary.
        most = self._session.cores if self.given.by_binary and self._session else BLOCKS
        with self._shown(what) as show:
            return decode_some(pool, flags, utterances, nbest=nbest, most_blocks=most, **show)

    def _decode_lists(
        self, flags: Mapping[str, str], utterances: Sequence[int], what: str
    ) -> list[tuple[Hypothesis, ...]]:
        pool = self._decoder_pool()
        from w2ltune.trials.single import decode_lists

        nbest = decoder_flags(flags).beamsize
        with self._shown(what) as show:
            return decode_lists(pool, flags, utterances, nbest=nbest, **show)

    @contextlib.contextmanager
    def _shown(self, what: str) -> Iterator[dict[str, Any]]:
        """Show the progress of a decode, and let signals stop it."""
        reasons: list[str] = []

        def progress(part: float) -> None:
            self._tell_waits()
            show(part)

        with stopping_signals(reasons.append), bar(self.console, what) as show:
            try:
                yield {"progress": progress, "stopped": lambda: reasons[0] if reasons else ""}
            except StoppedError as error:
                at_hand = by_hand("".join(reasons[:1]))  # or there is no pool any more
                raise StoppedError(str(error), interrupted=at_hand) from None

    def _decoder_pool(self) -> Any:
        """Return the pool of decoder workers, on a Ray cluster that is started when needed."""
        if self._pool is None:
            self.console.print("starting Ray")
            # Ray reads its environment when it is imported: only after the connection.
            options = self.given.options
            self._session = self._stack.enter_context(
                connect(f"sweep:{options.prefix}", cores=options.cores)
            )
            if dashboard := self._session.dashboard_line():
                say(self.console, dashboard)
            from w2ltune.trials.pool import start_pool, waits_told

            dataset = self.given.dataset
            self._pool = start_pool(
                dataset.task,
                dataset.ids[: dataset.dev_count],
                self._session.scratch.name,
                name=self._pool_name,
            )
            if dataset.task.gpu:  # without one, the first worker has a place always
                self._tell_waits = waits_told(self._pool, functools.partial(say, self.console))
        return self._pool

    def _write(self, **changes: Any) -> None:
        """Change and write ``outcome.json``."""
        first: dict[str, Any] = {
            "sampler": self.given.options.sampler,
            "audio_seconds": self.given.audio_seconds(range(self.given.dataset.dev_count)),
        }
        greedy = [finding.value for finding in self.given.findings if finding.value is not None]
        if greedy:
            first["baselines"] = {"greedy": greedy[0]}
        new: Outcome = replace(self.outcome, **{**first, **changes})
        if new != self.outcome:
            self.outcome = new
            write_outcome(self.given.folder, new)


def _beam_of(flags: Mapping[str, str]) -> dict[str, str]:
    typed = decoder_flags(flags)
    return {name: f"{getattr(typed, name):.12g}" for name in BEAM_FLAGS}


def _total(counts: npt.NDArray[np.int32]) -> tuple[int, int, int, int]:
    total = counts.sum(axis=0, dtype=np.int64).tolist()
    return total[0], total[1], total[2], total[3]
