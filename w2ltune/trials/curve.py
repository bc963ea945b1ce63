"""What a training has reported so far, as one metric over its epochs."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from w2ltune.formats.logs import TrainLine


def metric_of(line: TrainLine, metric: str) -> float | None:
    """Return a report's value of a metric, a fraction for rates; None where it is not there."""
    return line.rates.get(metric, line.values.get(metric))


@dataclass(frozen=True, kw_only=True)
class Curve:
    """The reports of a training that count.

    Attributes:
        lines: In the order of their updates.
        metric: Key of the log that is minimised.
    """

    lines: Sequence[TrainLine]
    metric: str

    @property
    def epochs(self) -> int:
        """Epochs of the newest report."""
        return self.lines[-1].epoch if self.lines else 0

    @property
    def updates(self) -> int:
        """Updates of the newest report."""
        return self.lines[-1].updates if self.lines else 0

    @property
    def seconds(self) -> float:
        """Time spent in the updates that count, over all launches; the log has whole seconds."""
        return sum(line.values.get("runtime_seconds", 0.0) for line in self.lines)

    def followed_by(self, new: Sequence[TrainLine]) -> Curve:
        """Return the curve with further reports; what they do again was lost."""
        lines = list(self.lines)
        for line in new:
            while lines and lines[-1].updates >= line.updates:
                lines.pop()
            lines.append(line)
        return Curve(lines=lines, metric=self.metric)

    def by_epoch(self) -> list[tuple[int, float]]:
        """Return the metric after each epoch: the last report of each."""
        values = {line.epoch: metric_of(line, self.metric) for line in self.lines}
        return [(epoch, value) for epoch, value in sorted(values.items()) if value is not None]

    def best(self, *, kept: int = 0) -> tuple[TrainLine, float] | None:
        """Return the report with the lowest finite value, or None.

        Args:
            kept: Updates of the best checkpoint that there is: of equal values (the log rounds) it
                is that one, else the first.
        """
        values = [(line, metric_of(line, self.metric)) for line in self.lines]
        finite = [(line, v) for line, v in values if v is not None and math.isfinite(v)]
        return min(finite, key=lambda pair: (pair[1], pair[0].updates != kept), default=None)

    def value_at(self, updates: int) -> float | None:
        """Return the metric after so many updates, or None."""
        line = next((line for line in self.lines if line.updates == updates), None)
        return None if line is None else metric_of(line, self.metric)

    def rates_at(self, updates: int) -> dict[str, float]:
        """Return the word error rates of the valid sets after so many updates, by the log's name.

        By these the program chooses the models that it keeps of each set.
        """
        line = next((line for line in self.lines if line.updates == updates), None)
        rates = line.rates.items() if line else ()
        return {
            name: rate
            for name, rate in rates
            if name.endswith(("-WER", "-WER-decoded")) and not name.startswith("train-")
        }

    def why_no_value(self) -> str:
        """Say why there is no best report."""
        if not self.lines:
            return "it ended without a report; see --iter and --reportiters"
        last = self.lines[-1]
        known = sorted([*last.rates, *(key for key in last.values if key.endswith("loss"))])
        return f"its log has no finite {self.metric}; there are {', '.join(known)}"


@dataclass(frozen=True, kw_only=True)
class Finished:
    """What a training came to; kept, so that a launch after the end finds it.

    Attributes:
        value: The metric's best value, a fraction for error rates.
        epoch: Its epoch.
        epochs: Epochs done.
        updates: Updates done.
        seconds: Time spent in them.
        checkpoint: Name of the best snapshot; "" without one.
        unkept: Why there is no snapshot of the best report, or "".
        model: The program's own model of it then, if there is one; "" else.
    """

    value: float
    epoch: int
    epochs: int
    updates: int
    seconds: float
    checkpoint: str
    unkept: str = ""
    model: str = ""
