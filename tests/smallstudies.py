"""Small studies of each kind, for campaigns that do something to them, and what they came to."""

from __future__ import annotations

import contextlib
import json
import shutil
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from conftest import VOICE_COMMANDS, VOICE_FLAGS
from lmtask import hypotheses, write_dump, write_lm
from rescoringfiles import make_files
from trainingtask import BINARY, make_training, write_config

TRIALS = 3


def campaign_folder(named: Path | None, stack: contextlib.ExitStack) -> Path:
    """Return the folder that was named, made, or one that goes with the stack."""
    if named is None:
        return Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="campaign-")))
    named.mkdir(parents=True, exist_ok=True)
    return named


@dataclass(frozen=True, kw_only=True)
class SmallStudy:
    """A command that makes a study, and where it does.

    Attributes:
        name: Of the kind.
        module: The command.
        arguments: Its arguments; all that is written lies in the folder that they are given.
        place: Of the study in that folder.
    """

    name: str
    module: str
    arguments: Callable[[Path], list[str]]
    place: str = "study"

    def kept(self, folder: Path) -> dict[str, bytes]:
        """Return what is finished, of which nothing may be lost or changed, by its place."""
        patterns = ("*/trials/*/result.json", "*/trials/*/snapshots/*.bin", "**/shards/*.npy",
                    "**/*.ppl")  # fmt: skip
        found = {path for pattern in patterns for path in folder.glob(pattern)}
        return {
            str(path.relative_to(folder)): path.read_bytes() for path in found if path.is_file()
        }

    def answer(self, folder: Path) -> object:
        """Return what the study came to, for comparison; None while it is not finished."""
        study = folder / self.place
        if self.module == "w2ltune.forward":
            return {path.name: path.read_bytes() for path in study.glob("*.ppl*")} or None
        if self.module == "w2ltune.rescore":
            best = study / "best.json"
            return json.loads(best.read_bytes())["candidates"] if best.exists() else None
        results = [json.loads(p.read_bytes()) for p in sorted(study.glob("trials/*/result.json"))]
        if len(results) < TRIALS:
            return None
        told = ("state", "value", "counts", "params", "updates", "reason")
        return [{name: result[name] for name in told} for result in results]


def small_studies(folder: Path) -> dict[str, SmallStudy]:
    """Write the inputs of all kinds to a folder."""
    data = folder / "data"
    data.mkdir(parents=True)
    rows = (VOICE_COMMANDS / "dev.lst").read_text(encoding="utf-8").splitlines(keepends=True)
    (data / "dev.lst").write_text("".join(rows[:24]), encoding="utf-8")
    shutil.copy(VOICE_COMMANDS / "emissions/dev.npz", data)
    flags = {
        "emission_dir": data, "datadir": data, "test": "dev.lst", **VOICE_FLAGS, "beamsize": 20,
        "lmweight": "uniform(0, 5)", "wordscore": "uniform(-8, 7)", "n": TRIALS, "seed": 1,
        "probe": "false", "concurrent_trials": 1, "pruner": "none",
    }  # fmt: skip

    def decode(sampler: str) -> Callable[[Path], list[str]]:
        given = [*(f"--{name}={value}" for name, value in flags.items()), f"--sampler={sampler}"]
        return lambda folder: [*given, f"--logdir={folder}", "--prefix=study"]

    config = write_config(folder, {**make_training(folder / "train", rows=8), "iter": "6"})
    train = [
        "--task=train", f"--binary={BINARY}", f"--config={config}", "--seed=1", "--ngpu=0",
        "--extra=--lr=loguniform(1e-3, 0.1)", "--sampler=random", "--pruner=none",
        f"--n={TRIALS}", "--prefix=study",
    ]  # fmt: skip
    lists = folder / "lists"
    lists.mkdir()
    made = make_files(lists)
    made.write_ppl(lists / "dev.ppl")
    rescore = [f"--hyp={made.hyp}", f"--list={made.data_list}", f"--tr={lists / 'dev.ppl'}"]
    dump = write_dump(data / "scored.hyp", hypotheses(12))
    forward = [f"--hyp={dump}", f"--lm={write_lm(data / 'small.arpa')}", "--shards=3"]
    studies = [
        SmallStudy(name="decode random", module="w2ltune.sweep", arguments=decode("random")),
        SmallStudy(name="decode n-best", module="w2ltune.sweep", arguments=decode("nbest")),
        SmallStudy(name="training", module="w2ltune.sweep",
                   arguments=lambda folder: [*train, f"--logdir={folder}"]),
        SmallStudy(name="rescoring", module="w2ltune.rescore",
                   arguments=lambda folder: [*rescore, f"--out={folder / 'study'}"]),
        SmallStudy(name="forwarding", module="w2ltune.forward",
                   arguments=lambda folder: [*forward, f"--out={folder / 'study'}"]),
    ]  # fmt: skip
    return {study.name: study for study in studies}
