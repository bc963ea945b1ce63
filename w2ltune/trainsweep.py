"""A training, or a sweep of trainings, from its inputs to its answer."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from w2ltune.cluster.jobs import owned
from w2ltune.cluster.session import connect
from w2ltune.cluster.slurmoptions import submits
from w2ltune.cluster.submit import submit_command
from w2ltune.errors import TrialFailedError, UsageError
from w2ltune.formats.flagsfile import Flag
from w2ltune.report.leaderboard import read_leaderboard
from w2ltune.report.progress import State, View, at_work, bar, make_console, say
from w2ltune.report.trainingterminal import finish_single, finish_training
from w2ltune.runs.diskbudget import disk_note
from w2ltune.runs.lock import StudyLock
from w2ltune.runs.provenance import read_request, require_same, settle_request
from w2ltune.runs.rundir import claim, has_checkpoints, make_shared, refuse_overwriting
from w2ltune.runs.sharing import share
from w2ltune.runs.signals import stopping_signals
from w2ltune.runs.trialdir import TrialDirectory, TrialResult
from w2ltune.search.method import PlainMethod
from w2ltune.search.plan import Plan
from w2ltune.search.pruning import EpochPruner
from w2ltune.search.run import StudyRun
from w2ltune.search.study import Settled, open_study, settle, tell
from w2ltune.traincheck import valid_sets
from w2ltune.traininput import TrainInput, prepare_training, with_gpus
from w2ltune.trainoptions import JobOptions, TrainSweepOptions
from w2ltune.trials.keeper import keep_again
from w2ltune.trials.rescoringinput import Rescoring, prepare_rescoring

if TYPE_CHECKING:
    from rich.console import Console

SUPERSEDED = "continued with other flags"


def check_folder(given: TrainInput) -> Rescoring | None:
    """Return what ``--rescore_top`` needs, if it is given; nothing is written."""
    path = given.folder / "sweep.json"
    old = read_request(path)
    if given.job.mode != "continue" and old is not None:
        require_same(old, given.request, path=path)
    elif given.job.mode != "continue" and given.single:
        refuse_overwriting(given.folder)
    options = given.options
    if not (isinstance(options, TrainSweepOptions) and options.rescore_top):
        return None
    return prepare_rescoring(
        given.job,
        top=options.rescore_top,
        lists=valid_sets(given.space.fixed.get("valid", "")),
        flags=given.space.fixed,
        test_binary=options.test_binary,
    )


def run_or_submit(
    module: str, options: JobOptions, flags: Mapping[str, Flag], arguments: Sequence[str]
) -> int:
    """Run or continue what a command asks for, or submit it; return the exit code."""
    given = prepare_training(options, flags, command=arguments)
    if submits(options, local=options.local):
        check_folder(given)
        return submit_command(
            module, arguments, study=given.folder, options=options, gpus=given.gpus
        )
    return run(given, make_console())


def run(given: TrainInput, console: Console) -> int:
    """Run or continue a training or a sweep of them; print the answer, return the exit code."""
    rescoring = check_folder(given)
    for note in given.notes:
        say(console, f"  {note}")
    share(given.folder)
    path = given.folder / "sweep.json"
    begun = path.exists()
    make_shared(given.folder)
    if given.options.config is not None and given.job.mode != "continue":
        claim(given.folder, given.options.config)
    with owned(given.folder) as lock:
        request = given.request
        if given.job.mode != "continue" or not begun:
            keep_seed = getattr(given.options, "seed", None) is None
            request = settle_request(path, request, keep_seed=keep_seed)
        TrainSweep(replace(given, request=request), lock, console, rescoring).run()
        if given.single:
            return finish_single(given.folder, console)
        return finish_training(given.folder, console)


class TrainSweep:
    """The trainings of a study that is ours; ``rescoring`` decodes the best ones again."""

    def __init__(
        self,
        given: TrainInput,
        lock: StudyLock,
        console: Console,
        rescoring: Rescoring | None = None,
    ) -> None:
        self.given = given
        self.lock = lock
        self.rescoring = rescoring
        self.console = console
        self.trials = given.folder / "trials"
        make_shared(self.trials)
        self.study = open_study(given.folder, lock)
        self.settled = settle(self.study, self.trials, given.space)
        if given.single:
            self.settled = self._supersede(self.settled)
        self.results: list[TrialResult] = list(read_leaderboard(given.folder).results)
        self.earlier = len(self.results)
        self.trial_count = self._count_trials()
        if self.results or self.settled.interrupted:
            say(
                console,
                f"continuing {given.folder}: {self.settled.finished} finished before, "
                f"{len(self.settled.interrupted)} interrupted",
            )

    def _count_trials(self) -> int:
        """Return the trials in all: of a single training one for each set of flags it was given."""
        if isinstance(self.given.options, TrainSweepOptions):
            return 1 if self.given.options.local else self.given.options.n
        done = self.settled.finished
        if self.settled.interrupted:
            return done + len(self.settled.interrupted)
        newest = max(self.results, key=lambda result: result.number, default=None)
        fixed = dict(self.given.space.fixed)
        if newest and newest.state == "COMPLETE" and dict(newest.flags) == fixed:
            return done  # nothing is left to be done with these flags
        return done + 1  # the first one, one with other flags, or once more after a failure

    def _supersede(self, settled: Settled) -> Settled:
        """Close interrupted trainings of this run directory whose flags are no longer meant."""
        going_on = []
        for trial in settled.interrupted:
            directory = TrialDirectory(self.trials, trial.number)
            flags = directory.read_flags()
            if flags == dict(self.given.space.fixed):
                going_on.append(trial)
                continue
            result = TrialResult(
                number=trial.number, attempt=directory.attempt(), state="FAIL", value=None,
                flags=flags, reason=SUPERSEDED,
            )  # fmt: skip
            directory.write_result(result)
            tell(self.study, trial.number, result)
        closed = len(settled.interrupted) - len(going_on)
        return replace(settled, finished=settled.finished + closed, interrupted=tuple(going_on))

    def run(self) -> None:
        """Run what is to be run.

        Raises:
            TrialFailedError: No training succeeded.
        """
        left = self.settled.finished < self.trial_count or self.settled.interrupted
        if left or (self.rescoring is not None and self.rescoring.due(self.results)):
            self._run()
        newest = max(self.results, key=lambda result: result.number, default=None)
        if newest is None:
            raise TrialFailedError("no training was started")
        complete = [result for result in self.results if result.state == "COMPLETE"]
        for result in complete:
            directory = TrialDirectory(self.trials, result.number)
            keep_again(directory, budget_bytes=self.given.job.disk_budget_bytes)
        failed = newest if self.given.single and newest.state == "FAIL" else None
        if failed is None and not complete:
            failed = min(self.results, key=lambda result: result.number)
        if failed is not None:
            logs = "" if self.given.single else f"trials/{failed.number:04d}/run/"
            where = self.given.folder / f"{logs}logs"
            raise TrialFailedError(f"the training failed: {failed.reason} (logs: {where})")

    def _run(self) -> None:
        given, options = self.given, self.given.options
        sets = len(valid_sets(given.space.fixed.get("valid", "")))
        disk = disk_note(
            given.folder,
            models=given.job.keep + 2 * sets + 2 * (1 + sets),  # best ones; the program's own
            budget_bytes=given.job.disk_budget_bytes,
            forked=[Path(given.job.model_path)] if given.job.model_path else [],
        )
        self._say(disk)
        parent = given.folder.absolute().parent.name
        with connect(f"{parent}:{given.folder.name}", cores=options.cores) as session:
            from w2ltune import tuner
            from w2ltune.trials.resources import cluster_gpus, trials_that_fit
            from w2ltune.trials.sharing import Patience, Room
            from w2ltune.trials.training import TrainTrial

            job = with_gpus(given.job, options, gpus=cluster_gpus())
            if given.single and self.results and has_checkpoints(given.folder):
                job = replace(job, mode="continue")  # once more, after a failure
            if not job.gpus_per_node and options.binary and options.ngpu is None:
                self.console.print("  no GPU in the cluster: training on the CPU (--ngpu)")
            if session.local and not trials_that_fit(job.bundles):
                raise UsageError(
                    f"--ngpu={options.ngpu or 0} --cpus_per_task={options.cpus_per_task}: this "
                    f"machine has {session.cores} cores and {cluster_gpus()} GPUs for it"
                )
            if dashboard := session.dashboard_line():
                say(self.console, dashboard)
            rundir = str(given.folder.absolute()) if given.single else ""
            sweep = options if isinstance(options, TrainSweepOptions) else None
            pruned = sweep is not None and sweep.pruner != "none"
            plan = Plan(
                study=self.study,
                trials=self.trials.absolute(),
                space=given.space,
                method=PlainMethod(
                    sweep.sampler if sweep else "random",
                    seed=given.request.seed,
                    distributions=given.space.distributions,
                    trial_count=self.trial_count,
                ),
                trial_count=self.trial_count,
                live_trials=self.trial_count,
                settled=self.settled,
                pruner=EpochPruner(sweep.pruner, min_epochs=sweep.min_epochs)
                if sweep and pruned
                else None,
                score=None,
                on_result=self.results.append,
                config=lambda flags: {"job": job, "rundir": rundir},
                is_ours=self.lock.is_ours,
                generation=self.lock.generation,
                capacity=Room(job.bundles),
            )
            started = time.monotonic()
            patience = Patience(job.bundles, self._say)

            def show(run: StudyRun) -> None:
                live = list(run.live.values())
                patience.look(begun=not live or any(trial.note for trial in live))
                view.show(self._state(run, started))

            with View(self.console, metric=job.metric) as view:
                tuner.run(
                    plan,
                    TrainTrial,
                    resources=job.bundles,
                    private=session.scratch / "tune",
                    show=show,
                    fits=lambda: session.lives() and trials_that_fit(job.bundles) > 0,
                    node_wait_minutes=session.node_wait_minutes(options.node_wait_minutes),
                )
            if self.rescoring is not None:
                minutes = session.node_wait_minutes(options.node_wait_minutes)
                self._rescore(self.rescoring, gpu=job.gpus_per_node > 0, node_wait_minutes=minutes)

    def _rescore(self, rescoring: Rescoring, *, gpu: bool, node_wait_minutes: float) -> None:
        """Decode the best trainings again where that is not done."""
        from w2ltune.trials.rescoring import rescore

        due = rescoring.due(self.results)
        if not due:
            return
        what = f"decoding {len(due)} of the best trainings again"
        self.console.print(what)
        reasons: list[str] = []
        with stopping_signals(reasons.append), bar(self.console, what) as show:
            notes = rescore(
                rescoring,
                due,
                self.given.folder,
                gpu=gpu,
                progress=show,
                say=self._say,
                stopped=lambda: reasons[0] if reasons else "",
                node_wait_minutes=node_wait_minutes,
            )
        for note in notes:
            self._say(note)

    def _say(self, line: str) -> None:
        say(self.console, f"  {line}")

    def _state(self, run: StudyRun, started: float) -> State:
        with run.lock:
            running = at_work(run.live.values())
        return State(
            earlier=self.earlier,
            results=list(self.results),
            running=running,
            budget=self.trial_count,
            most=self.trial_count,
            seconds=time.monotonic() - started,
        )
