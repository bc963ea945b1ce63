"""Damage each file of finished and of interrupted studies, and print what was made of it.

    python tests/campaign/damage.py [--every=1] [--seed=1] [--processes=2] [--study=NAMES]
                                    [--folder=DIR]

Small studies of each kind (decodes, trainings, rescoring, LM scores) are made once. Then each of
their files in turn is cut (at each line, at some bytes of binary ones), emptied, replaced by other
JSON, a folder, a pipe, links to nothing and to a private file, or given to another user; and
``collect``, ``status`` and the same command are run on it, each in a process of its own. That one
ends where it would need Ray. It must not hang or print a traceback, must name the file where it
refuses it, and leave alone what was finished and what links lead to. With ``--every`` only every
so manieth of all cases is tried.
"""

from __future__ import annotations

import argparse
import collections
import contextlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

REPOSITORY = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(REPOSITORY), str(REPOSITORY / "tests"), str(Path(__file__).parent)]

from readers import mutate_value  # noqa: E402  (these lie in tests/)
from runningray import DOUBLES_ENVIRONMENT, running_ray  # noqa: E402
from smallstudies import SmallStudy, campaign_folder, small_studies  # noqa: E402

SECRET = b'{"secret": "CANARY-IN-A-PRIVATE-FILE"}\n'
SECONDS = 60.0
"""Of processor time, and ten times that of any: what lasts longer hangs."""
NO_RAY = "cannot connect to Ray"
NO_CLUSTER = {"RAY_ADDRESS": "127.0.0.1:1"}
FOREIGN_USER = 65534
CUTS = 6
"""Of a binary file."""


class Case(NamedTuple):
    """A study, one of its files, and what is done to it."""

    study: str
    file: str
    what: str
    do: Callable[[Path], None]


# ---- what is done to a file ---------------------------------------------------------------------


def ways(
    content: bytes, secret: Path, choose: random.Random
) -> Iterator[tuple[str, Callable[[Path], None]]]:
    """Yield the ways to damage a file of this content, with a name for each."""

    def holding(new: bytes) -> Callable[[Path], None]:
        return lambda path: void(path.write_bytes(new))

    def instead(make: Callable[[Path], object]) -> Callable[[Path], None]:
        return lambda path: void((path.unlink(), make(path)))

    lines = content.splitlines(keepends=True)
    text = b"\0" not in content
    ends = [sum(map(len, lines[:n])) for n in range(1, len(lines))] if text else []
    if text and len(ends) > 40:  # a report: the lines are alike
        ends = sorted(choose.sample(ends, CUTS))
    if not text:
        ends = sorted(choose.sample(range(1, len(content)), min(CUTS, len(content) - 1)))
    for end in ends:
        yield f"cut after {end} bytes", holding(content[:end])
    if content:
        yield "cut in its last line", holding(content[: -max(2, len(lines[-1]) // 2)])
        yield "emptied", holding(b"")
    yield "text of others", holding(b"something else\n")
    if content[:1] in (b"{", b"["):
        for value in (None, [], {}, 1, "x", {"format": 99}):
            yield f"JSON {json.dumps(value)}", holding(json.dumps(value).encode())
        for number in range(2 * CUTS):
            yield f"other values {number}", holding(mutate_value(content, choose))
    yield "link to nothing", instead(lambda path: path.symlink_to("nowhere"))
    yield "link elsewhere", instead(lambda path: path.symlink_to(secret))
    yield "pipe", instead(lambda path: os.mkfifo(path))
    yield "folder", instead(lambda path: path.mkdir())
    yield "of another user", lambda path: os.chown(path, FOREIGN_USER, FOREIGN_USER)
    yield "gone", lambda path: path.unlink()


def without_slurm(folder: Path) -> None:
    """Let SLURM's programs, where there are some, know of no job."""
    folder.mkdir()
    for name in ("squeue", "scontrol"):
        (folder / name).write_text("#!/bin/sh\n")
        (folder / name).chmod(0o755)
    os.environ["PATH"] = f"{folder}{os.pathsep}{os.environ['PATH']}"


def void(_: object) -> None:
    """Return nothing."""


# ---- the studies --------------------------------------------------------------------------------


def make(study: SmallStudy, folder: Path) -> None:
    """Make a study, finished."""
    folder.mkdir()
    ray = {} if study.module == "w2ltune.rescore" else running_ray() | DOUBLES_ENVIRONMENT
    done = subprocess.run(
        [sys.executable, "-m", study.module, *study.arguments(folder)],
        cwd=REPOSITORY, env={**os.environ, **ray}, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, f"{study.name}: {done.stdout}\n{done.stderr}"


def interrupt(study: SmallStudy, finished: Path, folder: Path) -> None:
    """Make of a finished study one whose last trial was running when all was killed."""
    shutil.copytree(finished, folder, symlinks=True)
    place = folder / study.place
    for pattern in ("outcome.json", "best*", "report.html", "trials.csv"):
        for path in place.glob(pattern):
            path.unlink()
    if trials := sorted((place / "trials").glob("[0-9]*")):
        for name in ("result.json", "finished.json", "utterances.tsv", "nbest.npz"):
            (trials[-1] / name).unlink(missing_ok=True)
        lines = (place / "study.journal").read_bytes().splitlines(keepends=True)
        del lines[-1]  # told
        (place / "study.journal").write_bytes(b"".join(lines))


# ---- the campaign -------------------------------------------------------------------------------


class Campaign:
    """All cases, a process for each command."""

    def __init__(self, options: argparse.Namespace, folder: Path) -> None:
        self.folder = folder
        self.secret = folder / "private.json"
        self.secret.write_bytes(SECRET)
        self.studies: dict[str, tuple[SmallStudy, Path]] = {}
        for name, study in small_studies(folder / "inputs").items():
            if any(part in name for part in options.study.split(",")):
                place = folder / name.replace(" ", "-")
                make(study, place)
                self.studies[f"{name}, finished"] = study, place
                if study.module != "w2ltune.forward":  # leaves nothing but its answer
                    left = place.with_name(f"{place.name}-interrupted")
                    interrupt(study, place, left)
                    self.studies[f"{name}, interrupted"] = study, left
        without_slurm(folder / "bin")
        choose = random.Random(options.seed)
        cases = list(self._cases(choose))
        self.cases = choose.sample(cases, max(1, len(cases) // options.every))
        self.counts: dict[str, collections.Counter[str]] = collections.defaultdict(
            collections.Counter
        )
        self.wrong: list[str] = []

    def _cases(self, choose: random.Random) -> Iterator[Case]:
        for name, (_, place) in self.studies.items():
            for path in sorted(p for p in place.rglob("*") if p.is_file() and not p.is_symlink()):
                for what, do in ways(path.read_bytes(), self.secret, choose):
                    yield Case(name, str(path.relative_to(place)), what, do)

    def run(self, processes: int) -> None:
        """Try all cases, so many at a time; first the commands on what is not damaged."""
        self.sound: dict[str, list[int]] = {}
        for name, (study, place) in self.studies.items():
            folder = self.folder / "sound"
            shutil.copytree(place, folder, symlinks=True)
            ends = [run_apart(*command, self.folder) for command in commands_on(study, folder)]
            self.sound[name] = [os.waitstatus_to_exitcode(status) for status, _ in ends]
            assert self.sound[name][-1] in (0, 1), ends
            shutil.rmtree(folder)
        live: dict[int, tuple[Case, Path]] = {}
        ahead = list(self.cases)
        while ahead or live:
            if ahead and len(live) < processes:
                case, out = ahead.pop(), Path(tempfile.mkdtemp(dir=self.folder))
                if not (pid := os.fork()):
                    try:
                        found = self._try(case, out)
                    except BaseException:
                        found = [("campaign", traceback.format_exc()[-900:])]
                    (out / "found").write_text(json.dumps(found))
                    os._exit(0)
                live[pid] = case, out
                continue
            pid, _ = os.wait()
            case, out = live.pop(pid)
            found = json.loads((out / "found").read_text())
            self.counts[case.study]["tried"] += 1
            self.counts[case.study].update({kind for kind, _ in found} or {"survived"})
            for kind, detail in found:
                line = f"{kind}: {case.study}: {case.file} {case.what}: {detail}"
                self.wrong.append(line)
                print(line, flush=True)
            shutil.rmtree(out)

    def _try(self, case: Case, out: Path) -> list[tuple[str, str]]:
        """Return what went wrong."""
        study, sound = self.studies[case.study]
        folder = out / "studies"
        shutil.copytree(sound, folder, symlinks=True)
        path = folder / case.file
        case.do(path)
        before = study.kept(folder) if case.what != "pipe" else study.kept(sound)
        before.pop(case.file, None)
        wrong: list[tuple[str, str]] = []
        for number, (module, arguments) in enumerate(commands_on(study, folder)):
            status, said = run_apart(module, arguments, out)
            short = module.rpartition(".")[2]
            if os.WIFSIGNALED(status):
                ended = signal.Signals(os.WTERMSIG(status))
                slow = ended in (signal.SIGALRM, signal.SIGPROF)
                wrong.append(("hang" if slow else "crash", f"{short} {ended.name}"))
                continue
            code, line = os.WEXITSTATUS(status), " ".join(said.split())[-300:]
            if "Traceback" in said:
                last = said.rstrip().rpartition("\n")[2][:150]
                places = [row.strip() for row in said.splitlines() if "/w2ltune/" in row]
                where = places[-1].rpartition("/w2ltune/")[2] if places else ""
                wrong.append(("traceback", f"{short}: {last} ({where})"))
            elif code not in (0, 2, 75) and not (code == 1 and NO_RAY in said):
                wrong.append(("exit code", f"{short} {code}: {line}"))
            elif code == 2 == self.sound[case.study][number]:
                continue
            elif code == 2 and path.name not in said and Path(case.file).parts[-2] not in said:
                wrong.append(("not named", f"{short}: {line}"))
            if SECRET.decode()[13:30] in said:
                wrong.append(("let in", f"{short} shows what a link leads to"))
        after = study.kept(folder)
        lost = [name for name, content in before.items() if after.get(name) != content]
        wrong += [("lost", name) for name in lost]
        if self.secret.read_bytes() != SECRET:
            wrong.append(("let in", "what a link leads to was overwritten"))
        return wrong


def commands_on(study: SmallStudy, folder: Path) -> list[tuple[str, list[str]]]:
    """Return what is run: the commands that look at the study, and last its own."""
    board = [f"--logdir={folder}", f"--prefix={study.place}"]
    looks = [("w2ltune.collect", board), ("w2ltune.collect", [*board, "--format=json"])]
    return [
        ("w2ltune.cluster.status", [str(folder / study.place)]),
        *(looks if study.module != "w2ltune.forward" else []),
        (study.module, study.arguments(folder)),
    ]


def run_apart(
    module: str, arguments: list[str], out: Path, environment: Mapping[str, str] = NO_CLUSTER
) -> tuple[int, str]:
    """Run a command in a process of its own; return how it ended and what it said."""
    log = out / "said"
    pid = os.fork()
    if not pid:
        code = 1
        try:
            for stream in (1, 2):
                os.dup2(os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND), stream)
            signal.setitimer(signal.ITIMER_PROF, SECONDS)
            signal.setitimer(signal.ITIMER_REAL, 10 * SECONDS)
            os.chdir(REPOSITORY)
            os.environ |= environment
            code = main_of(module)(arguments)
        except SystemExit as end:
            code = int(end.code or 0)
        except BaseException:
            traceback.print_exc()
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(code)
    _, status = os.waitpid(pid, 0)
    said = log.read_text(errors="replace") if log.exists() else ""
    log.unlink(missing_ok=True)
    return status, said


def main_of(module: str) -> Callable[[list[str]], int]:
    """Return a command, as ``python -m`` runs it."""
    import importlib

    from w2ltune.errors import run_command

    command = importlib.import_module(module).main
    return lambda arguments: run_command(command, arguments)


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("--every", type=int, default=1)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--study", default="", help="parts of their names")
    parser.add_argument("--folder", type=Path, default=None)
    options = parser.parse_args()
    began = time.monotonic()
    with contextlib.ExitStack() as stack:
        folder = campaign_folder(options.folder, stack)
        campaign = Campaign(options, folder)
        preload()
        campaign.run(options.processes)
    kinds = ["tried", "survived", "lost", "let in", "traceback", "hang", "crash", "exit code",
             "not named", "campaign"]  # fmt: skip
    print(f"\n| study | {' | '.join(kinds)} |\n|---|{'---|' * len(kinds)}")
    total = sum(campaign.counts.values(), collections.Counter[str]())
    for name, counts in [*campaign.counts.items(), ("all", total)]:
        print(f"| {name} | {' | '.join(str(counts[kind]) for kind in kinds)} |")
    print(f"\ncases {total['tried']}, {time.monotonic() - began:.0f} s")
    print(f"lost, let in, tracebacks, hangs, left behind: {len(campaign.wrong)} {campaign.wrong}")
    return 1 if campaign.wrong else 0


def preload() -> None:
    """Import once what each process would."""
    import importlib

    for name in ("sweep", "collect", "rescore", "forward", "cluster.status", "cluster.session",
                 "decodeinput", "decodesweep", "trainsweep", "traininput", "rescoringrun",
                 "forwardinput", "report.page", "report.trainingpage", "report.rescoringpage",
                 "report.forwarding", "trials.lmsource", "rescoring"):  # fmt: skip
        importlib.import_module(f"w2ltune.{name}")


if __name__ == "__main__":
    os.environ["W2LTUNE_DASHBOARD"] = "0"
    sys.exit(main())
