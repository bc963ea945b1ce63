"""120 decodes of random weights, a process each, against one command of w2ltune: same decoder.

    python tests/benchmarks/ancestor_decodes.py [--n=120] [--beamsize=100] [--copies=1] [--seed=1]
        [further flags of the decoder, for both]

Both use the double of the binary, whose search is the real one, on the emissions of the demo. The
processes of the first load lexicon, language model and emissions each time, as the ancestor's did
(which ran the acoustic model too). Processor time is that of all processes, Ray's among them.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import random
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import psutil

REPOSITORY = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(REPOSITORY), str(REPOSITORY / "tests")]

from killing import Sweep  # noqa: E402  (it lies in tests/)

from w2ltune.formats.emissions import open_emissions, write_emission_bin  # noqa: E402
from w2ltune.runs.outcome import read_outcome  # noqa: E402
from w2ltune.runs.trialdir import trial_directories  # noqa: E402

DATA = REPOSITORY / "experiments" / "voice_commands"
DECODER = REPOSITORY / "tests" / "doubles" / "fl_asr_decode"
ENVIRONMENT = {"DOUBLE_PYTHON": sys.executable}


def write_task(folder: Path, copies: int) -> None:
    """Write the demo's lists and emissions as the binary reads them, each utterance so often."""
    (folder / "some.wav").touch()
    for name in ("dev", "test"):
        emissions = open_emissions(DATA / "emissions" / f"{name}.npz")
        (folder / "emissions" / f"{name}.lst").mkdir(parents=True)
        rows = []
        for line in (DATA / f"{name}.lst").read_text().splitlines():
            utterance, _, *rest = line.split()
            emission = emissions.emission(utterance)
            for copy in range(copies):
                own = f"{utterance}-{copy}"
                rows.append(" ".join([own, str(folder / "some.wav"), *rest]))
                write_emission_bin(folder / "emissions" / f"{name}.lst", own, emission)
        (folder / f"{name}.lst").write_text("\n".join(rows) + "\n")


def common_flags(folder: Path, beamsize: int) -> list[str]:
    return [
        f"--emission_dir={folder}/emissions", f"--datadir={folder}", f"--tokens={DATA}/tokens.txt",
        f"--lexicon={DATA}/lexicon.txt", f"--lm={DATA}/lm.arpa", "--smearing=max",
        f"--beamsize={beamsize}", "--criterion=ctc",
    ]  # fmt: skip


def decode(flags: list[str], name: str, weights: tuple[float, float]) -> tuple[float, float]:
    """Return WER and processor seconds of one process."""
    with tempfile.TemporaryFile("w+") as log:
        process = subprocess.Popen(
            [DECODER, *flags, f"--test={name}.lst", f"--lmweight={weights[0]}",
             f"--wordscore={weights[1]}", "--logtostderr=true"],
            stdout=subprocess.DEVNULL, stderr=log, env={**os.environ, **ENVIRONMENT},
        )  # fmt: skip
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        log.seek(0)
        wers = re.findall(r" samples\) in .* -- WER: ([\d.]+)", log.read())
    assert wers and process.returncode == 0
    return float(wers[-1]) / 100, usage.ru_utime + usage.ru_stime


def ancestor(flags: list[str], n: int, seed: int) -> tuple[float, float, float]:
    """Return dev WER of the best of n, its test WER, and the processor seconds of all."""
    choose = random.Random(seed)
    best, total = (1e9, (0.0, 0.0)), 0.0
    for number in range(n):
        weights = choose.uniform(0, 5), choose.uniform(-8, 7)
        wer, seconds = decode(flags, "dev", weights)
        best, total = min(best, (wer, weights)), total + seconds
        if number % 20 == 19:
            print(f"  {number + 1} decodes, {total:.0f} s, WER {100 * best[0]:.2f}", flush=True)
    wer, seconds = decode(flags, "test", best[1])
    return best[0], wer, total + seconds


def with_w2ltune(flags: list[str], folder: Path) -> tuple[int, float, float, float, float]:
    """Return decodes, dev WER, test WER, processor seconds of all and of the decodes alone."""
    command = [
        *flags, f"--binary={DECODER}", "--test=dev.lst", "--heldout=test.lst", "--n=40",
        f"--logdir={folder}/sweeps", "--prefix=few", "--seed=1", "--probe=false",
    ]  # fmt: skip
    sweep = Sweep(command, REPOSITORY, folder / "log", environment=ENVIRONMENT)
    sweep.start()
    used: dict[int, float] = {}
    while sweep.alive():
        for pid in sweep.processes():
            with contextlib.suppress(psutil.Error):
                times = psutil.Process(pid).cpu_times()
                used[pid] = times.user + times.system
        time.sleep(0.1)
    if sweep.wait(10):
        raise SystemExit((folder / "log").read_text())
    study = folder / "sweeps" / "few"
    outcome = read_outcome(study)
    results = [trial.read_result() for trial in trial_directories(study / "trials")]
    dev, test = outcome.choices[0].counts, outcome.looks[0].counts
    searching = sum(result.work_seconds for result in results if result is not None)
    return (
        len(results), sum(dev[:3]) / dev[3], sum(test[:3]) / test[3], sum(used.values()), searching
    )  # fmt: skip


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("--n", type=int, default=120)
    parser.add_argument("--beamsize", type=int, default=100)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--copies", type=int, default=1, help="a longer list: so often the same")
    options, more = parser.parse_known_args()
    os.environ.pop("RAY_ADDRESS", None)
    with tempfile.TemporaryDirectory(prefix="ancestor-") as name:
        folder = Path(name)
        write_task(folder, options.copies)
        flags = [*common_flags(folder, options.beamsize), *more]
        print(f"{options.n} random decodes, beam {options.beamsize}", flush=True)
        dev, test, seconds = ancestor(flags, options.n, options.seed)
        print("w2ltune", flush=True)
        decodes, own_dev, own_test, own_seconds, searching = with_w2ltune(flags, folder)
    print(
        "\n| | decodes | CPU s | of it decoding | dev WER | test WER |\n|---|---|---|---|---|---|"
    )
    print(f"| a process each, random | {options.n} | {seconds:.1f} | | {100 * dev:.2f} | "
          f"{100 * test:.2f} |")  # fmt: skip
    print(f"| w2ltune | {decodes} | {own_seconds:.1f} | {searching:.1f} | {100 * own_dev:.2f} | "
          f"{100 * own_test:.2f} |")  # fmt: skip
    print(f"\nCPU: {100 * own_seconds / seconds:.1f} % in all, "
          f"{100 * searching / seconds:.1f} % decoding")  # fmt: skip
    return 0


if __name__ == "__main__":
    sys.exit(main())
