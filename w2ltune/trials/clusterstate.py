"""A Ray cluster as it is now: its nodes, what is free, who else is there and what is waited for."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import ray
import ray._private.state
import ray._private.worker
from ray.autoscaler.v2.sdk import get_cluster_resource_state
from ray.core.generated.gcs_pb2 import ActorTableData  # type: ignore[attr-defined]

Amounts: TypeAlias = Mapping[str, float]
"""So much of each resource."""

GIVES_BACK = ("DecoderWorker", "ScoringWorker")
"""The processes that end when others wait for what they hold."""


@dataclass(frozen=True, kw_only=True)
class Cluster:
    """A cluster as it is now.

    Attributes:
        others: What else runs there: the names of the commands.
        nodes: What each living node has in all, by Ray's id of it.
        free: What nobody holds of that.
        given: What of each node other commands may give back.
        single: What each process waits for that is to run on any node.
        groups: What the parts of a trial wait for.
    """

    others: Sequence[str]
    nodes: Mapping[str, Amounts]
    free: Mapping[str, Amounts]
    given: Mapping[str, Amounts] = field(default_factory=dict)
    single: Sequence[Amounts] = ()
    groups: Sequence[Amounts] = ()


def look_around() -> Cluster:
    """Return what this command's cluster is now."""
    nodes = {
        entry["NodeID"]: entry["Resources"]
        for entry in ray.nodes()  # type: ignore[no-untyped-call]
        if entry["Alive"]
    }
    others = other_commands()
    if not others:
        return Cluster(others=(), nodes=nodes, free=nodes)
    state = get_cluster_resource_state(_gcs())
    free = {node.node_id.hex(): dict(node.available_resources) for node in state.node_states}
    return Cluster(
        others=others,
        nodes=nodes,
        free={node: free.get(node, {}) for node in nodes},
        given=_held_by_others(),
        single=[
            dict(entry.request.resources_bundle)
            for entry in state.pending_resource_requests
            for _ in range(entry.count)
        ],
        groups=[
            dict(request.resources_bundle)
            for group in state.pending_gang_resource_requests
            for request in (
                group.requests or (r for s in group.bundle_selectors for r in s.resource_requests)
            )
        ],
    )


def _held_by_others() -> dict[str, Counter[str]]:
    """Return what decoders and scorers of other commands hold on each node."""
    own, held = ray.get_runtime_context().get_job_id(), dict[str, Counter[str]]()
    # Not ray._private.state.actors(): that leaves out what an actor holds.
    table = ray._private.state.state._connect_and_get_accessor().get_actor_table(None, "ALIVE")
    for actor in map(ActorTableData.FromString, table):
        if actor.class_name in GIVES_BACK and actor.job_id.hex() != own:
            here = held.setdefault(actor.address.node_id.hex(), Counter())
            for name, amount in actor.required_resources.items():
                here[name] += amount
    return held


def other_commands() -> list[str]:
    """Return the names of what else runs on this cluster."""
    own = ray.get_runtime_context().get_job_id()
    jobs = _gcs().get_all_job_info(
        skip_submission_job_info_field=True, skip_is_running_tasks_field=True
    )
    return [
        job.config.metadata.get("job_name") or job.entrypoint
        for job in jobs.values()
        if not job.is_dead
        and job.job_id.hex() != own
        and not job.config.ray_namespace.startswith("_ray_internal")
    ]


def _gcs() -> Any:
    return ray._private.worker.global_worker.gcs_client  # type: ignore[attr-defined]
