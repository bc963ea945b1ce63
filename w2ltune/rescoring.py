"""One rescoring from its inputs to its answer: search, proof, the middle of the plateau, report."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from w2ltune.errors import StoppedError
from w2ltune.report.progress import bar
from w2ltune.report.rescoring import print_answer
from w2ltune.report.rescoringpage import build_rescoring_report
from w2ltune.rescoreinput import RescoreInput
from w2ltune.rescoreoptions import DEFAULT_N, LENGTHS, parse_weights
from w2ltune.runs.lock import StudyLock, this_process
from w2ltune.runs.provenance import SweepRequest, fingerprints, git_commit, settle_request, versions
from w2ltune.runs.rescored import ByK, Proof, Rescored, write_rescored
from w2ltune.runs.rundir import make_shared
from w2ltune.runs.signals import by_hand, stopping_signals
from w2ltune.scoring.weighing import RescoreList
from w2ltune.search.certified import Certificate, certify
from w2ltune.search.exactline import line_search
from w2ltune.search.middle import middle
from w2ltune.search.rescorebox import WeightBox, box_from_scales, widen
from w2ltune.search.rescorechoice import FEWEST, MIDDLE, NONE, Weighted, choose, rate_candidates, weighted
from w2ltune.search.rescoresampling import ANCESTOR_GRID, ancestor_names, sample
from w2ltune.search.rescorestudy import Incumbent, incumbents, record
from w2ltune.search.study import open_study

if TYPE_CHECKING:
    from rich.console import Console

GRID = "grid of rescore.py"
MOST_WIDENINGS = 4
