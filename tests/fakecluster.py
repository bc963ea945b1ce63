"""A Ray cluster of several raylets on this machine; lines on standard input change it.

``add CPUS [GPUS]`` adds a node, ``remove`` kills the newest one; each is answered by ``ok``. The
first line printed is the address.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import TypeVar

from ray.cluster_utils import Cluster

T = TypeVar("T")


def patiently(start: Callable[[], T]) -> T:
    """Start a node; Ray allows 30 s for it, too few on a very busy machine: up to five times."""
    for _ in range(4):
        try:
            return start()
        except Exception as error:
            if "timed out" not in str(error).lower():
                raise
    return start()


def main() -> None:
    head = {
        "num_cpus": int(sys.argv[1]),
        "num_gpus": int(sys.argv[2]) if len(sys.argv) > 2 else 0,
        "object_store_memory": 80 * 2**20,
        "include_dashboard": False,
    }
    cluster = patiently(lambda: Cluster(initialize_head=True, head_node_args=head))
    nodes = []
    print(cluster.address, flush=True)
    for line in sys.stdin:
        command, _, argument = line.strip().partition(" ")
        if command == "add":
            cpus, gpus, *_ = [*map(int, argument.split()), 0]
            size = {"num_cpus": cpus, "num_gpus": gpus, "object_store_memory": 80 * 2**20}
            nodes.append(patiently(lambda size=size: cluster.add_node(**size)))  # type: ignore[misc]
        else:
            cluster.remove_node(nodes.pop(), allow_graceful=False)
        print("ok", flush=True)
    cluster.shutdown()


if __name__ == "__main__":
    main()
