"""Decodes until a search is near the best anything found, and until it stops; real decodes.

    python tests/benchmarks/few_decodes.py run --methods=random,tpe,nbest --results=FILE
           [--lists=dev,dev-long] [--beams=50,300] [--seeds=5] [--trials=120] [--jobs=2]
    python tests/benchmarks/few_decodes.py run --methods=auto --beams=auto --results=FILE --jobs=1
    python tests/benchmarks/few_decodes.py table --results=FILE

Each run searches lmweight and wordscore over the ancestor's ranges on a dev list of
experiments/voice_commands, one trial at a time, without pruning, and decodes the test list once
with its choice. Runs are appended to the results; those that are there are not repeated. Processor
seconds are those of decoding. The speech is synthetic.
"""

from __future__ import annotations

import argparse
import collections
import json
import multiprocessing
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

REPOSITORY = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(REPOSITORY))

NEAR = 0.001  # 0.1 % absolute
TESTS = {"dev": "test", "dev-long": "test-long"}
MARKS = (10, 20, 40, 120)
WIDEST, WIDEST_UTTERANCES = 600, 60
"""From this beam on the threshold is 50 and all tokens are looked at, so that next to nothing is
lost; only the first utterances of a list are decoded then, because it takes so long.
"""


def fixed_flags(beamsize: int, name: str) -> dict[str, str]:
    """Return the demo's flags for a list and a beam, without the searched ones."""
    from w2ltune import files
    from w2ltune.formats.flagsfile import effective, parse_flagsfile
    from w2ltune.formats.known_flags import is_boolean
    from w2ltune.search.space import ANCESTOR_RANGES

    path = REPOSITORY / "experiments/voice_commands/decode.cfg"
    flags = {n: f.value for n, f in effective(parse_flagsfile(path, boolean=is_boolean)).items()}
    fixed = {n: v for n, v in flags.items() if n not in ANCESTOR_RANGES}
    fixed |= {"beamsize": str(beamsize), "test": f"{name}.lst"}
    if beamsize >= WIDEST:
        fixed |= {"beamthreshold": "50", "beamsizetoken": "28"}
        folder = Path(tempfile.gettempdir(), "few_decodes")
        folder.mkdir(exist_ok=True)
        for path in Path(fixed["datadir"]).glob("*.lst"):
            rows = path.read_text().splitlines(keepends=True)
            files.write_text(folder / path.name, "".join(rows[:WIDEST_UTTERANCES]))
        fixed["datadir"] = str(folder)
    return fixed


class Decodes:
    """Decodes a list with any weights, and adds up the processor time."""

    def __init__(self, fixed: dict[str, str]) -> None:
        from w2ltune.embedded.beamsearch import Decoder
        from w2ltune.embedded.decoderflags import decoder_flags
        from w2ltune.trials.dataset import Dataset, find_task

        self.dataset = Dataset(find_task(fixed, metric="wer", normalize=None, ignore_case=False))
        self.decoder = Decoder(decoder_flags(fixed))
        self.emissions = [self.dataset.emission(i) for i in range(len(self.dataset.ids))]
        self.seconds = 0.0

    def wer(self, flags: dict[str, str]) -> float:
        return self.decode(flags, nbest=1)[0]

    def decode(self, flags: dict[str, str], *, nbest: int) -> tuple[float, Any, Any]:
        """Return the rate, the counts of each utterance and the n-best lists."""
        from w2ltune.embedded.decoderflags import decoder_flags
        from w2ltune.scoring.wer import total

        start = time.process_time()
        weights = decoder_flags(flags)
        lists = [self.decoder.decode(emission, weights, nbest=nbest) for emission in self.emissions]
        self.seconds += time.process_time() - start
        texts = [" ".join(entries[0].words) for entries in lists]
        counts = self.dataset.count(range(len(texts)), texts)
        return total(counts).wer, counts, lists


def run(method: str, name: str, beamsize: int, seed: int, trials: int) -> dict[str, Any]:
    """Return one run: the rate of each decode in order, and the choice on the test list."""
    import optuna

    from w2ltune.search.samplers import make_sampler
    from w2ltune.search.space import ANCESTOR_RANGES, SearchSpace

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    fixed = fixed_flags(beamsize, name)
    space = SearchSpace(fixed=fixed, distributions=ANCESTOR_RANGES)
    dev = Decodes(fixed)
    with tempfile.TemporaryDirectory() as folder:
        storage = optuna.storages.JournalStorage(
            optuna.storages.journal.JournalFileBackend(f"{folder}/journal")
        )
        study = optuna.create_study(storage=storage)
        rates = []
        for number in range(trials):
            study.sampler = make_sampler(
                method, seed=seed, number=number,
                distributions=ANCESTOR_RANGES, trial_count=trials,
            )  # fmt: skip
            trial, flags = space.ask(study)
            rates.append(dev.wer(flags))
            study.tell(trial, rates[-1])
        best = space.flags(study.best_trial.params)
    test = Decodes(fixed_flags(beamsize, TESTS[name]))
    return {
        "method": method, "list": name, "beam": beamsize, "seed": seed, "rates": rates,
        "dev": min(rates), "test": test.wer({**best, "test": f"{TESTS[name]}.lst"}),
        "seconds": dev.seconds, "why": f"{trials} trials",
    }  # fmt: skip


STARTS = ((2.0, 0.0), (3.0, -7.5), (0.35, -6.0), (4.74, 1.3), (0.7, 4.0))


def run_nbest(name: str, beamsize: int, seed: int, trials: int) -> dict[str, Any]:
    """Return one run of the n-best search from one of five starts.

    It is driven as the sweep drives it, one trial at a time; what it takes beside decoding (error
    counts of the lists, proposals) is in ``other_seconds``.
    """
    import optuna

    from w2ltune.decodeinput import prepare
    from w2ltune.formats.nbest import write_nbest
    from w2ltune.runs.trialdir import TrialDirectory, TrialResult
    from w2ltune.scoring.nbest import collect
    from w2ltune.search.choice import Decoded, choose
    from w2ltune.search.method import NOTE, GivenSampler
    from w2ltune.search.nbest import NBestSearch
    from w2ltune.search.space import ANCESTOR_RANGES, SearchSpace
    from w2ltune.search.study import tell
    from w2ltune.sweepoptions import SweepOptions

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    fixed = fixed_flags(beamsize, name)
    space = SearchSpace(fixed=fixed, distributions=ANCESTOR_RANGES)
    dev = Decodes(fixed)
    began = time.process_time()
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        given = prepare(SweepOptions(logdir=root, prefix="run", n=trials), space, command=())
        storage = optuna.storages.JournalStorage(
            optuna.storages.journal.JournalFileBackend(f"{folder}/journal")
        )
        study = optuna.create_study(storage=storage)
        method = NBestSearch(
            study=study, trials=root / "trials", space=space, box=given.box, key=given.key,
            targets=given.targets(), trial_count=trials, seed=seed,
        )  # fmt: skip
        rates: list[float] = []
        decoded = []
        while len(rates) < trials and not method.finished():
            number = len(rates)
            assert method.ready(())
            study.sampler = method.sampler(number, seed=number)
            note = dict(method.note(number))
            if number == 0:
                start = dict(zip(ANCESTOR_RANGES, STARTS[seed], strict=True))
                study.sampler, note = GivenSampler(start), {"how": "baseline"}
            trial, flags = space.ask(study)
            trial.set_user_attr(NOTE, note)
            directory = TrialDirectory(root / "trials", number)
            directory.write_flags(flags)
            rate, counts, lists = dev.decode(flags, nbest=given.options.nbest)
            nbest = collect(lists, dev.dataset.references, dev.dataset.units)
            write_nbest(directory.nbest, nbest, key=given.key(flags))
            rows = zip(dev.dataset.ids, counts.tolist(), strict=True)
            text = "".join("\t".join([i, *map(str, row), ""]) + "\n" for i, row in rows)
            directory.utterances.write_text("id\ts\td\ti\tn\thypothesis\n" + text)
            result = TrialResult(
                number=number, attempt=1, state="COMPLETE", value=rate,
                counts=tuple(counts.sum(axis=0).tolist()), params=trial.params, flags=flags,
            )  # fmt: skip
            directory.write_result(result)
            tell(study, number, result)
            method.observe(result)
            decoded.append(Decoded(result=result, counts=counts, note=note))
            rates.append(rate)
        utterances = given.targets()[""]
        choice = choose(
            decoded, target="", utterances=utterances, clusters=given.clusters(utterances),
            baseline=None, middle=method.middle(""),
        )  # fmt: skip
        why = method.finished() or f"{trials} trials"
    spent = time.process_time() - began
    test = Decodes(fixed_flags(beamsize, TESTS[name]))
    chosen = decoded[choice.trial].result
    return {
        "method": "nbest", "list": name, "beam": beamsize, "seed": seed, "rates": rates,
        "dev": chosen.value, "test": test.wer({**chosen.flags, "test": f"{TESTS[name]}.lst"}),
        "seconds": dev.seconds, "other_seconds": spent - dev.seconds, "why": why,
    }  # fmt: skip


def run_auto(name: str, seed: int) -> dict[str, Any]:
    """Return one whole sweep with ``auto`` beams from one of five starts, as a user runs it.

    Its processor seconds are those of decoding the dev list, probes included.
    """
    from w2ltune.report.leaderboard import read_leaderboard
    from w2ltune.runs.outcome import read_outcome

    with tempfile.TemporaryDirectory() as folder:
        start = Path(folder, "start.cfg")
        start.write_text("--lmweight={}\n--wordscore={}\n".format(*STARTS[seed]))
        subprocess.run(
            [
                sys.executable, "-m", "w2ltune.sweep", f"--logdir={folder}", f"--baseline={start}",
                "--flagsfile=experiments/voice_commands/decode.cfg", f"--test={name}.lst",
                f"--heldout={TESTS[name]}.lst", "--beamsize=auto", "--beamthreshold=auto",
                "--beamsizetoken=auto",
            ],
            check=True, capture_output=True, cwd=REPOSITORY,
        )  # fmt: skip
        study = Path(folder, "voice_commands")
        board, outcome = read_leaderboard(study), read_outcome(study)
    results = sorted(board.results, key=lambda result: result.number)
    rates = [result.value for result in results if result.value is not None]
    probes = sum(row.work_seconds for probe in outcome.probes for row in probe.rows)
    dev, test = outcome.choices[0].counts, outcome.looks[0].counts
    return {
        "method": "auto", "list": name, "beam": "auto", "seed": seed, "rates": rates,
        "dev": sum(dev[:3]) / dev[3], "test": sum(test[:3]) / test[3],
        "seconds": sum(result.work_seconds for result in results) + probes,
        "why": outcome.reason, "reached": dict(outcome.probes[-1].rows[0].beam),
    }  # fmt: skip


def key(row: dict[str, Any]) -> tuple[Any, ...]:
    return row["method"], row["list"], row["beam"], row["seed"]


def read(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def _one(job: tuple[Any, ...]) -> dict[str, Any]:
    method, name, beam, seed, trials = job
    if method == "auto":
        return run_auto(name, seed)
    return run_nbest(name, beam, seed, trials) if method == "nbest" else run(*job)


def run_all(options: argparse.Namespace) -> None:
    path = Path(options.results)
    there = {key(row) for row in read(path)}
    jobs = [
        (method, name, beam, seed, options.trials)
        for name in options.lists.split(",")
        for beam in (text if text == "auto" else int(text) for text in options.beams.split(","))
        for method in options.methods.split(",")
        for seed in range(options.seeds)
        if (method, name, beam, seed) not in there
    ]
    with multiprocessing.get_context("spawn").Pool(options.jobs) as pool:
        for row in pool.imap_unordered(_one, jobs):
            with path.open("a") as file:
                file.write(json.dumps(row) + "\n")
            print(*key(row), f"dev {row['dev']:.2%} test {row['test']:.2%}", flush=True)


def mean(values: list[float]) -> str:
    spread = statistics.pstdev(values)
    return f"{100 * statistics.mean(values):.2f}±{100 * spread:.2f}"


def table(options: argparse.Namespace) -> None:
    rows = read(Path(options.results))
    groups = collections.defaultdict(list)
    for row in rows:
        groups[row["list"], row["beam"]].append(row)
    for (name, beam), members in groups.items():
        best = min(row["dev"] for row in members)
        print(f"\n{name}, beam {beam}; best of all runs {best:.2%}\n")
        marks = " | ".join(f"after {m}" for m in MARKS)
        print(f"| method | {marks} | decodes to best + 0.1 (median) | reached | decodes until it "
              "stops | CPU s | dev | test |")  # fmt: skip
        print("|---" * (len(MARKS) + 8) + "|")
        for method in dict.fromkeys(row["method"] for row in members):
            own = [row for row in members if row["method"] == method]
            reach = [
                next((i for i, r in enumerate(row["rates"], 1) if r <= best + NEAR), 10**6)
                for row in own
            ]
            middle = statistics.median(reach)
            cells = [mean([min(row["rates"][:m]) for row in own]) for m in MARKS]
            cells += [
                f"{middle:.0f}" if middle < 10**6 else "never",
                f"{sum(r < 10**6 for r in reach)}/{len(own)}",
                f"{statistics.mean(len(row['rates']) for row in own):.1f}",
                f"{statistics.mean(row['seconds'] for row in own):.1f}",
                mean([row["dev"] for row in own]),
                mean([row["test"] for row in own]),
            ]
            print(f"| {method} | " + " | ".join(cells) + " |")


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("what", choices=("run", "table"))
    parser.add_argument("--results", required=True)
    parser.add_argument("--methods", default="random,tpe")
    parser.add_argument("--lists", default="dev,dev-long")
    parser.add_argument("--beams", default="50,300")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--trials", type=int, default=120)
    parser.add_argument("--jobs", type=int, default=2)
    options = parser.parse_args()
    run_all(options) if options.what == "run" else table(options)


if __name__ == "__main__":
    main()
