"""Run the simulator: ``python tests/sim/run.py --seeds 1000 --start 0``; prints the trace of the first failure."""

from __future__ import annotations

import argparse
import sys
import time

from sim_world import explain, plan_of, simulate


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=1000, help="how many schedules to run")
    parser.add_argument("--start", type=int, default=0, help="the first seed")
    parser.add_argument("--seconds", type=float, default=0.0, help="stop after this long (0: run all)")
    parser.add_argument("--go-edge", action="store_true", help="let one edge behave like the original")
    parser.add_argument("--rough", type=float, default=20.0, help="virtual seconds of chaos in each run")
    parser.add_argument("--lines", type=int, default=200, help="how much of a failing trace to print")
    options = parser.parse_args()
    began = time.monotonic()
    done = 0
    for seed in range(options.start, options.start + options.seeds):
        plan = plan_of(seed, go_edge=options.go_edge, rough=options.rough)
        violation = simulate(plan)
        done += 1
        if violation is not None:
            print(explain(plan, options.lines))
            print(
                f"\nrun it again: python tests/sim/run.py --seeds 1 --start {seed}"
                + (" --go-edge" if options.go_edge else "")
                + f" --rough {options.rough:g}"
            )
            return 1
        if options.seconds and time.monotonic() - began > options.seconds:
            break
    took = time.monotonic() - began
    print(f"{done} schedules, no violation ({took:.1f} s, {took / max(done, 1) * 1000:.0f} ms each)")
    return 0


if __name__ == "__main__":
    sys.exit(main())
