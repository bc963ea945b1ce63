"""What each of several commands on one Ray cluster may take, worked out by hand."""

from __future__ import annotations

from typing import Any

import pytest

from w2ltune.trials.clusterstate import Amounts, Cluster
from w2ltune.trials.sharing import Share, in_words, share_of, trials_at_once

CORE = {"CPU": 1.0}
CARD = {"CPU": 1.0, "GPU": 1.0}


def beside(others: int, *nodes: tuple[Amounts, Amounts], **waits: Any) -> Cluster:
    """A cluster whose nodes a, b, … have so much, and so much of it free."""
    named = dict(zip("abc", nodes, strict=False))
    return Cluster(
        others=[f"other {number}" for number in range(others)],
        nodes={name: node[0] for name, node in named.items()},
        free={name: node[1] for name, node in named.items()},
        **waits,
    )


def share(now: Cluster, *held: int, extra: int = 1, asked: int = 0, unit: Amounts = CORE) -> Share:
    units = dict.fromkeys(now.nodes, unit)
    return share_of(now, units, dict(zip("abc", held, strict=False)), extra=extra, asked=asked)


EIGHT = {"CPU": 8.0}
FULL = (EIGHT, {"CPU": 0.0})


@pytest.mark.parametrize(
    ("found", "workers", "give"),
    [
        # Alone it has all, whatever waits.
        (share(beside(0, FULL, FULL, single=[CORE]), 7, 8), 16, {}),
        # Another one that waits for nothing costs nothing.
        (share(beside(1, (EIGHT, CORE)), 7), 8, {}),
        # What is above the part of 4 is given back to who waits, not more of it than waits.
        (share(beside(1, FULL, single=[CORE] * 9), 7), 4, {"a": 4}),
        (share(beside(1, FULL, single=[CORE] * 2), 7), 6, {"a": 2}),
        (share(beside(1, FULL, single=[CORE] * 9), 3), 4, {}),
        # One that waits and has room already begins by itself.
        (share(beside(1, (EIGHT, CORE), single=[CORE]), 6), 7, {}),
        # What we wait for ourselves is no reason to give.
        (share(beside(1, FULL, single=[CORE] * 2), 5, asked=2), 6, {}),
        (share(beside(1, FULL, single=[CORE] * 3), 5, asked=2), 5, {"a": 1}),
        # It takes what is free, but its part only where somebody waits.
        (share(beside(1, (EIGHT, {"CPU": 3.0})), 1), 5, {}),
        (share(beside(1, (EIGHT, {"CPU": 3.0}), single=[CORE]), 1), 4, {}),
        (share(beside(9, FULL), 0), 1, {}),
        # A training may need the whole node; the one that has no core of Ray's count stays.
        (share(beside(1, (EIGHT, CORE), groups=[EIGHT]), 7), 4, {"a": 7}),
        (share(beside(1, FULL, groups=[EIGHT]), 8, extra=0), 8, {}),
        (share(beside(1, FULL, groups=[{"CPU": 7.0}]), 8, extra=0), 4, {"a": 7}),
        # The node where the fewest have to end.
        (share(beside(1, FULL, (EIGHT, CORE), groups=[{"CPU": 4.0}]), 8, 7), 13, {"b": 3}),
        (share(beside(1, FULL, FULL, groups=[EIGHT] * 2), 7, 8), 8, {"b": 8}),
        # What others may give as well.
        (share(beside(1, FULL, groups=[EIGHT], given={"a": {"CPU": 4.0}}), 4), 4, {"a": 4}),
        (share(beside(1, FULL, groups=[EIGHT], given={"a": {"CPU": 3.0}}), 4), 5, {}),
        # What our workers do not hold does not help anybody, nor what there cannot be.
        (share(beside(1, ({**EIGHT, "GPU": 1.0}, CORE), groups=[CARD]), 6), 8, {}),
        (share(beside(1, (EIGHT, CORE), groups=[{"CPU": 9.0}], single=[CARD]), 6), 8, {}),
        (share(beside(1, (EIGHT, CORE), groups=[{"node:head": 0.001}]), 6), 8, {}),
        # Workers with GPUs.
        (
            share(
                beside(1, ({"CPU": 8.0, "GPU": 4.0}, {"CPU": 4.0}), single=[CARD] * 4),
                4, extra=0, unit=CARD,
            ),
            2, {"a": 2},
        ),
    ],
)  # fmt: skip
def test_a_command_that_can_give_back(found: Share, workers: int, give: dict[str, int]) -> None:
    assert (found.workers, dict(found.give)) == (workers, give)


@pytest.mark.parametrize(
    ("now", "live", "most"),
    [
        (beside(0, FULL, FULL), 5, 8),  # of two cores each
        (beside(1, FULL, FULL), 2, 4),
        (beside(1, FULL, FULL), 6, 6),  # those that are there go on
        (beside(1, (EIGHT, {"CPU": 4.0}), FULL), 4, 6),
        (beside(1, (EIGHT, {"CPU": 4.0}), FULL, single=[CORE]), 4, 4),
        (beside(1, (EIGHT, {"CPU": 4.0}), FULL, single=[{"GPU": 1.0}]), 4, 6),
        (beside(20, FULL), 0, 1),
        (beside(1), 0, 0),
    ],
)
def test_trainings_at_a_time(now: Cluster, live: int, most: int) -> None:
    assert trials_at_once(now, [{"CPU": 2.0}], live) == most


def test_what_is_waited_for_in_words() -> None:
    assert in_words([{"CPU": 1.0, "GPU": 0}]) == "1 core"
    assert in_words([{"CPU": 4, "GPU": 1}] * 2) == "4 cores and 1 GPU on each of 2 nodes"
