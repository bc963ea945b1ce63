import contextlib
import csv
import io
import json
import math
from dataclasses import replace
from html.parser import HTMLParser

import pytest
from rich.console import Console

from w2ltune.collect import main as collecting
from w2ltune.errors import InputError, run_command
from w2ltune.formats.logs import parse_train_line
from w2ltune.report import progress
from w2ltune.report.leaderboard import Running, rank
from w2ltune.report.progress import State, View
from w2ltune.report.training import progress_of, read_training, running_trainings
from w2ltune.report.trainingcurves import progress_axis
from w2ltune.report.trainingfindings import find_training_warnings, rank_correlation, seed_noise
from w2ltune.report.trainingpage import build_training_report
from w2ltune.report.trainingtable import short_values, training_table
from w2ltune.report.trainingterminal import finish_single, finish_training
from w2ltune.runs.provenance import Fingerprint, SweepRequest, write_request
from w2ltune.runs.trialdir import TrialDirectory, TrialResult

METRIC = "dev-WER"
PER_EPOCH = 100
ITER = 2600
SPACE = {
    "lr": "loguniform(1e-4, 1)",
    "netoptim": "choice(sgd, adam)",
    "batchsize": "randint(4, 64)",
}


def report_line(epoch, *, lr=0.01, wer=50.0, updates=None):
    """A line as fl_asr_train v0.3.2 writes it."""
    loss, ter = wer / 12, wer * 0.36
    return (
        f"epoch: {epoch:8d} | nupdates: {updates or PER_EPOCH * epoch:12d} | lr: {lr:.6f} | "
        "lrcriterion: 0.000000 | scale-factor: 0.000000 | runtime: 00:02:05 | bch(ms): 75.35 | "
        "smp(ms): 0.42 | fwd(ms): 20.59 | crit-fwd(ms): 1.40 | bwd(ms): 26.48 | "
        f"optim(ms): 10.11 | loss: {0.8 * loss:10.5f} | train-TER: {0.8 * ter:5.2f} | "
        f"train-WER: {0.8 * wer:5.2f} | dev-loss: {loss:10.5f} | dev-TER: {ter:5.2f} | "
        f"dev-WER: {wer:5.2f} | tst/b-loss: {1.4 * loss:10.5f} | tst/b-TER: {1.2 * ter:5.2f} | "
        f"tst/b-WER: {1.2 * wer:5.2f} | avg-isz: 154 | avg-tsz: 017 | max-tsz: 026 | "
        "avr-batchsz:    8.00 | hrs:    0.07 | thrpt(sec/sec): 163.89 | "
        "timestamp: 2026-11-22 16:50:38\n"
    )


def curve(lr, *, epochs=26, seed=1):
    """Falls to a floor that is lowest at a learning rate of 0.003; diverges above 0.3."""
    if lr > 0.3:
        return [math.inf if epoch == 3 else 100.0 for epoch in range(1, epochs + 1)]
    floor = 31 + 7 * abs(math.log10(lr / 0.003)) ** 1.5 + 0.4 * math.sin(seed)
    wer = [
        floor + (100 - floor) * math.exp(-epoch / 4) + 0.8 * math.sin(2.1 * epoch + seed)
        for epoch in range(1, epochs + 1)
    ]
    return [min(100.0, value + 0.02 * max(0, n - 18) ** 2) for n, value in enumerate(wer)]


def write_log(rundir, wers, *, lr=0.01, name="001_log"):
    rundir.mkdir(parents=True, exist_ok=True)
    lines = [report_line(epoch, lr=lr, wer=wer) for epoch, wer in enumerate(wers, start=1)]
    (rundir / name).write_text("".join(lines))


def add_trial(study, number, wers, *, state="COMPLETE", params=None, rundir=None, **more):
    """A finished trial as the driver leaves it; ``state`` None for one at work."""
    params = {"lr": 0.01} if params is None else params
    directory = TrialDirectory(study / "trials", number)
    directory.result.unlink(missing_ok=True)  # of the fixture: it would stay as it is
    flags = {name: str(value) for name, value in params.items()}
    flags |= {"iter": str(ITER), "rundir": str(directory.run), "train": "train.lst"}
    directory.write_flags(flags)
    if wers:
        write_log(rundir or directory.run, wers, lr=float(params.get("lr", 0.01)))
    finite = [wer for wer in wers if math.isfinite(wer)]
    best = wers.index(min(finite)) + 1 if finite else 0
    checkpoint = directory.snapshots / f"{PER_EPOCH * best:08d}.bin"
    if finite:
        checkpoint.parent.mkdir(parents=True, exist_ok=True)
        checkpoint.write_bytes(b"model of trial %d" % number)
    if state is not None:
        result = TrialResult(
            number=number, attempt=1, state=state, params=params, flags=flags,
            value=min(finite) / 100 if finite and state != "FAIL" else None,
            seconds=125.0 * len(wers), epoch=best, epochs=len(wers), updates=PER_EPOCH * len(wers),
            checkpoint=str(checkpoint.relative_to(study)) if finite else "",
        )  # fmt: skip
        directory.write_result(replace(result, **more))


def request(space=SPACE, **more):
    return SweepRequest(
        task="train",
        flags={"iter": str(ITER), "train": "train.lst", "valid": "dev:dev.lst"},
        space=space,
        scoring={"metric": METRIC},
        inputs={"train.lst": Fingerprint(size=9, sha256="ab" * 32)},
        seed=7,
        versions={"w2ltune": "0.1", "python": "3.11.2"},
        commit="0123abcd",
        command=("--task=train", "--config=asr/base.cfg", "--extra=--lr=loguniform(1e-4,1)"),
        **more,
    )


RATES = (0.0011, 0.31, 0.0031, 0.0003, 0.02, 0.0071, 0.6, 0.0019, 0.00012, 0.05, 0.0044, 0.013)


@pytest.fixture
def study(tmp_path):
    """Twelve trials: the best is 2, three were pruned, one failed; the next one is at work."""
    folder = tmp_path / "lr study"
    folder.mkdir()
    write_request(folder / "sweep.json", request())
    for number, lr in enumerate(RATES):
        params = {"lr": lr, "netoptim": ("sgd", "adam")[number % 2], "batchsize": 4 + 5 * number}
        wers = curve(lr, seed=number)
        if number in (3, 6, 8):
            add_trial(folder, number, wers[:7], params=params, state="PRUNED")
        elif number == 9:
            reason = "the loss is nan at update 431; try a lower --lr <0.05> [see the log]"
            add_trial(folder, number, wers[:4], params=params, state="FAIL", reason=reason)
        else:
            add_trial(folder, number, wers, params=params)
    params = {"lr": 0.006, "netoptim": "adam", "batchsize": 32}
    add_trial(folder, 12, curve(0.006)[:9], params=params, state=None)
    return folder


@pytest.fixture
def single(tmp_path):
    folder = tmp_path / "project" / "base_lr0.01"
    folder.mkdir(parents=True)
    write_request(folder / "sweep.json", request(space={}))
    add_trial(folder, 0, curve(0.01), rundir=folder)
    return folder


def console(width=140, **more):
    return Console(file=io.StringIO(), width=width, highlight=False, **more)


def finish(function, folder):
    shown = console()
    code = function(folder, shown)
    return code, shown.file.getvalue()


class Page(HTMLParser):
    """Checks that every element is closed in order; holds the text and what it points to."""

    def __init__(self, path):
        super().__init__()
        self.open, self.words, self.ids, self.uses = [], [], [], []
        self.feed(path.read_text(encoding="utf-8"))
        self.close()
        assert self.open == []
        assert len(set(self.ids)) == len(self.ids)
        assert all(use.startswith("#") and use[1:] in self.ids for use in self.uses)
        self.text = " ".join(" ".join(self.words).split())

    def handle_starttag(self, tag, attributes):
        found = dict(attributes)
        self.ids += [found["id"]] if "id" in found else []
        self.uses += [found[name] for name in ("src", "href") if name in found]
        if tag != "meta":
            self.open.append(tag)

    def handle_startendtag(self, tag, attributes):
        self.handle_starttag(tag, attributes)
        self.handle_endtag(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open[-1:] != ["style"]:
            self.words.append(data)


def test_the_generator_writes_what_the_parser_reads(captures):
    real = (captures / "rundir_sample" / "001_log").read_text().splitlines()[0]
    ours = parse_train_line(report_line(1))
    found = parse_train_line(real)
    assert [n.replace("tsta", "tst/b") for n in found.rates] == list(ours.rates)
    assert [n.replace("tsta", "tst/b") for n in found.values] == list(ours.values)


def test_finish_says_which_training_is_best(study):
    code, text = finish(finish_training, study)
    assert code == 0
    best = read_training(study).best
    assert best.number == 2
    lines = text.splitlines()
    head = lines[1].split()
    assert head == ["trial", "dev-WER", "%", "epoch", "batchsize", "lr", "netoptim", "min"]
    assert lines[3].split()[:7] == [
        "2", f"{100 * best.value:.2f}", str(best.epoch), "/", "26", "14", "0.0031",
    ]  # fmt: skip
    at = f"(trial 2, epoch {best.epoch} of 26)"
    assert f"best: --lr=0.0031 --netoptim=sgd --batchsize=14 {at}" in text
    assert f"\n  dev-WER {100 * best.value:.2f}, dev-TER " in text
    assert ", tst/b-TER " in text and "train-WER" not in text
    model = study / "best_model.bin"
    assert f"model: {model} -> trials/0002/snapshots/" in text
    assert f"report: {study / 'report.html'}" in text
    assert "note: Only 11 trials for 3 flags" in text
    assert "note: 1 of 12 trials failed: the loss is nan at update 431" in text
    assert model.readlink().parts[:2] == ("trials", "0002")
    assert model.read_bytes() == b"model of trial 2"
    # The best flags are ready to train with.
    text = (study / "best.cfg").read_text()
    assert "--lr=0.0031\n" in text and f"--iter={ITER}\n" in text
    assert "--rundir" not in text  # it would be trained over
    comments = [line for line in text.splitlines() if line.startswith("#")]
    assert "trial 2, epoch " in comments[0] and METRIC in comments[1]
    assert "without a language model" in text and "best_model.bin" in text
    # The trials are there as CSV, and for programs.
    rows = list(csv.DictReader(io.StringIO((study / "trials.csv").read_text())))
    assert list(rows[0])[-4:] == ["epoch", "epochs", "updates", "checkpoint"]
    assert (rows[0]["number"], rows[0]["epochs"]) == ("2", "26")
    value = json.loads(collect(study, "--format=json"))
    assert (value["metric"], value["best"], value["running"]) == (METRIC, 2, [12])
    assert value["trials"][0]["checkpoint"].startswith("trials/0002/snapshots/")
    assert collect(study, "--format=csv") == (study / "trials.csv").read_text()
    # The page tells it all, and the same each time.
    text = (study / "report.html").read_text(encoding="utf-8")
    page = Page(study / "report.html")
    for part in (
        "lr study: training sweep", "dev-WER 3", "trial 2 of 12", "Leaderboard", "★ 2",
        "Learning curves", "best: trial 2", "dev-WER over the searched flags",
        "--lr=loguniform(1e-4, 1). Rank correlation", "Time", "3 were stopped early", "Failures",
        "try a lower --lr <0.05> [see the log]", "How to reproduce", "--task=train", "0123abcd",
    ):  # fmt: skip
        assert part in page.text, part
    assert "<0.05>" not in text  # escaped
    assert build_training_report(read_training(study)).read_text(encoding="utf-8") == text


def test_the_link_moves_with_the_study_and_to_a_better_model(study, tmp_path):
    (study / "best_model.bin").write_bytes(b"something else")
    finish(finish_training, study)
    params = {"lr": 0.003, "netoptim": "sgd", "batchsize": 8}
    add_trial(study, 13, [20.0, 10.0], params=params)
    assert finish(finish_training, study)[0] == 0
    moved = study.rename(tmp_path / "moved")
    assert (moved / "best_model.bin").read_bytes() == b"model of trial 13"
    assert not list(moved.glob(".*.tmp-*"))


def test_a_lost_snapshot_is_said_and_not_linked(study):
    best = read_training(study).best
    (study / best.checkpoint).unlink()
    code, text = finish(finish_training, study)
    assert code == 0
    assert f"model: {study / best.checkpoint} is missing" in text
    assert not (study / "best_model.bin").is_symlink()


def collect(study, *arguments):
    folder = [f"--logdir={study.parent}", f"--prefix={study.name}"]
    with (
        contextlib.redirect_stdout(io.StringIO()) as output,
        contextlib.redirect_stderr(io.StringIO()) as errors,
    ):
        code = run_command(collecting, [*folder, *arguments])
    assert (code, errors.getvalue()) == (0, "")
    return output.getvalue()


def test_collect_shows_running_trials_by_their_logs(study):
    wers = curve(0.006)[:9]
    for arguments in ((), ("--watch",)):  # nobody owns the study: --watch ends at once
        text = collect(study, *arguments)
        row = next(line.split() for line in text.splitlines() if line.split()[:1] == ["12"])
        assert row == ["12", f"({min(wers):.2f})", "9", "32", "0.006", "adam", "35%", "done"]
    text = collect(study, "--report")
    assert "report.html" in text
    assert "35% done" in Page(study / "report.html").text


def test_how_far_a_training_came(study, tmp_path):
    (running,) = running_trainings(study, [12], metric=METRIC)
    assert (running.fraction, running.note) == (pytest.approx(900 / 2600), "epoch 9")
    assert running.params["lr"] == "0.006"
    rest = {"metric": METRIC, "params": {}}
    none = progress_of(0, [], flags={"iter": "100"}, **rest)
    assert (none.fraction, none.value) == (0.0, None)
    history = [parse_train_line(report_line(1, wer=math.inf))]
    diverged = progress_of(0, history, flags={}, **rest)
    assert (diverged.fraction, diverged.value, diverged.note) == (0.0, None, "epoch 1")
    assert progress_of(0, history, flags={"iter": "50"}, **rest).fraction == 1.0


def test_rates_of_a_second_decode_decide(study):
    for number, errors in ((2, 35), (7, 33)):
        directory = TrialDirectory(study / "trials", number)
        result = directory.read_result()
        directory.write_result(
            replace(result, counts=(errors, 0, 0, 100), interval=(0.3, 0.4),
                    interval_unit="speaker (40)")
        )  # fmt: skip
    code, text = finish(finish_training, study)
    assert code == 0
    assert "(trial 7, " in text
    assert "decoded again 33.00 [30.00, 40.00]; in training dev-WER " in text
    assert "95 % interval by speaker (40)" in text
    assert "decoded %" in text and "30.00–40.00" in text
    page = Page(study / "report.html").text
    assert "33.00 [30.00, 40.00] decoded again" in page and "★ 7" in page


@pytest.mark.parametrize(
    ("change", "warning"),
    [
        ({"lr": 0.00011}, "at the edge of --lr=loguniform(1e-4, 1) (0.00011 in trial 20)"),
        ({"lr": 0.01}, "Trial 20 was still improving at its last epoch (2)"),
    ],
)
def test_doubts(study, change, warning):
    add_trial(study, 20, [9.0, 8.0], params={**change, "netoptim": "sgd", "batchsize": 20})
    assert any(warning in text for text in find_training_warnings(read_training(study)))


def test_seeds_show_what_is_chance(tmp_path):
    space = {"lr": "choice(0.1, 0.2)", "seed": "randint(1, 3)"}
    write_request(tmp_path / "sweep.json", request(space=space))
    values = {("0.1", 1): 40.0, ("0.1", 2): 42.0, ("0.2", 1): 50.0, ("0.2", 3): 51.0}
    for number, ((lr, seed), wer) in enumerate(values.items()):
        add_trial(tmp_path, number, [wer, wer + 1], params={"lr": lr, "seed": seed})
    content = read_training(tmp_path)
    noise = seed_noise(content.board.results)
    assert (noise.trials, noise.groups) == (4, 2)
    assert noise.widest == pytest.approx(0.02)
    assert noise.deviation == pytest.approx(math.sqrt((0.01**2 * 2 + 0.005**2 * 2) / 2))
    warnings = find_training_warnings(content)
    assert any("differ by up to 2.00 points of dev-WER" in text for text in warnings)
    assert not any("edge" in text for text in warnings)  # a seed has none
    assert seed_noise([replace(r, params={"lr": 1.0}) for r in content.board.results]) is None


def test_rank_correlation():
    results = [
        TrialResult(number=n, attempt=1, state="COMPLETE", value=v, params={"lr": x, "o": "a"})
        for n, (x, v) in enumerate([(1e-4, 0.1), (1e-3, 0.2), (1e-3, 0.25), (0.1, 0.4), (1.0, 9.0)])
    ]
    assert rank_correlation(results, "lr") == pytest.approx(0.9746794)  # scipy.stats.spearmanr
    assert rank_correlation(results, "o") is None
    assert rank_correlation(results[:4], "lr") is None
    assert rank_correlation([replace(r, value=0.5) for r in results], "lr") is None


@pytest.mark.parametrize("trials", [[], [None], ["FAIL"], ["PRUNED"], ["COMPLETE"]])
def test_pages_and_ends_of_small_sweeps(tmp_path, trials):
    write_request(tmp_path / "sweep.json", request())
    for number, state in enumerate(trials):
        wers = [60.0] if state in ("PRUNED", "COMPLETE") else []
        add_trial(tmp_path, number, wers, state=state)
    code, text = finish(finish_training, tmp_path)
    assert code == (0 if trials == ["COMPLETE"] else 1)
    assert ("no training was completed" in text) == (code == 1)
    assert "How to reproduce" in Page(tmp_path / "report.html").text


def test_a_single_training(single):
    write_log(single, [70.0], name="002_log")  # begins anew from update 100
    write_log(single, curve(0.01), name="002_log")
    code, text = finish(finish_single, single)
    assert code == 0
    history = read_training(single).curves[0]
    best = min(history, key=lambda line: line.rates[METRIC])
    rows = [line.split() for line in text.splitlines() if line.split()[-1:] == ["best"]]
    assert [row[0] for row in rows] == [str(best.epoch)]
    assert f"best: epoch {best.epoch} of 26, dev-WER {100 * best.rates[METRIC]:.2f}, " in text
    assert f"logs: {single / '001_log'}, {single / '002_log'}" in text
    assert (single / "best_model.bin").read_bytes() == b"model of trial 0"
    page = Page(single / "report.html").text
    for part in ("base_lr0.01: training", "Curves", "WER of each list", "TER of each list",
                 "Loss of each list", "Learning rate", "python -m w2ltune.train"):  # fmt: skip
        assert part in page, part
    assert "Leaderboard" not in page


def test_a_training_that_was_continued_has_all_its_epochs(single):
    wers = [60.0, 40.0, 30.0]
    add_trial(single, 0, wers, rundir=single)
    assert "It was still improving at its last epoch (3)" in finish(finish_single, single)[1]
    add_trial(single, 1, [*wers, 35.0, 33.0], rundir=single, value=0.33, epoch=5)
    _, text = finish(finish_single, single)
    assert "best: epoch 3 of 5, dev-WER 30.00" in text
    assert "still improving" not in text
    assert "epoch 3 of 5" in Page(single / "report.html").text


def test_a_single_training_that_failed(single):
    add_trial(single, 0, curve(0.01)[:3], state="FAIL", rundir=single, reason="no memory [cuda]")
    code, text = finish(finish_single, single)
    assert code == 1
    assert "fail: no memory [cuda]" in text
    assert "no memory [cuda]" in Page(single / "report.html").text


def test_a_single_training_before_its_first_report(tmp_path):
    write_request(tmp_path / "sweep.json", request(space={}))
    (tmp_path / "001_config").write_text("{}")
    (tmp_path / "001_log").write_text("")
    add_trial(tmp_path, 0, [], state=None)
    assert finish(finish_single, tmp_path)[0] == 0
    assert "No complete training yet" in Page(tmp_path / "report.html").text


def test_a_folder_without_a_training_is_refused(tmp_path):
    with pytest.raises(InputError, match=r"no training in .*: it has no sweep\.json"):
        finish_training(tmp_path, console())


def test_epochs_with_several_reports_are_drawn_over_updates(study):
    lines = [parse_train_line(report_line(1, updates=updates)) for updates in (50, 100)]
    assert progress_axis([lines]) == "updates"
    assert progress_axis([lines[:1], lines[1:]]) == "epoch"
    text = "".join(report_line(1, updates=updates, wer=99 - updates / 9) for updates in (50, 100))
    (study / "trials" / "0002" / "run" / "001_log").write_text(text)
    build_training_report(read_training(study))
    assert "dev-WER of every trial over its updates" in Page(study / "report.html").text


def running(**more):
    return Running(number=4, fraction=0.5, value=0.412, note="epoch 7", **more)


def state(trials, *, seconds=10.0):
    result = TrialResult(
        number=0, attempt=1, state="COMPLETE", value=0.314, params={"lr": 0.1}, epoch=3, epochs=5
    )
    return State(earlier=0, results=[result], running=trials, budget=4, seconds=seconds)


def test_the_live_view_names_the_metric_as_the_log_does(monkeypatch):
    monkeypatch.setattr(progress, "LOG_EVERY_SECONDS", 0.0)
    monkeypatch.setattr(progress, "LOG_EVERY_FRACTION", 0.0)
    log, terminal = console(), console(width=100, force_terminal=True)
    for shown in (log, terminal):
        with View(shown, metric=METRIC) as view:
            view.show(state([running()]))
    assert log.file.getvalue() == (
        "1 of 4 trials, best dev-WER 31.40 % (trial 0: lr 0.1), 10 s, ETA 17 s; "
        "trial 4: epoch 7, dev-WER 41.20, 50% done\n"
    )
    for part in ("dev-WER %", "3 / 5", "dev-WER 41.20 so far", "epoch 7"):
        assert part in terminal.file.getvalue()
    assert "DEV-WER" not in terminal.file.getvalue()


def test_a_log_of_days_gets_fewer_lines(monkeypatch):
    monkeypatch.setattr(progress, "LOG_EVERY_SECONDS", 0.0)
    shown = console()
    with View(shown, metric=METRIC) as view:
        for _ in range(3):
            view.show(state([], seconds=3 * 86400.0))
    assert shown.file.getvalue() == ""


@pytest.mark.parametrize(
    ("values", "shown"),
    [
        ([], []),
        ([0.123456, 10], ["0.1235", "10"]),
        (["arch/one_long_network.arch"], ["arch/one_long_network.arch"]),
        (["experiments/a.arch", "experiments/a.arch.old"], ["…", "….old"]),
        (["x_of_a_long_name.arch", "y_of_a_long_name.arch"], ["x…", "y…"]),
        (["sgd", "a value without likeness"], ["sgd", "a value without likeness"]),
    ],
)
def test_long_values_in_short(values, shown):
    assert list(short_values(values).values()) == shown


@pytest.mark.parametrize("name", ["[bold]dev.lst-WER", "/data x/dev.lst-WER"])
def test_a_list_may_have_any_name(name):
    shown = console()
    shown.print(training_table(rank(state([]).results), metric=name))
    assert name in shown.file.getvalue()
