"""Sites that preempt otherwise: without a time of grace, or by cancelling the job."""

from __future__ import annotations

import pytest
from bed import Cluster
from bedfiles import Settings
from rayjobs import Bench

pytestmark = pytest.mark.slow

SITES = {
    "requeued at once": Settings(grace_seconds=0, kill_wait_seconds=10),
    "cancelled": Settings(grace_seconds=10, preempt_mode="CANCEL"),
    "cancelled at once": Settings(grace_seconds=0, preempt_mode="CANCEL", kill_wait_seconds=10),
}


@pytest.mark.parametrize("slurm", SITES.values(), ids=list(SITES), indirect=True)
def test_a_preempted_job_continues(slurm: Cluster) -> None:
    bench = Bench(slurm=slurm)
    job = bench.stand_in("preempted", 6)
    job.says("driver begins")
    bench.preempt()
    output = job.ends(restarts=1)
    assert "driver was told" in output
    assert output.count("driver begins") == 2
