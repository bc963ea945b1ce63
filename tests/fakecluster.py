"""A Ray cluster of several raylets on this machine; lines on standard input change it.

``add CPUS [GPUS]`` adds a node, ``remove`` kills the newest one; each is answered by ``ok``. The
first line printed is the address.
"""

from __future__ import annotations

import sys

from ray.cluster_utils import Cluster


def main() -> None:
    head = {
        "num_cpus": int(sys.argv[1]),
        "num_gpus": int(sys.argv[2]) if len(sys.argv) > 2 else 0,
        "object_store_memory": 80 * 2**20,
        "include_dashboard": False,
    }
    cluster = Cluster(initialize_head=True, head_node_args=head)
    nodes = []
    print(cluster.address, flush=True)
    for line in sys.stdin:
        command, _, argument = line.strip().partition(" ")
        if command == "add":
            cpus, gpus, *_ = [*map(int, argument.split()), 0]
            nodes.append(
                cluster.add_node(num_cpus=cpus, num_gpus=gpus, object_store_memory=80 * 2**20)
            )
        else:
            cluster.remove_node(nodes.pop(), allow_graceful=False)
        print("ok", flush=True)
    cluster.shutdown()


if __name__ == "__main__":
    main()
