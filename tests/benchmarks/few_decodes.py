"""Decodes until a search ends, and what it finds: real ones, in the conditions of conditions.py.

    python tests/benchmarks/few_decodes.py run FOLDER --results=FILE [--methods=nbest,auto,tpe,...]
           [--conditions=letters-50,...] [--starts=5] [--trials=120]
    python tests/benchmarks/few_decodes.py table FOLDER --results=FILE
    python tests/benchmarks/few_decodes.py picture FOLDER --results=FILE --svg=FILE

Each run searches a dev list, one decode at a time and without pruning, and decodes the test list
once with its choice. Nothing is decoded once for two runs. Runs are appended to the results; those
that are there are not repeated. Seconds are processor seconds of decoding.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

os.environ.update(dict.fromkeys(["OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"], "1"))
HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE.parents[1]), str(HERE)]

from conditions import CONDITIONS, flags, make  # noqa: E402

STARTS = ((2.0, 0.0), (3.0, -7.5), (0.35, -6.0), (4.74, 1.3), (0.7, 4.0))
"""lmweight and wordscore at which the runs of the n-best search begin; other weights at their own
usual starts."""


class Decodes:
    """Decodes a list with any flags, and adds up the processor time."""

    def __init__(self, fixed: dict[str, str]) -> None:
        from w2ltune.embedded.beamsearch import Decoder
        from w2ltune.embedded.decoderflags import decoder_flags
        from w2ltune.trials.dataset import Dataset
        from w2ltune.trials.findtask import find_task

        self.dataset = Dataset(find_task(fixed, metric="wer", normalize=None, ignore_case=False))
        self.decoder = Decoder(decoder_flags(fixed))
        self.seconds, self.utterances = 0.0, 0

    def __call__(self, flags: Any, utterances: Any = None, *, nbest: int = 1) -> Any:
        """Return what the sweep's pool returns of utterances: a BlockResult."""
        from w2ltune.embedded.decoderflags import decoder_flags, is_linear
        from w2ltune.scoring.nbest import collect
        from w2ltune.trials.worker import BlockResult

        data, weights = self.dataset, decoder_flags(flags)
        block = range(len(data.ids)) if utterances is None else utterances
        began = time.process_time()
        lists = [self.decoder.decode(data.emission(i), weights, nbest=nbest) for i in block]
        seconds = time.process_time() - began
        self.seconds += seconds
        self.utterances += len(lists)
        texts = [" ".join(entries[0].words) if entries else "" for entries in lists]
        references = [data.references[i] for i in block]
        return BlockResult(
            counts=data.count(block, texts),
            work_seconds=seconds,
            nbest=collect(lists, references, data.units) if nbest > 1 else None,
            linear=all(is_linear(entry, weights) for entries in lists for entry in entries),
        )

    def wer(self, flags: Any) -> float:
        """Return the error rate of the whole list."""
        counts = self(flags).counts.sum(axis=0)
        return float(counts[:3].sum() / counts[3])


def spaces(folder: Path, name: str) -> tuple[Any, Any, Any]:
    """Return the dev list's search space, its decodes, and those of the test list."""
    from w2ltune.formats.distributions import FloatRange
    from w2ltune.search.space import SearchSpace

    make(folder, name)
    ranges = {n: FloatRange(*ends) for n, ends in CONDITIONS[name].weights.items()}
    dev, test = flags(folder, name), flags(folder, name, "test")
    return SearchSpace(fixed=dev, distributions=ranges), Decodes(dev), Decodes(test)


def run_plain(folder: Path, method: str, name: str, seed: int, trials: int) -> dict[str, Any]:
    """Return a run of one of Optuna's samplers."""
    import optuna

    from w2ltune.search.samplers import make_sampler

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    space, dev, test = spaces(folder, name)
    study, rates = optuna.create_study(), list[float]()
    for number in range(trials):
        study.sampler = make_sampler(
            method, seed=seed, number=number, distributions=space.distributions,
            trial_count=trials,
        )  # fmt: skip
        trial, given = space.ask(study)
        rates.append(dev.wer(given))
        study.tell(trial, rates[-1])
    best = {**space.flags(study.best_trial.params), "test": test.dataset.task.lists[0].name}
    return {
        "rates": rates, "dev": min(rates), "test": test.wer(best), "seconds": dev.seconds,
        "decodes": float(trials), "params": study.best_trial.params,
    }  # fmt: skip


def run_nbest(folder: Path, name: str, seed: int, *, auto: bool) -> dict[str, Any]:
    """Return a run of the n-best search as the sweep drives it, with a part of the list first."""
    import numpy as np
    import optuna

    from w2ltune.formats.nbest import write_nbest
    from w2ltune.runs.trialdir import TrialDirectory, TrialResult
    from w2ltune.scoring.significance import clusters_from_ids
    from w2ltune.search import probe
    from w2ltune.search.choice import Decoded, choose
    from w2ltune.search.decodespace import make_box
    from w2ltune.search.method import NOTE
    from w2ltune.search.nbest import NBestSearch
    from w2ltune.search.part import Parts
    from w2ltune.search.study import tell
    from w2ltune.sweepoptions import SweepOptions
    from w2ltune.trials.dataset import shuffled_order

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    space, dev, test = spaces(folder, name)
    count, kept = len(dev.dataset.ids), SweepOptions.nbest
    clusters = clusters_from_ids(dev.dataset.ids, None)
    box = make_box(space.distributions, space.fixed)
    start = np.clip([*STARTS[seed], *box.start()[2:]], box.low, box.high)
    if box.names[1] != "wordscore":
        start[1:] = box.start()[1:]
    spent = time.process_time()

    def decode(given: Any, utterances: Any) -> Any:
        found = dev(given, utterances, nbest=kept)
        return found.counts, found.nbest, found.work_seconds, found.linear

    order = shuffled_order(count)
    words = np.array([len(reference) for reference in dev.dataset.references], dtype=np.int32)

    def scene() -> Any:
        return probe.Scene(
            parts=Parts(decode, space.fixed, box, order, words),
            clusters=lambda block: clusters_from_ids([dev.dataset.ids[i] for i in block], None),
            audio_seconds=lambda block: None, token_count=dev.decoder.token_count,
        )  # fmt: skip

    beam = {n: space.fixed[n] for n in probe.BEAM_FLAGS}
    first = scene()
    if auto:
        beam = dict(probe.AUTO_START)
        begun = probe.choose_beam(first, beam=beam, auto=tuple(beam), start=start)
        beam = dict(begun.raised)
        space = replace(space, fixed={**space.fixed, **beam})
    else:
        begun = probe.look_first(first, beam=beam, start=start)
    parts = first.parts
    part_seconds = dev.seconds
    part_utterances = dev.utterances
    rates: list[float] = []
    decoded, notes = [], []
    with tempfile.TemporaryDirectory() as scratch:
        root = Path(scratch)
        (root / "trials").mkdir()
        storage = optuna.storages.JournalStorage(
            optuna.storages.journal.JournalFileBackend(f"{scratch}/journal")
        )
        study = optuna.create_study(storage=storage)
        method = NBestSearch(
            study=study, trials=root / "trials", space=space,
            box=lambda flags: make_box(space.distributions, flags), key=lambda flags: "one",
            targets={"": np.arange(count)}, trial_count=40, seed=seed,
            start=begun.start if begun else None, level=begun.level if begun else 0.0,
        )  # fmt: skip
        while len(rates) < 40 and not method.finished():
            number = len(rates)
            assert method.ready(())
            study.sampler = method.sampler(number, seed=number)
            trial, given = space.ask(study)
            trial.set_user_attr(NOTE, dict(method.note(number)))
            notes.append(dict(method.note(number)))
            directory = TrialDirectory(root / "trials", number)
            directory.write_flags(given)
            found = dev(given, nbest=kept)
            write_nbest(directory.nbest, found.nbest, key="one")
            rows = zip(dev.dataset.ids, found.counts.tolist(), strict=True)
            text = "".join("\t".join([i, *map(str, row), ""]) + "\n" for i, row in rows)
            directory.utterances.write_text("header\n" + text)
            total = found.counts.sum(axis=0)
            result = TrialResult(
                number=number, attempt=1, state="COMPLETE", value=total[:3].sum() / total[3],
                counts=tuple(total.tolist()), params=trial.params, flags=given,
                linear=found.linear,
            )  # fmt: skip
            directory.write_result(result)
            tell(study, number, result)
            method.observe(result)
            decoded.append(Decoded(result=result, counts=found.counts, note=notes[-1]))
            rates.append(float(result.value))
        choice = choose(
            decoded, target="", utterances=np.arange(count), clusters=clusters, baseline=None,
            middle=method.middle(""),
        )  # fmt: skip
        why = method.finished()
    spent = time.process_time() - spent
    chosen, seconds = decoded[choice.trial].result, dev.seconds
    advice: dict[str, Any] = {"advice": begun.advice if begun else ""}
    if not auto and not seed:
        told = probe.probe(
            scene(), trial=0, beam=beam, values=np.array([chosen.params[n] for n in box.names]),
            counts=decoded[choice.trial].counts, seconds=(seconds - part_seconds) / len(rates),
            has_lm=False,
        )  # fmt: skip
        advice = {
            "advice": told.advice,
            "advice_seconds": told.work_seconds,
            "advice_utterances": told.utterances,
        }
    return {
        "rates": rates, "dev": chosen.value, "seconds": seconds, "total_seconds": spent,
        "test": test.wer({**chosen.flags, "test": "test.lst"}), "why": why, "notes": notes,
        "one": (seconds - part_seconds) / len(rates), "beam": beam, **advice,
        "decodes": part_utterances / count + len(rates),
        "part": [
            [len(t.counts), int(t.errors.sum()), *t.values.round(2).tolist(), t.beam["beamsize"]]
            for t in parts.tried
        ],
        "level": begun.level if begun else 0.0, "part_seconds": part_seconds,
        "params": chosen.params,
    }  # fmt: skip


def run_all(options: argparse.Namespace) -> None:
    path = Path(options.results)
    there = {key(row) for row in read(path)}
    for method in options.methods.split(","):
        for name in options.conditions.split(","):
            for seed in range(options.starts):
                if (method, name, seed) in there:
                    continue
                if method in ("nbest", "auto"):
                    row = run_nbest(Path(options.folder), name, seed, auto=method == "auto")
                else:
                    row = run_plain(Path(options.folder), method, name, seed, options.trials)
                row = {"method": method, "condition": name, "seed": seed, **row}
                with path.open("a") as file:
                    file.write(json.dumps(row) + "\n")
                found = f"dev {row['dev']:.2%} test {row['test']:.2%}"
                print(*key(row), f"{found} {row['decodes']:.1f} decodes", flush=True)


def key(row: dict[str, Any]) -> tuple[Any, ...]:
    return row["method"], row["condition"], row["seed"]


def read(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def table(options: argparse.Namespace) -> None:
    """Print what each method came to, the halves of the conditions apart."""
    rows = read(Path(options.results))
    for half in ("chosen", "kept"):
        print(f"\n{half}\n")
        print(
            "| condition | method | runs | decodes | dev % | test % | decode CPU s | other CPU s |"
        )
        print("|---|---|---|---|---|---|---|---|")
        for name, method in dict.fromkeys((r["condition"], r["method"]) for r in rows):
            if CONDITIONS[name].half != half:
                continue
            own = [r for r in rows if (r["condition"], r["method"]) == (name, method)]
            other = mean([r.get("total_seconds", r["seconds"]) - r["seconds"] for r in own])
            cells = [f"{mean([r['decodes'] for r in own]):.1f}"]
            cells += [" ".join(f"{100 * r[k]:.2f}" for r in own) for k in ("dev", "test")]
            cells += [f"{mean([r['seconds'] for r in own]):.1f}", f"{other:.1f}"]
            print(f"| {name} | {method} | {len(own)} | {' | '.join(cells)} |")
    for row in rows:
        if row.get("advice"):
            spent = row.get("advice_seconds", 0.0) / row["one"]
            print(f"\n{row['condition']} {row['method']}: {row['advice']} ({spent:.1f} decodes)")


def picture(options: argparse.Namespace) -> None:
    """Draw the dev error rate over the decodes, above the best of all, for each method."""
    rows = read(Path(options.results))
    both = set.intersection(*({r["condition"] for r in rows if r["method"] == m} for m in
                              {r["method"] for r in rows}))  # fmt: skip
    rows = [r for r in rows if r["condition"] in both]
    least = {name: min(r["dev"] for r in rows if r["condition"] == name) for name in both}
    steps = [1, *range(2, 12), *range(12, 121, 4)]
    width, height, most = 640, 320, 0.06

    def place(decodes: float, rate: float) -> str:
        x = 50 + (width - 70) * math.log(decodes) / math.log(120)
        return f"{x:.1f},{20 + (height - 60) * (1 - min(rate, most) / most):.1f}"

    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" '
        'font-family="sans-serif" font-size="12"><rect width="100%" height="100%" fill="white"/>'
    ]
    for decodes in (1, 2, 3, 4, 5, 10, 20, 40, 120):
        x, y = place(decodes, 0).split(",")
        parts.append(f'<text x="{x}" y="{float(y) + 16}" text-anchor="middle">{decodes}</text>')
    for rate in (0.0, 0.02, 0.04, 0.06):
        x, y = place(1, rate).split(",")
        parts.append(f'<text x="44" y="{y}" text-anchor="end">+{100 * rate:.0f}</text>')
        parts.append(f'<path d="M{x},{y}H{width - 20}" stroke="#ddd"/>')
    colours = {"nbest": "#0072b2", "tpe": "#d55e00", "random": "#999", "cmaes": "#009e73"}
    for number, method in enumerate(m for m in colours if any(r["method"] == m for r in rows)):
        own = [r for r in rows if r["method"] == method]
        # A part of the list is decoded before the first whole decode.
        before = [r["decodes"] - len(r["rates"]) for r in own]
        points = []
        for step in steps:
            seen = [r["rates"][: int(step - b)] for r, b in zip(own, before, strict=True)]
            if all(seen):
                above = [min(s) - least[r["condition"]] for s, r in zip(seen, own, strict=True)]
                points.append(place(step, mean(above)))
        parts.append(
            f'<polyline points="{" ".join(points)}" fill="none" stroke="{colours[method]}" '
            f'stroke-width="2"/><text x="{width - 90}" y="{40 + 16 * number}" '
            f'fill="{colours[method]}">{method}</text>'
        )
    parts.append(f'<text x="{width // 2}" y="{height - 6}" text-anchor="middle">decodes of the '
                 "whole list (worth of CPU time)</text>")  # fmt: skip
    parts.append('<text x="50" y="14">dev WER above the best found, % absolute, mean of '
                 f"{len(both)} conditions</text></svg>")  # fmt: skip
    Path(options.svg).write_text("\n".join(parts) + "\n")


def mean(values: list[float]) -> float:
    return sum(values) / max(1, len(values))


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("what", choices=("run", "table", "picture"))
    parser.add_argument("folder")
    parser.add_argument("--results", required=True)
    parser.add_argument("--methods", default="random,tpe,cmaes,nbest")
    parser.add_argument("--conditions", default=",".join(CONDITIONS))
    parser.add_argument("--starts", type=int, default=5)
    parser.add_argument("--trials", type=int, default=120)
    parser.add_argument("--svg", default="few_decodes.svg")
    options = parser.parse_args()
    {"run": run_all, "table": table, "picture": picture}[options.what](options)


if __name__ == "__main__":
    main()
