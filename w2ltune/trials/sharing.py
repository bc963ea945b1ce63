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
from dataclasses import dataclass

from w2ltune.trials.clusterstate import Amounts, Cluster, look_around, other_commands
from w2ltune.trials.resources import fitting, slots

WAIT_SECONDS = 10.0
"""What has not begun after so long is said to wait."""

SETTLE_SECONDS = 3.0
"""So long after something was given back Ray may tell of those who waited for it."""

ROOM_SECONDS = 1.0
"""So long it takes at most until what was started is seen to hold something."""

_TINY = 1e-6


@dataclass(frozen=True, kw_only=True)
class Share:
    """What a command may have.

    Attributes:
        workers: That it may have or wait for, without those it gives back.
        give: How many of each node it should end, for others wait for them.
    """

    workers: int
    give: Mapping[str, int]


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
