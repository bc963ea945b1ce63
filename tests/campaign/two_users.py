"""Let two other users try what they can against one who sweeps in a folder of the group.

    python tests/campaign/two_users.py [--cases=WORDS] [--numbers] [--folder=DIR]

Alice owns a study in a folder that was prepared for her group (``chmod g+ws``) and gives the
command. Bob is of the group and may write everything in it; Eve is of none and has /tmp. Before
the command, or while it runs, they plant links, pipes, files and folders under each name that the
command uses. Held means: of Alice's private files none is changed, made, or told to others, no
program of others has run as her, and she reads in one line whose file it is, or goes on without
it. The users have names in a private copy of /etc/passwd, or are mere ``--numbers``. Root only.
"""

from __future__ import annotations

import argparse
import collections
import contextlib
import functools
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[2]
TASK = REPOSITORY / "experiments" / "voice_commands"
GROUP = 61900
USERS = {"alice": 61901, "bob": 61902, "eve": 61903}
SECRET = "the secret of alice, of no use to others"
MOST_SECONDS = 300.0
TRIALS = 2

# Of each name that a sweep uses: before the command, and while it runs.
NAMES = (
    "study.journal", "sweep.json", "outcome.json", "best.cfg", "trials.csv", "report.html",
    "lock", "lock/000001.json", "trials", "trials/0000", "trials/0000/flags.cfg",
    "trials/0000/attempts", "trials/0000/attempts/0001", "trials/0000/utterances.tsv",
    "trials/0000/result.json", "slurm", "slurm/jobs",
)  # fmt: skip
FOLDERS = {"lock", "trials", "trials/0000", "trials/0000/attempts", "slurm", "slurm/jobs"}


@dataclass
class Place:
    """A home of each user, and the folder of the group."""

    folder: Path
    study: Path = field(init=False)
    alice: Path = field(init=False)
    bob: Path = field(init=False)

    def __post_init__(self) -> None:
        self.folder.mkdir(parents=True)
        self.folder.chmod(0o755)
        for user, number in USERS.items():
            home = self.folder / user
            home.mkdir()
            os.chown(home, number, number)
            home.chmod(0o701 if user == "alice" else 0o755)  # a name in it can be guessed
        self.alice, self.bob = self.folder / "alice", self.folder / "bob"
        group = self.folder / "group"
        group.mkdir()
        os.chown(group, USERS["alice"], GROUP)
        group.chmod(0o2775)
        self.study = group / "study"
        rows = (TASK / "dev.lst").read_text(encoding="utf-8").splitlines(keepends=True)
        (self.folder / "tiny.lst").write_text("".join(rows[:8]), encoding="utf-8")
        shutil.copy(TASK / "emissions" / "dev.npz", self.folder / "dev.npz")
        for name in ("tokens.txt", "lexicon.txt", "lm.arpa"):
            shutil.copy(TASK / name, self.folder)
        as_user("alice", self._private)
        (self.bob / "evil").write_text(f"#!/bin/sh\nid -u >>{self.bob}/ran\n")
        (self.bob / "evil.py").write_text(f"open('{self.bob}/ran', 'a').write('python')\n")
        (self.bob / "evil").chmod(0o755)
        (self.bob / "ran").touch()
        (self.bob / "ran").chmod(0o666)

    def _private(self) -> None:
        for name in ("precious", "folder/precious"):
            path = self.alice / name
            path.parent.mkdir(exist_ok=True)
            path.write_text(f"{SECRET}\n--lmweight=1")
            path.chmod(0o600)
        (self.alice / "folder").chmod(0o755)

    def private(self) -> dict[str, str]:
        """Return what Alice has beside the study."""
        return {
            str(path.relative_to(self.alice)): path.read_text(errors="replace")
            for path in self.alice.rglob("*")
            if path.is_file() and not {".w2ltune", ".cache"} & {*path.parts}
        }

    def told(self) -> list[str]:
        """Return the files with Alice's secret that others can read."""
        found = []
        for path in (*self.folder.joinpath("group").rglob("*"), *self.bob.rglob("*")):
            with contextlib.suppress(OSError):
                if path.is_file() and not path.is_symlink() and path.stat().st_mode & 0o044:
                    found += [str(path)] * (SECRET in path.read_text(errors="replace"))
        return found

    def command(self, *more: str) -> list[str]:
        arguments = [
            f"--emission_dir={self.folder}/dev.npz", f"--test={self.folder}/tiny.lst",
            *(f"--{name}={self.folder}/{file}" for name, file in
              (("tokens", "tokens.txt"), ("lexicon", "lexicon.txt"), ("lm", "lm.arpa"))),
            "--smearing=max", "--beamsize=5", "--lmweight=uniform(0, 5)", "--sampler=random",
            "--pruner=none", "--noprobe", "--concurrent_trials=1", "--seed=1", f"--n={TRIALS}",
            f"--logdir={self.study.parent}", f"--prefix={self.study.name}", *more,
        ]  # fmt: skip
        return [sys.executable, "-m", "w2ltune.sweep", *arguments]


def identity(user: str) -> dict[str, object]:
    groups = [] if user == "eve" else [GROUP]
    return {"user": USERS[user], "group": USERS[user], "extra_groups": groups, "umask": 0o022}


def as_user(user: str, work: Callable[[], object]) -> None:
    """Do something as one of them."""
    child = os.fork()
    if child == 0:
        try:
            os.setgroups([] if user == "eve" else [GROUP])
            os.setgid(USERS[user])
            os.setuid(USERS[user])
            os.umask(0o002)
            work()
            os._exit(0)
        except BaseException as error:
            print(f"{user} could not: {error!r}", file=sys.stderr, flush=True)
            os._exit(1)
    if os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]):
        raise PermissionError(f"{user} could not plant it")


@dataclass
class Run:
    """What came of a command of Alice's."""

    code: int | None
    said: str


def environment(home: Path) -> dict[str, str]:
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("RAY_", "SLURM", "W2LTUNE"))}
    names = ("USER", "LOGNAME")
    kept = {k: v for k, v in kept.items() if k not in names} | {
        "HOME": str(home), "PYTHONPATH": str(REPOSITORY), "W2LTUNE_DASHBOARD": "0",
        "PYTHONDONTWRITEBYTECODE": "1",
    }  # fmt: skip
    return kept if ARGUMENTS.numbers else kept | dict.fromkeys(names, "alice")


@functools.cache
def ray_of_alice() -> dict[str, str]:
    """Start a Ray of Alice's own for all commands but those that are about its start."""
    home = Path(tempfile.mkdtemp(prefix="campaign-"))
    token = home / "token"
    token.write_text("0123456789abcdef" * 4)
    token.chmod(0o600)
    for path in (home, token):
        os.chown(path, USERS["alice"], USERS["alice"])
    known = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN_PATH": str(token), "RAY_TMPDIR": str(home)}
    cluster = subprocess.Popen(
        [sys.executable, REPOSITORY / "tests" / "fakecluster.py", "1", "0"],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        env=environment(home) | known, cwd="/", **identity("alice"),  # type: ignore[call-overload]
    )  # fmt: skip
    assert cluster.stdout is not None
    address = cluster.stdout.readline().strip()
    assert address, "no Ray was started"
    return known | {"RAY_ADDRESS": address}


def run(
    place: Place,
    command: list[str],
    beside: Callable[[], object] = lambda: None,
    *,
    own_ray: bool = False,
) -> Run:
    """Give a command as Alice while others are at work beside it."""
    variables = environment(place.alice) | ({} if own_ray else ray_of_alice())
    log = place.folder / "said"
    with log.open("w") as out:
        process = subprocess.Popen(
            command, cwd=place.folder, env=variables, stdout=out, stderr=subprocess.STDOUT,
            stdin=subprocess.DEVNULL, start_new_session=True, **identity("alice"),  # type: ignore
        )  # fmt: skip
        others = os.fork()
        if others == 0:
            with contextlib.suppress(BaseException):
                as_user("bob", lambda: _until(beside, process.pid))
            os._exit(0)
        try:
            code: int | None = process.wait(MOST_SECONDS)
        except subprocess.TimeoutExpired:
            code = None
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        with contextlib.suppress(ProcessLookupError):
            os.kill(others, signal.SIGKILL)
        os.waitpid(others, 0)
    return Run(code, log.read_text(errors="replace"))


def _until(work: Callable[[], object], pid: int) -> None:
    """Try something again and again as long as a process lives."""
    while Path(f"/proc/{pid}").exists():
        with contextlib.suppress(OSError):
            if work():
                return
        time.sleep(0.0005)


# ---- What is tried.
Case = Callable[[Place], Run]
CASES: dict[str, Case] = {}


def case(name: str) -> Callable[[Case], Case]:
    def add(function: Case) -> Case:
        CASES[name] = function
        return function

    return add


def swap(path: Path, target: Path, *, hard: bool = False) -> bool:
    """Put a link in the place of what is there, as Bob, who may write the folder."""
    aside = path.with_name(f"{path.name}.aside")
    if not os.path.lexists(path) or path.is_symlink():
        return False
    path.rename(aside)
    if hard:
        path.hardlink_to(target)
    else:
        path.symlink_to(target)
    return True


def _add_names() -> None:
    for name in NAMES:
        target = "folder" if name in FOLDERS else "precious"

        def planted(
            place: Place, name: str = name, kind: str = "link", target: str = target
        ) -> Run:
            path = place.study / name

            def plant() -> None:
                path.parent.mkdir(parents=True, exist_ok=True)
                for folder in (place.study, path.parent):
                    folder.chmod(0o2775)
                if kind == "link":
                    path.symlink_to(place.alice / target)
                elif kind == "link to nothing":
                    path.symlink_to(place.alice / "new")
                elif kind == "pipe":
                    os.mkfifo(path)
                elif kind == "folder":
                    path.mkdir()

            as_user("bob", plant)
            if kind == "hard link":  # as root: some kernels do not forbid it to Bob
                path.hardlink_to(place.alice / target)
            return run(place, place.command(), own_ray=True)  # it does not come to that

        def raced(place: Place, name: str = name, target: str = target) -> Run:
            path = place.study / name
            return run(place, place.command(), lambda: swap(path, place.alice / target))

        kinds = ["link", "link to nothing", "pipe"]
        kinds += [] if name in FOLDERS else ["hard link", "folder"]
        for kind in kinds:
            CASES[f"{kind}: {name}"] = (
                lambda place, kind=kind, planted=planted: planted(place, kind=kind)  # type: ignore
            )
        CASES[f"swapped while it runs: {name}"] = raced


_add_names()


def interrupted(place: Place) -> None:
    """Leave a study with a trial that was asked, and no more, as a kill does."""
    done = run(place, place.command())
    assert done.code == 0, done.said
    shutil.rmtree(place.study / "trials" / "0001")
    journal = place.study / "study.journal"
    lines = journal.read_bytes().splitlines(keepends=True)
    ends = [k for k, line in enumerate(lines) if json.loads(line)["op_code"] == 6]
    flags = (place.study / "trials" / "0000" / "flags.cfg").read_text()
    last = max(k for k in ends if k < len(lines))
    journal.write_bytes(b"".join(lines[:last]))
    folder = place.study / "trials" / "0001"
    folder.mkdir()
    (folder / "flags.cfg").write_text(re.sub("# asked.*\n", "", flags))
    for path in (folder, folder / "flags.cfg"):
        os.chown(path, USERS["alice"], GROUP)
    folder.chmod(0o2775)


def with_other_flags(place: Place, change: Callable[[str], str]) -> Run:
    """Let bob change the flags of an interrupted trial before alice goes on."""
    interrupted(place)
    path = place.study / "trials" / "0001" / "flags.cfg"

    def plant() -> None:
        text = change(path.read_text())
        path.rename(place.bob / "old")
        path.write_text(text)

    as_user("bob", plant)
    return run(place, place.command())


@case("flags.cfg of an interrupted trial names other files")
def _(place: Place) -> Run:
    lexicon, precious = f"{place.folder}/lexicon.txt", f"{place.alice}/precious"
    return with_other_flags(place, lambda text: text.replace(lexicon, precious))


@case("flags.cfg of an interrupted trial names a program")
def _(place: Place) -> Run:
    programs = f"--binary={place.bob}/evil\n--normalize={place.bob}/evil.py\n"
    return with_other_flags(place, lambda text: text + programs)


@case("best.cfg of alice carries a program of bob's")
def _(place: Place) -> Run:
    done = run(place, place.command())
    assert done.code == 0, done.said
    best = place.study / "best.cfg"

    def plant() -> None:
        with contextlib.suppress(PermissionError), best.open("a") as file:  # her own file
            file.write(f"--normalize={place.bob}/evil.py\n")

    as_user("bob", plant)
    return run(place, place.command(f"--flagsfile={best}", "--prefix=next"))


@case("best.cfg of bob carries a program of his")
def _(place: Place) -> Run:
    best = place.study.parent / "best.cfg"
    as_user("bob", lambda: best.write_text(f"--normalize={place.bob}/evil.py\n"))
    return run(place, place.command(f"--flagsfile={best}"))


@case("journal with a parameter of bob's")
def _(place: Place) -> Run:
    interrupted(place)
    journal = place.study / "study.journal"

    def plant() -> None:
        line = {
            "op_code": 5, "worker_id": "x", "trial_id": 1, "param_name": "lexicon",
            "param_value_internal": 0,
            "distribution": json.dumps({
                "name": "CategoricalDistribution",
                "attributes": {"choices": [f"{place.alice}/precious"]},
            }),
        }  # fmt: skip
        text = journal.read_text()
        journal.rename(place.bob / "old")
        journal.write_text(f"{text}{json.dumps(line)}\n")

    as_user("bob", plant)
    return run(place, place.command())


@case("result.json of a trial that was never run")
def _(place: Place) -> Run:
    def plant() -> None:
        folder = place.study / "trials" / "0000"
        folder.mkdir(parents=True)
        (folder / "result.json").write_text(
            '{"number": 0, "checkpoint": "../../../alice/precious"}'
        )

    as_user("bob", plant)
    return run(place, place.command())


@case("scratch of ray made by eve")
def _(place: Place) -> Run:
    made = []

    def plant() -> None:
        for folder in ("/tmp/ray", f"/tmp/w2l-{os.getpid()}-1-abcdefgh"):
            if not os.path.lexists(folder):
                Path(folder).symlink_to(place.alice / "folder")
                made.append(folder)

    as_user("eve", plant)
    try:
        return run(place, place.command(), own_ray=True)
    finally:
        for folder in ("/tmp/ray", f"/tmp/w2l-{os.getpid()}-1-abcdefgh"):
            with contextlib.suppress(OSError):
                if os.lstat(folder).st_uid == USERS["eve"]:
                    Path(folder).unlink()


@case("token read by bob and eve while it runs")
def _(place: Place) -> Run:
    def look() -> bool:
        for path in Path("/tmp").glob("w2l-*/token"):
            if path.stat().st_uid == USERS["alice"]:
                (place.bob / "token").write_text(f"{SECRET} {path.read_text()}")
                return True
        return False

    return run(place, place.command(), look, own_ray=True)


@case("a private study stays private (umask 077)")
def _(place: Place) -> Run:
    place.study = place.alice / "folder" / "study"
    done = run(place, ["sh", "-c", 'umask 077; exec "$@"', "sh", *place.command()])
    open_ = [str(p) for p in (place.study, *place.study.rglob("*")) if p.stat().st_mode & 0o077]
    shutil.rmtree(place.study)
    (place.alice / "folder").chmod(0o755)
    return Run(done.code if not open_ else 99, f"{done.said}\nopen to others: {open_[:5]}")


def submission(place: Place, plant: Callable[[], object], *, race: bool) -> Run:
    """Submit to a SLURM that only notes the script, while Bob is at work."""
    bin_ = place.folder / "bin"
    bin_.mkdir()
    sbatch = bin_ / "sbatch"
    sbatch.write_text(f'#!/bin/sh\nfor last; do :; done\ncat "$last" >{place.alice}/folder/taken\n'
                      "echo 17\n")  # fmt: skip
    for name, text in (("squeue", ""), ("scontrol", "exit 1\n")):
        (bin_ / name).write_text(f"#!/bin/sh\n{text}")
    for path in bin_.iterdir():
        path.chmod(0o755)
    if not race:
        as_user("bob", plant)
    command = [
        "env",
        f"PATH={bin_}:{os.environ['PATH']}",
        *place.command("--partition=x", "--hours=1"),
    ]
    done = run(place, command, plant if race else lambda: None, own_ray=True)
    taken = place.alice / "folder" / "taken"
    text = taken.read_text() if taken.exists() else ""
    taken.unlink(missing_ok=True)
    output = re.search(r"--output=(\S+)/[^/]*$", text, re.M)
    where = Path(output[1]) if output else None
    if "evil" in text:
        return Run(99, f"{done.said}\nbob's script was submitted")
    if where is not None and any(
        above.stat().st_mode & 0o022 and not above.stat().st_mode & 0o1000
        for above in (where, *where.parents)
        if above.exists()
    ):
        return Run(99, f"{done.said}\nbob can move {where}, where SLURM writes as alice")
    return done


@case("submitted: of-<user> made by bob")
def _(place: Place) -> Run:
    def plant() -> None:
        (place.study / "slurm" / "of-alice").mkdir(parents=True)

    return submission(place, plant, race=False)


@case("submitted: slurm is bob's, script swapped")
def _(place: Place) -> Run:
    def plant() -> bool:
        folder = place.study / "slurm"
        with contextlib.suppress(OSError):
            folder.mkdir(parents=True, exist_ok=True)
            folder.chmod(0o2775)
        for path in folder.glob("*.sbatch"):
            path.unlink()
            path.write_text(f"#!/bin/sh\n{place.bob}/evil\n")
            return True
        return False

    return submission(place, plant, race=True)


@case("submitted: slurm is a link to alice's home")
def _(place: Place) -> Run:
    def plant() -> None:
        place.study.mkdir()
        place.study.chmod(0o2775)
        (place.study / "slurm").symlink_to(place.alice / "folder")

    return submission(place, plant, race=False)


@case("submitted: a record that names a script of bob's")
def _(place: Place) -> Run:
    def plant() -> None:
        jobs = place.study / "slurm" / "jobs"
        jobs.mkdir(parents=True)
        (jobs / "0001.json").write_text(json.dumps({"number": 1, "script": f"{place.bob}/evil"}))

    return submission(place, plant, race=False)


# ---- The campaign.
def judge(place: Place, before: dict[str, str], done: Run) -> list[str]:
    """Return what was let in."""
    after, wrong = place.private(), []
    wrong += [f"alice's {name} was changed" for name in before if after.get(name) != before[name]]
    wrong += [f"{name} was made in alice's home" for name in after.keys() - before.keys()]
    wrong += [f"her secret is in {path}" for path in place.told()]
    if ran := (place.bob / "ran").read_text():
        wrong.append(f"bob's program ran as {ran.split()}")
    if "Traceback" in done.said:
        wrong.append("a traceback")
    if done.code is None:
        wrong.append("it hangs")
    elif done.code not in (0, 1, 2, 75):
        wrong.append(f"exit code {done.code}: {done.said.strip().splitlines()[-1:]}")
    elif done.code and "error:" not in done.said:
        wrong.append(f"exit code {done.code} without a reason")
    return wrong


@contextlib.contextmanager
def place_for(name: str, base: Path) -> Iterator[Place]:
    folder = base / re.sub(r"\W+", "-", name)
    yield Place(folder)
    shutil.rmtree(folder, ignore_errors=True)


def main() -> int:
    base = ARGUMENTS.folder or Path(tempfile.mkdtemp(prefix="campaign-"))
    base.mkdir(parents=True, exist_ok=True)
    base.chmod(0o755)
    for above in base.resolve().parents:  # they come to it
        if above.is_relative_to("/tmp/"):
            above.chmod(above.stat().st_mode | 0o001)
    words = [word for word in ARGUMENTS.cases.split(",") if word]
    chosen = [name for name in CASES if not words or any(word in name for word in words)]
    table: dict[str, collections.Counter[str]] = collections.defaultdict(collections.Counter)
    let_in, began = [], time.monotonic()
    for name in chosen:
        kind = name.partition(":")[0]
        with place_for(name, base) as place:
            before = place.private()
            try:
                done = CASES[name](place)
            except PermissionError:
                table[kind]["not possible"] += 1
                continue
            wrong = judge(place, before, done)
        let_in += [f"{name}: {text}" for text in wrong]
        table[kind]["let in" if wrong else "refused" if done.code else "held"] += 1
        last = (done.said.strip().splitlines() or [""])[-1][:150]
        print(f"{time.monotonic() - began:6.0f} s  {name}: exit {done.code}  "
              f"{wrong or last}", flush=True)  # fmt: skip
    columns = ("held", "refused", "not possible", "let in")
    print(f"\n| tried | times | {' | '.join(columns)} |\n|---|{'---|' * (len(columns) + 1)}")
    for kind, found in table.items():
        cells = " | ".join(str(found[column]) for column in columns)
        print(f"| {kind} | {sum(found.values())} | {cells} |")
    print(f"\ntried {len(chosen)}, let in or left behind: {len(let_in)} {let_in}")
    return 1 if let_in else 0


def with_names() -> int:
    """Run the same in a private copy of the mounts: the users have names, and reach Python."""
    names = ("passwd", "group")
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # all of it ends with unshare
    with tempfile.TemporaryDirectory() as folder:
        lines = {name: Path("/etc", name).read_text() for name in names}
        for user, number in USERS.items():
            lines["passwd"] += f"{user}:x:{number}:{number}::/nonexistent:/bin/sh\n"
            lines["group"] += f"{user}:x:{number}:\n"
        lines["group"] += f"campaign:x:{GROUP}:alice,bob\n"
        mounts = []
        for name in names if not ARGUMENTS.numbers else ():
            Path(folder, name).write_text(lines[name])
            Path(folder, name).chmod(0o644)
            mounts.append(f"mount --bind {folder}/{name} /etc/{name}")
        # What others may not enter, as /root, is left to them with Python's folder alone.
        closed = {
            above
            for path in (Path(sys.base_prefix), REPOSITORY)
            for above in path.parents
            if not above.stat().st_mode & 0o001
        }
        mounts += [f"mount -t tmpfs -o mode=755 tmpfs {above}" for above in sorted(closed)[:1]]
        stages = []
        for k, path in enumerate((Path(sys.base_prefix), REPOSITORY) if closed else ()):
            if closed & {*path.parents}:
                stage = f"{folder}/stage{k}"
                stages.append(f"mkdir {stage} && mount --bind {path} {stage}")
                mounts.append(f"mkdir -p {path} && mount --bind {stage} {path}")
        script = " && ".join([*stages, *mounts, 'exec "$@"'])
        done = subprocess.run(
            ["unshare", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc",
             "sh", "-c", script, "sh", sys.executable, *sys.argv],
            env={**os.environ, INSIDE: "1"},
        )  # fmt: skip
    return done.returncode


INSIDE = "W2L_CAMPAIGN_INSIDE"


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--cases", default="", help="only those with one of these words, by ','")
    parser.add_argument("--numbers", action="store_true", help="users without names")
    parser.add_argument("--folder", type=Path, default=None)
    ARGUMENTS = parser.parse_args()
    os.environ.pop("RAY_ADDRESS", None)
    sys.exit(main() if os.environ.get(INSIDE) else with_names())
