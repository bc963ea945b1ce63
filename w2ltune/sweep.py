"""A sweep: search the decoder's weights on a dev list; ``python -m w2ltune.sweep``."""

from __future__ import annotations

import os
import secrets
import sys
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from w2ltune.commandline import option, parse
from w2ltune.errors import TrialFailedError, UsageError, run_command

if TYPE_CHECKING:
    import optuna
    from rich.console import Console

    from w2ltune.cluster.session import Session
    from w2ltune.report.leaderboard import Leaderboard
    from w2ltune.runs.lock import StudyLock
    from w2ltune.runs.provenance import SweepRequest
    from w2ltune.runs.trialdir import TrialResult
    from w2ltune.search.pruning import PairedPruner
    from w2ltune.search.run import StudyRun
    from w2ltune.search.space import SearchSpace
    from w2ltune.search.study import Settled
    from w2ltune.trials.dataset import Dataset

USAGE = """
usage: python -m w2ltune.sweep --test=dev.lst --emission_dir=DIR --tokens=FILE --lexicon=FILE
           --lm=FILE --logdir=DIR --prefix=NAME [any decoder flag, a value or a distribution]
       python -m w2ltune.sweep --flagsfile=FILE

Searches decoder weights. Any decoder flag may have a distribution instead of a value:
    --lmweight='uniform(0, 5)'    loguniform(low, high)    quniform(low, high, step)
    --beamsize='randint(10, 500)' lograndint(low, high)    --smearing='choice(none, max)'
Without any, lmweight in 0..5 and wordscore in -8..7 are searched. Everything of the sweep lies in
LOGDIR/PREFIX; the same command again continues it, whatever it died of. With RAY_ADDRESS set it
runs on that Ray cluster, else it starts one on this machine. Options may stand in the flagsfile.
"""


@dataclass(frozen=True, kw_only=True)
class SweepOptions:
    """The options of a sweep; everything else on the command line is a flag of the decoder."""

    logdir: Path = option("folder of sweeps", value="DIR")
    prefix: str = option("name of this sweep, a folder in logdir", value="NAME")
    n: int = option("trials in all; may grow when a sweep is continued", 40)
    sampler: str = option(
        "how the next trial is chosen", "tpe",
        choices=("tpe", "random", "qmc", "cmaes", "grid", "gp"),
    )  # fmt: skip
    pruner: str = option(
        "'paired' stops a trial that is clearly worse than the best one on the same utterances",
        "paired", choices=("paired", "none"),
    )  # fmt: skip
    space: Path | None = option(
        "Python file with space(trial) in Optuna's define-by-run style", None, value="FILE"
    )
    seed: int | None = option("seed of the sampler; drawn and recorded when not given", None)
    metric: str = option("what is counted: word or character errors", "wer", choices=("wer", "cer"))
    normalize: Path | None = option(
        "Python file with normalize(text), applied to references and hypotheses", None, value="FILE"
    )
    ignore_case: bool = option("count words as the same whatever their case", False)
    cluster: str | None = option(
        "regular expression for the speaker in an utterance id; intervals are by speaker", None
    )
    concurrent_trials: int = option("trials decoded at a time, at most 4", 3)
    cores: int | None = option("cores of a local Ray cluster; all that may be used", None)
    node_wait_minutes: float = option(
        "stop (exit code 75) when the cluster had no core for this long", 5.0
    )
    allow_unknown_flags: bool = option("let unknown flags through", False)
    allow_absurd_input: bool = option("decode although the checks say that it cannot work", False)

    @property
    def folder(self) -> Path:
        """The study's folder."""
        return self.logdir / self.prefix


def main(arguments: list[str]) -> int:
    """Run or continue a sweep and print its leaderboard."""
    options, given = parse(arguments, SweepOptions, usage=USAGE)
    _check_options(options)
    from w2ltune.search.decodespace import build_space

    space = build_space(
        given,
        script=options.space,
        options=SweepOptions.__dataclass_fields__,
        any_flag=options.allow_unknown_flags,
    )
    from w2ltune.report.progress import make_console

    console = make_console()
    return _sweep(options, space, console)


def _check_options(options: SweepOptions) -> None:
    if options.n < 1:
        raise UsageError(f"--n={options.n}: must be 1 or more")
    if not 1 <= options.concurrent_trials <= 4:
        raise UsageError(f"--concurrent_trials={options.concurrent_trials}: must be 1 to 4")
    if options.cores is not None and options.cores < 1:
        raise UsageError(f"--cores={options.cores}: must be 1 or more")
    if options.seed is not None and options.seed < 0:
        raise UsageError(f"--seed={options.seed}: must be 0 or more")
    if not options.prefix or "/" in options.prefix or options.prefix in (".", ".."):
        raise UsageError(f"--prefix={options.prefix!r}: must be a plain folder name")


def _sweep(options: SweepOptions, space: SearchSpace, console: Console) -> int:
    from w2ltune.embedded.beamsearch import Decoder
    from w2ltune.embedded.decoderfiles import read_tokens
    from w2ltune.embedded.decoderflags import decoder_flags
    from w2ltune.runs.lock import StudyLock, this_process
    from w2ltune.runs.provenance import read_request, require_same
    from w2ltune.search.decodespace import complete_space, example_flags, input_paths
    from w2ltune.search.samplers import check_sampler, grid_points
    from w2ltune.trials.dataset import Dataset, find_task
    from w2ltune.trials.sanity import check_task, refuse_absurd

    example = example_flags(space)
    flags = decoder_flags(example)
    space = complete_space(space, flags, read_tokens(flags.tokens_path))
    check_sampler(options.sampler, space.distributions, script=space.script is not None)
    if options.sampler == "grid":
        points = len(grid_points(space.distributions, options.n))
        options = replace(options, n=min(options.n, points))  # a point twice tells nothing new
    task = find_task(
        example,
        metric="cer" if options.metric == "cer" else "wer",
        normalize=options.normalize,
        ignore_case=options.ignore_case,
    )
    dataset = Dataset(task)
    request = _request(options, space, input_paths(space, task))
    path = options.folder / "sweep.json"
    old = read_request(path)
    if old is not None:
        require_same(old, request, path=path)
    if old is None or old.inputs != request.inputs:
        findings = check_task(dataset, Decoder(flags))
        for finding in findings:
            console.print(f"  {finding}", markup=False, soft_wrap=True)
        if not options.allow_absurd_input:
            refuse_absurd(findings)
    interval = _interval_function(dataset, options)

    os.umask(0o002)
    options.folder.mkdir(parents=True, exist_ok=True)
    lock = StudyLock(options.folder / "lock", this_process())
    lock.acquire()
    try:
        request = _settle_request(path, request, options)
        return _run(options, space, dataset, request, interval, lock, console)
    finally:
        lock.release()


def _request(options: SweepOptions, space: SearchSpace, inputs: Iterable[Path]) -> SweepRequest:
    from w2ltune.runs.provenance import SweepRequest, fingerprints, git_commit, versions

    scoring = {
        "metric": options.metric,
        "normalize": str(options.normalize or ""),
        "ignore_case": str(options.ignore_case).lower(),
        "cluster": options.cluster or "",
    }
    searched = {name: str(value) for name, value in space.distributions.items()}
    if space.script is not None:
        searched["space"] = str(space.script)
    return SweepRequest(
        task="decode",
        flags=dict(space.fixed),
        space=searched,
        scoring=scoring,
        inputs=fingerprints(inputs),
        seed=secrets.randbelow(2**31) if options.seed is None else options.seed,
        versions=versions(),
        commit=git_commit(),
    )


def _settle_request(path: Path, request: SweepRequest, options: SweepOptions) -> SweepRequest:
    """Write ``sweep.json`` or compare with it, now that the study is ours; keep its seed."""
    from w2ltune.runs.provenance import read_request, require_same, write_request

    old = read_request(path)
    if old is None:
        write_request(path, request)
        return request
    require_same(old, request, path=path)
    if old.versions != request.versions or old.commit != request.commit:
        print(
            "w2ltune: note: versions or commit have changed since this sweep began", file=sys.stderr
        )
    return request if options.seed is not None else replace(request, seed=old.seed)


def _interval_function(dataset: Dataset, options: SweepOptions) -> Any:
    from w2ltune.scoring.significance import bootstrap_interval, clusters_from_ids
    from w2ltune.trials.dataset import shuffled_order

    order = shuffled_order(len(dataset.ids))
    clusters = clusters_from_ids([dataset.ids[index] for index in order], options.cluster)

    def interval(errors: Any, reference_words: Any) -> tuple[float, float, str]:
        found = bootstrap_interval(errors, reference_words, clusters)
        return found.low, found.high, f"{found.unit} ({found.count})"

    return interval


def _run(
    options: SweepOptions,
    space: SearchSpace,
    dataset: Dataset,
    request: SweepRequest,
    interval: Any,
    lock: StudyLock,
    console: Console,
) -> int:
    from w2ltune.report.leaderboard import read_leaderboard
    from w2ltune.search.study import open_study, settle

    trials = options.folder / "trials"
    trials.mkdir(exist_ok=True)
    study = open_study(options.folder, lock)
    settled = settle(study, trials)
    before = read_leaderboard(options.folder)
    if before.results or settled.interrupted:
        console.print(
            f"continuing {options.folder}: {settled.finished} trials finished before, "
            f"{len(settled.interrupted)} interrupted",
            soft_wrap=True,
        )
    if settled.finished < options.n or settled.interrupted:
        from w2ltune.cluster.session import connect

        console.print("starting Ray")
        # Ray reads its environment when it is imported: the tuner only after the connection.
        with connect(f"sweep:{options.prefix}", cores=options.cores) as session:
            if session.dashboard:
                token = f" (token in {session.token_file})" if session.token_file else ""
                console.print(
                    f"Ray dashboard: http://{session.dashboard}{token}",
                    soft_wrap=True,
                    markup=False,
                )
            _tune(options, space, dataset, request, interval, study, settled, session, console)
    return _finish(options, console)


def _tune(
    options: SweepOptions,
    space: SearchSpace,
    dataset: Dataset,
    request: SweepRequest,
    interval: Any,
    study: optuna.Study,
    settled: Settled,
    session: Session,
    console: Console,
) -> None:
    """Run the trials that are left."""
    from w2ltune import tuner
    from w2ltune.report.leaderboard import read_leaderboard
    from w2ltune.report.progress import Running, State, View
    from w2ltune.search.pruning import PairedPruner
    from w2ltune.search.run import Plan
    from w2ltune.search.samplers import make_sampler
    from w2ltune.trials.decoding import DecodeTrial, resources
    from w2ltune.trials.pool import has_workers, start_pool

    trials = options.folder / "trials"
    board = read_leaderboard(options.folder)
    results = list(board.results)
    earlier = len(results)
    pruner = PairedPruner() if options.pruner == "paired" else None
    if pruner is not None:
        _restore_incumbent(pruner, board, trials)

    def on_result(result: TrialResult) -> None:
        results.append(result)
        _write_best(options, results)

    plan = Plan(
        study=study,
        trials=trials.absolute(),
        space=space,
        sampler=lambda number: make_sampler(
            options.sampler,
            seed=request.seed,
            number=number,
            distributions=space.distributions,
            trial_count=options.n,
        ),
        trial_count=options.n,
        live_trials=options.concurrent_trials,
        settled=settled,
        pruner=pruner,
        interval=interval,
        on_result=on_result,
    )
    pool = start_pool(dataset.task, dataset.ids, session.scratch / "emissions")
    started = time.monotonic()
    with View(console, metric=options.metric) as view:

        def show(run: StudyRun) -> None:
            with run.lock:
                running = [
                    Running(number=live.trial.number, fraction=live.fraction, value=live.value)
                    for live in run.live.values()
                ]
                state = State(
                    earlier=earlier,
                    results=list(results),
                    running=running,
                    budget=options.n,
                    seconds=time.monotonic() - started,
                )
            view.show(state)

        tuner.run(
            plan,
            DecodeTrial,
            resources=resources(plan.live_trials),
            private=session.scratch / "tune",
            show=show,
            fits=has_workers,
            node_wait_minutes=options.node_wait_minutes,
        )
    del pool  # it lives as long as this reference


def _restore_incumbent(pruner: PairedPruner, board: Leaderboard, trials: Path) -> None:
    from w2ltune.runs.trialdir import TrialDirectory
    from w2ltune.trials.dataset import read_utterance_counts

    if board.best is not None:
        counts = read_utterance_counts(TrialDirectory(trials, board.best.number).utterances)
        pruner.finish(board.best.number, board.best.value, counts[:, :3].sum(axis=1))


def _write_best(options: SweepOptions, results: Sequence[TrialResult]) -> None:
    from w2ltune import files
    from w2ltune.formats.flagsfile import format_flagsfile
    from w2ltune.report.leaderboard import best_comments, rank

    best = rank(results).best
    if best is not None and best is results[-1]:
        lists = [best.flags.get("test", "")]
        comments = best_comments(best, metric=options.metric, lists=lists, trials=len(results))
        files.write_text(
            options.folder / "best.cfg", format_flagsfile(best.flags, comments=comments)
        )


def _finish(options: SweepOptions, console: Console) -> int:
    from w2ltune import files
    from w2ltune.report.leaderboard import as_csv, metric_line, read_leaderboard, show_value, table

    board = read_leaderboard(options.folder)
    files.write_text(options.folder / "trials.csv", as_csv(board))
    console.print(table(board, metric=options.metric))
    best = board.best
    if best is None:
        reason = board.results[0].reason if board.results else "there was none"
        raise TrialFailedError(f"no trial succeeded: {reason}")
    if best.missing:
        console.print(f"{best.missing} utterances have no hypothesis and count as deletions")
    weights = " ".join(f"--{name}={show_value(value)}" for name, value in best.params.items())
    console.print(f"best: {weights}", markup=False, soft_wrap=True)
    console.print(
        f"{metric_line(best, options.metric)}, 95 % interval by {best.interval_unit}",
        markup=False, soft_wrap=True,
    )  # fmt: skip
    console.print(f"flagsfile: {options.folder / 'best.cfg'}", markup=False, soft_wrap=True)
    return 0


if __name__ == "__main__":
    sys.exit(run_command(main, sys.argv[1:]))
