"""Several commands on one Ray cluster: who else is there, and what each of them may take.

Each has an equal part of the cluster. What is free beyond that may be taken as well, and is given
back when another command waits for it: decoders and scorers end after what they are doing, and of
trainings no new one begins. One decoder or scorer of each command takes no core by Ray's count, so
that none stands still until another one's end.
"""

from __future__ import annotations

import math
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import ray
import ray._private.state
import ray._private.worker
from ray.autoscaler.v2.sdk import get_cluster_resource_state
from ray.core.generated.gcs_pb2 import ActorTableData  # type: ignore[attr-defined]

from w2ltune.trials.resources import fitting

Amounts: TypeAlias = Mapping[str, float]
"""So much of each resource."""

WAIT_SECONDS = 10.0
"""What has not begun after so long is said to wait."""

SETTLE_SECONDS = 3.0
"""So long after something was given back Ray may tell of those who waited for it."""

ROOM_SECONDS = 1.0
"""So long it takes at most until what was started is seen to hold something."""

GIVES_BACK = ("DecoderWorker", "ScoringWorker")
"""The processes that end when others wait for what they hold."""

_TINY = 1e-6


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


@dataclass(frozen=True, kw_only=True)
class Share:
    """What a command may have.

    Attributes:
        workers: That it may have or wait for, without those it gives back.
        give: How many of each node it should end, for others wait for them.
    """

    workers: int
    give: Mapping[str, int]


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


def slots(unit: Amounts, amounts: Amounts) -> int:
    """Return how many workers that take a unit each have room in what there is."""
    return int(min(amounts.get(name, 0) // each for name, each in unit.items() if each))


def share_of(
    cluster: Cluster,
    units: Mapping[str, Amounts],
    held: Mapping[str, int],
    *,
    extra: int,
    asked: int,
) -> Share:
    """Return what a command may have whose workers may be ended between two pieces of work.

    Args:
        cluster: As it is now.
        units: What a worker takes on each node that can have some.
        held: How many workers hold that, on each node.
        extra: How many others there are, which hold nothing.
        asked: How many of its own wait for a place.

    Example:
        >>> cores = {"a": {"CPU": 8}}
        >>> now = Cluster(others=["other"], nodes=cores, free={"a": {}}, single=[{"CPU": 1}] * 9)
        >>> share_of(now, {"a": {"CPU": 1}}, {"a": 8}, extra=0, asked=0)
        Share(workers=4, give=Counter({'a': 4}))
    """
    whole = sum(slots(unit, cluster.nodes[node]) for node, unit in units.items())
    if not cluster.others:
        return Share(workers=whole, give=Counter())
    part = max(1, whole // (1 + len(cluster.others)))
    have, free = extra + sum(held.values()), {node: dict(cluster.free[node]) for node in units}
    room = sum(slots(unit, free[node]) for node, unit in units.items())
    give: Counter[str] = Counter()
    waits = False
    # A training that waits may need a whole node; what needs one core has what is above our part.
    alike = _without(cluster.single, list(units.values()), asked)
    for requests, keep in ((cluster.groups, 1), (alike, part)):
        for request in requests:
            places = []
            for node, unit in units.items():
                lacks = _lacking(request, free[node])
                fits = _takes(unit, request) and not _lacking(request, cluster.nodes[node])
                if fits and lacks.keys() <= unit.keys():
                    ended = max((math.ceil(lacks[n] / unit[n] - _TINY) for n in lacks), default=0)
                    places.append((ended, node))
            waits = waits or bool(places)
            most = have - sum(give.values()) - keep
            for ended, node in sorted(places):
                ours = max(0, min(ended, most, held.get(node, 0) - give[node]))
                freed = {name: ours * each for name, each in units[node].items()}
                lacks = _lacking(_lacking(request, free[node]), freed)
                if not ended or (ours > 0 and not _lacking(lacks, cluster.given.get(node, {}))):
                    give[node] += ours
                    for name in {*request, *freed}:
                        more = freed.get(name, 0) - request.get(name, 0)
                        free[node][name] = free[node].get(name, 0) + more
                    break
    most = have - sum(give.values()) + (0 if waits else room)
    return Share(workers=min(whole, max(part, most)), give=+give)


def _without(requests: Sequence[Amounts], alike: Sequence[Amounts], count: int) -> list[Amounts]:
    """Return the requests without so many of those that are like one of ours."""
    left = []
    for request in requests:
        if count and any(request == unit for unit in alike):
            count -= 1
        else:
            left.append(request)
    return left


def _lacking(request: Amounts, amounts: Amounts) -> dict[str, float]:
    missing = {name: amount - amounts.get(name, 0) for name, amount in request.items()}
    return {name: amount for name, amount in missing.items() if amount > _TINY}


def trials_at_once(cluster: Cluster, bundles: Sequence[Amounts], live: int) -> int:
    """Return how many trials may be live, each of whose bundles needs a node of its own.

    Args:
        cluster: As it is now.
        bundles: What one trial takes, all bundles alike.
        live: How many are.

    Example:
        >>> cores = {"a": {"CPU": 8}}
        >>> alone = Cluster(others=[], nodes=cores, free=cores)
        >>> trials_at_once(alone, [{"CPU": 2}], 4)
        4
        >>> beside = Cluster(others=["other"], nodes=cores, free={"a": {"CPU": 2}})
        >>> trials_at_once(beside, [{"CPU": 2}], 2)
        3
    """
    whole = fitting(bundles, list(cluster.nodes.values()))
    if not cluster.others:
        return whole
    part = max(1, whole // (1 + len(cluster.others)))
    waits = any(_takes(bundles[0], request) for request in (*cluster.single, *cluster.groups))
    more = 0 if waits else fitting(bundles, list(cluster.free.values()))
    return min(whole, max(part, live + more))


class Room:
    """How many trials of a study may be live; looks once a second.

    Args:
        bundles: As for `trials_at_once`.
    """

    def __init__(self, bundles: Sequence[Amounts]) -> None:
        self._bundles = bundles
        self._looked = -math.inf
        self._most = 0

    def __call__(self, live: int) -> int:
        """Return how many there may be when so many are live."""
        if time.monotonic() - self._looked > ROOM_SECONDS:
            self._looked = time.monotonic()
            self._most = trials_at_once(look_around(), self._bundles, live)
        return self._most


def _takes(bundle: Amounts, request: Amounts) -> bool:
    return any(bundle.get(name, 0) and amount for name, amount in request.items())


class Patience:
    """Says, once, that a command waits for what others of the cluster hold.

    Args:
        bundles: What it waits for, each on a node of its own.
        say: Takes the line.
    """

    def __init__(self, bundles: Sequence[Amounts], say: Callable[[str], None]) -> None:
        self._bundles = bundles
        self._say = say
        self._since = time.monotonic()
        self._said = False

    def look(self, *, begun: bool) -> None:
        """Look whether it still waits.

        Args:
            begun: Something of the command is at work, or nothing is to be done.
        """
        if begun:
            self._since, self._said = time.monotonic(), False
        elif not self._said and time.monotonic() - self._since > WAIT_SECONDS:
            self._since = time.monotonic()
            others = other_commands()
            if others:
                self._said = True
                self._say(
                    f"waiting for {in_words(self._bundles)}: this cluster also runs "
                    + ", ".join(sorted(others))
                )


def in_words(bundles: Sequence[Amounts]) -> str:
    """Return as people say it what a trial takes, all bundles alike.

    Example:
        >>> in_words([{"CPU": 1.0, "GPU": 2.0}])
        '1 core and 2 GPUs'
        >>> in_words([{"CPU": 8}, {"CPU": 8}])
        '8 cores on each of 2 nodes'
    """
    names = {"CPU": "core", "GPU": "GPU"}
    each = " and ".join(
        f"{amount:g} {names.get(name, name)}{'' if amount == 1 else 's'}"
        for name, amount in bundles[0].items()
        if amount
    )
    return each if len(bundles) == 1 else f"{each} on each of {len(bundles)} nodes"
