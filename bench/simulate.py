"""Simulate 100 servers with 100,000 tasks on a cluster, and name the first bottleneck.

python bench/simulate.py [--servers 100] [--tasks 100000] [--seed 1] [--write docs/kubernetes-scale.md]

Nothing is started: time passes from event to event. The decisions of the pool are the product's own code; the rest is
in bench/fleet, with the source of each number in bench/fleet/measured.py.
"""

from __future__ import annotations

import argparse
import gc
import sys
import time
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path

from fleet.report import SCENARIOS, Result, page, run


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--servers", type=int, default=100, help="and as many nodes and evaluations")
    parser.add_argument("--tasks", type=int, default=100_000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--write", type=Path)
    given = parser.parse_args()
    began = time.monotonic()
    # Nothing that a run makes goes before its end, and looking for what does takes a tenth of the time.
    with ProcessPoolExecutor(initializer=gc.disable) as workers:
        results: list[Result] = []
        for result in workers.map(partial(run, servers=given.servers, tasks=given.tasks, seed=given.seed), SCENARIOS):
            results.append(result)
            print(f"==> {result.name}: {result.tasks}", file=sys.stderr)
    text = page(results, given.servers, given.tasks, given.seed)
    if given.write is not None:
        given.write.write_text(text, encoding="utf-8")
    print(text)
    print(f"({time.monotonic() - began:.0f} s)")


if __name__ == "__main__":
    main()
