"""Several users: on one study, on one node, and with the token of neither."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest
from bed import Cluster
from bedfiles import REPOSITORY, Settings
from trainings import training, wait_for

from w2ltune import files

pytestmark = [
    pytest.mark.slow,
    pytest.mark.parametrize("slurm", [Settings(grace_seconds=10)], indirect=True),
]

DECODE = REPOSITORY / "experiments" / "voice_commands" / "decode.cfg"

INTRUDER = """
import http.client, os, sys, urllib.error, urllib.request
from pathlib import Path
address, dashboard, token, owner = sys.argv[1:]
def page(host, port, path):
    try:
        return urllib.request.urlopen(f"http://{host}:{port}{path}", timeout=5).status
    except urllib.error.HTTPError as error:
        return error.code
    except (OSError, ValueError, http.client.HTTPException) as error:
        return "no HTTP"
try:
    print("token", open(token).read())
except PermissionError:
    print("token denied")
print("dashboard", page("127.0.0.1", dashboard, "/api/jobs/"))
host = address.split(":")[0]
for line in "".join(Path("/proc/net", name).read_text() for name in ("tcp", "tcp6")).splitlines():
    fields = line.split()
    if fields[3] == "0A" and fields[7] == owner:  # it listens
        ip, port = fields[1].split(":")
        where = "127.0.0.1" if ip == "0100007F" else "[::1]" if ip.endswith("01000000") else host
        print("listens", where, int(port, 16), page(where, int(port, 16), "/"))
import ray
children = []
client = f"ray://{host}:{int(dashboard) + 1}"  # the third of the head's ports
for mode, where in (("disabled", address), ("token", address), ("disabled", client)):
    if not (pid := os.fork()):
        os.environ |= {"RAY_AUTH_MODE": mode, "RAY_AUTH_TOKEN": "0" * 64}
        try:
            ray.init(where, logging_level="ERROR", log_to_driver=False)
            print("joined", mode, where + "\\n", end="", flush=True)
        except BaseException as error:
            print("refused", mode, where, str(error).splitlines()[0] + "\\n", end="", flush=True)
        os._exit(0)
    children.append(pid)
for pid in children:
    os.waitpid(pid, 0)
"""


def test_another_user_goes_on_with_a_sweep_and_the_first_one_again(slurm: Cluster) -> None:
    sweep = training(slurm, "shared", "--ngpu=1", trials=4)
    sweep.submit(user="alice")
    wait_for(sweep.has_epochs(2, 3))
    again = slurm.run(sweep.command, user="bob")
    assert (again.returncode, f"job {sweep.job} of alice" in again.stderr) == (2, True)
    assert sweep.w2ltune("stop", user="alice")[0] == 0
    slurm.wait(sweep.job, "CANCELLED")
    before = sweep.epochs()
    sweep.submit(user="bob")
    wait_for(lambda: sum(sweep.epochs()) > sum(before) + 4)
    assert sweep.w2ltune("stop", user="bob")[0] == 0
    slurm.wait(sweep.job, "CANCELLED")
    sweep.submit(user="alice")
    slurm.wait(sweep.job, "COMPLETED", 240)
    sweep.is_whole(4, 300)
    logs = {path.name for path in sweep.study.glob("trials/*/run/logs/*.log")}
    assert logs == {"alice.log", "bob.log"}
    scripts = sorted(path.name for path in (sweep.study / "slurm").glob("*.sbatch"))
    assert scripts == ["alice-0001.sbatch", "alice-0003.sbatch", "bob-0002.sbatch"]


def test_nobody_talks_to_a_cluster_without_its_token(slurm: Cluster) -> None:
    run = training(slurm, "token", "--ngpu=1", updates=900)
    run.submit(user="alice")
    wait_for(run.has_epochs(1, 1))
    cluster = files.read_json(run.study / "slurm" / "cluster.json")
    token = Path(cluster["token"])
    assert token.stat().st_mode & 0o777 == 0o600
    intruder = slurm.folder / "intruder.py"
    intruder.write_text(INTRUDER)
    done = slurm.run(
        ["srun", "--overlap", "--nodelist", cluster["node"], sys.executable, intruder,
         cluster["address"], str(cluster["dashboard_port"]), token, str(token.stat().st_uid)],
        user="bob", timeout=120,
    )  # fmt: skip
    print(done.stdout, done.stderr)
    assert done.stdout.splitlines()[:2] == ["token denied", "dashboard 401"]
    open_ports = re.findall(r"listens 10\S+ \d+ (.*)", done.stdout)
    assert open_ports and set(open_ports) <= {"401", "no HTTP"}  # gRPC's, which ask for it below
    assert "joined" not in done.stdout
    assert done.stdout.count("refused") == 3
    assert "COMPLETED" not in slurm.job(run.job)["JobState"]  # it has run beside all this


def test_two_users_sweep_on_one_node(slurm: Cluster) -> None:
    jobs = {}
    for user in ("alice", "bob"):
        folder = slurm.folder / f"sweeps of {user}"
        folder.mkdir()
        folder.chmod(0o777)
        done = slurm.run(
            [sys.executable, "-m", "w2ltune.sweep", f"--flagsfile={DECODE}", f"--logdir={folder}",
             "--partition=low", "--cpu=2", "--sbatch=--nodelist=n1", "--hours=1", "--seed=3",
             "--concurrent_trials=1", "--n=6"],
            user=user, cwd=REPOSITORY,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        jobs[folder / "voice_commands"] = done.stdout.split("submitted job ")[1].split()[0]
    answers = []
    for study, job in jobs.items():
        slurm.wait(job, "COMPLETED", 240)
        answers.append((study / "best.cfg").read_text().split("#")[0])
        outcome = files.read_json(study / "outcome.json")
        answers[-1] += str(outcome["choices"])
    assert answers[0] == answers[1]
