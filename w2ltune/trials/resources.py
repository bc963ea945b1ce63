"""What the cluster holds as it is now: room for trials, and which nodes are there."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence

import ray

from w2ltune.cluster.watch import answers

GOING_SECONDS = 5.0
"""A node that goes may end its workers so long before it is gone itself."""


def slots(unit: Mapping[str, float], amounts: Mapping[str, float]) -> int:
    """Return how many workers that take a unit each have room in what there is."""
    return int(min(amounts.get(name, 0) // each for name, each in unit.items() if each))


def fitting(bundles: Sequence[Mapping[str, float]], nodes: Sequence[Mapping[str, float]]) -> int:
    """Return how many trials fit, each of whose bundles needs a node of its own.

    Args:
        bundles: What one trial takes, all bundles alike.
        nodes: What each node has in all.

    Example:
        >>> fitting([{"CPU": 1, "GPU": 4}], [{"CPU": 16, "GPU": 8}, {"CPU": 3, "GPU": 8}])
        4
        >>> fitting([{"GPU": 8}] * 2, [{"GPU": 8}] * 5)
        2
    """
    room = [slots(bundles[0], node) for node in nodes]
    trials = 0
    # Trial number k takes one slot of each of its nodes; no node gives two to one trial.
    while sum(min(slot, trials + 1) for slot in room) >= (trials + 1) * len(bundles):
        trials += 1
    return trials


def cluster_gpus() -> int:
    """Return the GPUs of the living nodes."""
    return int(sum(node.get("GPU", 0) for node in _nodes()))


def trials_that_fit(bundles: Sequence[Mapping[str, float]]) -> int:
    """Return how many trials the living nodes of the cluster hold together."""
    return fitting(bundles, _nodes())


def is_there(node: str) -> bool:
    """Return whether a node is there, by Ray's word and by its own.

    Ray believes in a node for some ten seconds after its death.

    Args:
        node: Ray's id of it.
    """
    return any(
        entry["NodeID"] == node
        and entry["Alive"]
        and answers(f"{entry['NodeManagerAddress']}:{entry['NodeManagerPort']}")
        for entry in ray.nodes()  # type: ignore[no-untyped-call]
    )


def stays(node: str) -> bool:
    """Return whether a node is there and stays there: what died on it died of itself.

    Takes `GOING_SECONDS` where it is so.

    Args:
        node: Ray's id of it.
    """
    if is_there(node):
        time.sleep(GOING_SECONDS)
        return is_there(node)
    return False


def _nodes() -> list[Mapping[str, float]]:
    nodes = ray.nodes()  # type: ignore[no-untyped-call]
    return [node["Resources"] for node in nodes if node["Alive"]]
