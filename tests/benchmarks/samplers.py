"""Decodes until a sampler is within 0.1 absolute of the best anything found; real decodes.

    python tests/benchmarks/samplers.py [--seeds=5] [--trials=120] [--beamsize=100]

Every sampler decodes the dev list of experiments/voice_commands one trial at a time, without
pruning, over the ancestor's ranges. The best is that of all runs together. The speech is synthetic.
"""

from __future__ import annotations

import argparse
import multiprocessing
import statistics
import sys
import tempfile
import time
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(REPOSITORY))

SAMPLERS = ("random", "tpe", "cmaes")
NEAR = 0.001  # 0.1 % absolute


def run(sampler: str, seed: int, trials: int, beamsize: int) -> tuple[str, int, list[float], float]:
    """Return the rates of one run in order, and its processor seconds."""
    import optuna

    from w2ltune.embedded.beamsearch import Decoder
    from w2ltune.embedded.decoderflags import decoder_flags
    from w2ltune.formats.flagsfile import effective, parse_flagsfile
    from w2ltune.formats.known_flags import is_boolean
    from w2ltune.scoring.wer import total
    from w2ltune.search.samplers import make_sampler
    from w2ltune.search.space import ANCESTOR_RANGES, SearchSpace
    from w2ltune.trials.dataset import Dataset, find_task

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    path = REPOSITORY / "experiments/voice_commands/decode.cfg"
    flags = {n: f.value for n, f in effective(parse_flagsfile(path, boolean=is_boolean)).items()}
    fixed = {n: v for n, v in flags.items() if n not in ANCESTOR_RANGES}
    fixed["beamsize"] = str(beamsize)
    space = SearchSpace(fixed=fixed, distributions=ANCESTOR_RANGES)
    dataset = Dataset(find_task(fixed, metric="wer", normalize=None, ignore_case=False))
    decoder = Decoder(decoder_flags(fixed))
    with tempfile.TemporaryDirectory() as folder:
        storage = optuna.storages.JournalStorage(
            optuna.storages.journal.JournalFileBackend(f"{folder}/journal")
        )
        study = optuna.create_study(storage=storage)
        indices = range(len(dataset.ids))
        rates = []
        start = time.process_time()
        for number in range(trials):
            study.sampler = make_sampler(
                sampler, seed=seed, number=number,
                distributions=ANCESTOR_RANGES, trial_count=trials,
            )  # fmt: skip
            trial, chosen = space.ask(study)
            weights = decoder_flags(chosen)
            texts = [
                " ".join(decoder.decode(dataset.emission(i), weights, nbest=1)[0].words)
                for i in indices
            ]
            rates.append(total(dataset.count(indices, texts)).wer)
            study.tell(trial, rates[-1])
        return sampler, seed, rates, time.process_time() - start


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--trials", type=int, default=120)
    parser.add_argument("--beamsize", type=int, default=100)
    options = parser.parse_args()
    jobs = [
        (sampler, seed, options.trials, options.beamsize)
        for seed in range(options.seeds)
        for sampler in SAMPLERS
    ]
    with multiprocessing.get_context("spawn").Pool() as pool:
        runs = pool.starmap(run, jobs, chunksize=1)
    best = min(min(rates) for _, _, rates, _ in runs)
    print(f"best of all runs: {best:.2%}; beam {options.beamsize}; {options.seeds} seeds")
    print(
        "| sampler | best after 10 | 20 | 40 | 80 | all | decodes to best + 0.1 | reached | CPU s |"
    )
    print("|---|---|---|---|---|---|---|---|---|")
    for sampler in SAMPLERS:
        own = [(rates, seconds) for name, _, rates, seconds in runs if name == sampler]
        cells = []
        for count in (10, 20, 40, 80, options.trials):
            values = [min(rates[:count]) for rates, _ in own]
            spread = statistics.stdev(values) if len(values) > 1 else 0.0
            cells.append(f"{100 * statistics.mean(values):.2f}±{100 * spread:.2f}")
        reached = [
            next((i + 1 for i, rate in enumerate(rates) if rate <= best + NEAR + 1e-9), None)
            for rates, _ in own
        ]
        counts = [value or options.trials + 1 for value in reached]
        median = statistics.median(counts)
        shown = f">{options.trials}" if median > options.trials else f"{median:g}"
        hits = sum(value is not None for value in reached)
        seconds = statistics.mean(s for _, s in own)
        print(f"| {sampler} | {' | '.join(cells)} | {shown} | {hits}/{len(own)} | {seconds:.0f} |")


if __name__ == "__main__":
    main()
