"""Several users: on one study, on one node, and with the token of neither."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest
from bed import Cluster
from bedfiles import NODES, REPOSITORY
from trainings import Training, added, training
from waiting import wait_for

from w2ltune import files

pytestmark = pytest.mark.slow

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


@pytest.mark.slow(seconds=105)
def test_a_study_goes_from_user_to_user_and_its_cluster_belongs_to_one(slurm: Cluster) -> None:
    sweep = training(slurm, "shared", "--ngpu=1", "--nodes=1", updates=60, trials=4, hold_at=11)
    sweep.environment["W2LTUNE_DASHBOARD"] = "1"
    sweep.environment["DOUBLE_UPDATE_SECONDS"] = "0.02"
    sweep.submit(user="alice")
    wait_for(sweep.has_epochs(2, 1), shown=sweep.output, look_seconds=0.2)
    again = slurm.run(sweep.command, user="bob")
    assert (again.returncode, f"job {sweep.job} of alice" in again.stderr) == (2, True)
    code, said = sweep.w2ltune("workers", "--add=1", user="bob")
    assert code == 2
    assert "only alice can add nodes to that cluster" in said

    # One more node has room for the other two trainings; one waits for another day.
    (worker,) = added(sweep, 1, "--hours=0.5", user="alice")
    (waiting,) = added(sweep, 1, "--hours=0.5", "--sbatch=--begin=now+1hour", user="alice")
    wait_for(sweep.has_epochs(4, 1), shown=sweep.output, look_seconds=0.2)
    for user, count in (("alice", 2), ("bob", 0)):
        shown = slurm.run([*sweep.command[:2], "w2ltune", "status"], user=user).stdout
        assert shown.count("added: job") == count
        assert shown.count("dashboard: ssh -L") == (user == "alice")
        assert ("no study of yours" in shown) == (user == "bob")
        assert (shown.splitlines()[0] == str(sweep.study)) == (user == "alice")
    nobody_else_talks_to_it(slurm, sweep)
    assert slurm.job(sweep.job)["JobState"] == "RUNNING"  # it has run beside all this
    code, said = sweep.w2ltune("stop", user="alice")
    assert code == 0, said
    for job in (sweep.job, worker, waiting):
        slurm.wait(job, "CANCELLED")
    nodes = range(1, NODES + 1)
    for program in ("fl_asr_train", "ray"):
        wait_for(lambda name=program: not any(name in p for n in nodes for p in slurm.processes(n)))

    before = sum(sweep.epochs())
    sweep.hold_at(31)
    sweep.submit(user="bob")
    wait_for(lambda: sum(sweep.epochs()) >= before + 4, shown=sweep.output, look_seconds=0.2)
    assert sweep.w2ltune("stop", user="bob")[0] == 0
    slurm.wait(sweep.job, "CANCELLED")
    sweep.release()
    sweep.submit(user="alice")
    slurm.wait(sweep.job, "COMPLETED")
    sweep.is_whole(4, 60)
    logs = {path.name for path in sweep.study.glob("trials/*/run/logs/*.log")}
    assert logs == {"alice.log", "bob.log"}
    assert not [*sweep.study.glob("slurm/of-*")]  # which everybody could move
    scripts = sorted(path.name for path in sweep.of_users("*.sbatch"))
    assert scripts == ["alice-0001.sbatch", "alice-0003.sbatch", "bob-0002.sbatch"]


def nobody_else_talks_to_it(slurm: Cluster, run: Training) -> None:
    """Assert that another user on the head's node reaches nothing of the cluster."""
    (published,) = run.of_users("of-alice/cluster.json")
    cluster = files.read_json(published)
    token = Path(cluster["token"])
    assert token.stat().st_mode & 0o777 == 0o600
    intruder = slurm.folder / "intruder.py"
    intruder.write_text(INTRUDER)
    done = slurm.run(
        ["srun", "--overlap", "--nodelist", cluster["node"], sys.executable, intruder,
         cluster["address"], str(cluster["dashboard_port"]), token, str(token.stat().st_uid)],
        user="bob",
    )  # fmt: skip
    print(done.stdout, done.stderr)
    assert done.stdout.splitlines()[:2] == ["token denied", "dashboard 401"]
    open_ports = re.findall(r"listens 10\S+ \d+ (.*)", done.stdout)
    assert open_ports and set(open_ports) <= {"401", "no HTTP"}  # gRPC's, which ask for it below
    assert "joined" not in done.stdout
    assert done.stdout.count("refused") == 3


@pytest.mark.slow(seconds=60)
def test_two_users_sweep_on_one_node(slurm: Cluster) -> None:
    jobs = {}
    for user in ("alice", "bob"):
        folder = slurm.folder / f"sweeps of {user}"
        folder.mkdir()
        folder.chmod(0o777)
        done = slurm.run(
            [sys.executable, "-m", "w2ltune.sweep", f"--flagsfile={DECODE}", f"--logdir={folder}",
             "--partition=low", "--cpu=1", "--sbatch=--nodelist=n1", "--hours=1", "--seed=3",
             "--concurrent_trials=1", "--n=3", "--probe=false"],
            user=user, cwd=REPOSITORY,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        jobs[folder / "voice_commands"] = done.stdout.split("submitted job ")[1].split()[0]
    answers = []
    for study, job in jobs.items():
        slurm.wait(job, "COMPLETED")
        answers.append((study / "best.cfg").read_text().split("#")[0])
        outcome = files.read_json(study / "outcome.json")
        answers[-1] += str(outcome["choices"])
    assert answers[0] == answers[1]
