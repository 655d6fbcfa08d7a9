"""`make bench`: memory and time of a whole installation, as a table and as JSON.

    python -m bench [--runtime process|cri|both] [--pods 1,10,30,60] [--settle 10] [--json FILE] [--quick]

Every figure is of one fresh `edgehive up` on this machine. RSS is what the kernel calls resident; USS is the part
that no other process shares. Times run from before `kubectl apply` to the moment the API shows every pod ready.
"""

import argparse
import json
import os
import platform
import shutil
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from bench.measure import Memory, memory_of, wait_until_quiet
from tests.support.containerd import Containerd, why_not
from tests.support.installation import Installation, find_kubectl, installation, is_ready
from tests.support.manifests import configmap, deployment, mounted

# The original, measured with the same containers on a machine of this class; RSS and private MiB.
_GO_EDGECORE = {0: (85, 22), 10: (94, None), 30: (101, None), 60: (115, 48)}


def main() -> int:
    """Run it."""
    parser = argparse.ArgumentParser(prog="python -m bench", description="Memory and time of edgehive.")
    parser.add_argument("--runtime", choices=("process", "cri", "both"), default="both")
    parser.add_argument(
        "--pods", default="1,10,30,60", help="how many pods, step by step (default: %(default)s)"
    )
    parser.add_argument("--settle", type=float, default=10.0, help="seconds of rest before memory is read")
    parser.add_argument("--json", type=Path, default=Path("bench/results/system.json"))
    parser.add_argument("--quick", action="store_true", help="1 and 10 pods, short rests")
    arguments = parser.parse_args()
    steps = [1, 10] if arguments.quick else [int(n) for n in arguments.pods.split(",")]
    settle = 3.0 if arguments.quick else arguments.settle
    if not find_kubectl():
        sys.exit("bench: error: there is no kubectl; make bench installs one")
    result: dict[str, Any] = {"machine": _machine(), "runs": []}
    for runtime in ("process", "cri") if arguments.runtime == "both" else (arguments.runtime,):
        if runtime == "cri" and (reason := why_not()):
            print(f"cri: left out, {reason}\n")
            continue
        result["runs"].append(_run(runtime, steps, settle))
    arguments.json.parent.mkdir(parents=True, exist_ok=True)
    arguments.json.write_text(json.dumps(result, indent=2) + "\n")
    print(f"JSON: {arguments.json}")
    return 0


def _machine() -> dict[str, Any]:
    return {
        "python": platform.python_version(),
        "kernel": platform.release(),
        "cpus": os.cpu_count(),
        "load": os.getloadavg()[0],
    }


def _run(runtime: str, steps: list[int], settle: float) -> dict[str, Any]:
    base = Path(tempfile.mkdtemp(prefix="eb-"))
    containerd = Containerd(base / "c") if runtime == "cri" else None
    try:
        flags = [f"--runtime={runtime}"]
        if containerd is not None:
            containerd.start()
            flags.append(f"--cri-socket={containerd.socket}")
        with installation(base / "up", *flags) as up:
            return _measure(up, runtime, steps, settle)
    finally:
        if containerd is not None:
            containerd.stop()
        shutil.rmtree(base, ignore_errors=True)


def _measure(up: Installation, runtime: str, steps: list[int], settle: float) -> dict[str, Any]:
    begun = time.monotonic()
    up.start()
    run: dict[str, Any] = {
        "runtime": runtime,
        "seconds_to_up": round(time.monotonic() - begun, 2),
        "steps": [],
    }
    print(f"{runtime}: up after {run['seconds_to_up']:.1f} s")
    print(
        f"{'pods':>5} {'apply→Running':>14}  "
        + "".join(f"{n:>20}" for n in (*_NAMES, "all"))
        + "   MiB: RSS/USS"
    )
    _step(up, run, 0, settle)
    up.apply(configmap("bench", value="x" * 1000))
    for count in steps:
        _step(up, run, count, settle)
    up.kubectl("delete", "deployment/bench", "--wait=false")
    up.running("app=bench", 0, seconds=120)
    print()
    return run


_NAMES = ("up", "control-plane", "cloudcore", "edgecore")


def _step(up: Installation, run: dict[str, Any], count: int, settle: float) -> None:
    seconds = _scale(up, count) if count else None
    memory = _memory(up, settle)
    total = Memory(sum(m.rss for m in memory.values()), sum(m.uss for m in memory.values()))
    step = {
        "pods": count,
        "seconds_to_running": seconds,
        "memory_mib": {name: {"rss": m.rss, "uss": m.uss} for name, m in {**memory, "all": total}.items()},
    }
    if count in _GO_EDGECORE:
        rss, uss = _GO_EDGECORE[count]
        step["go_edgecore_mib"] = {"rss": rss, "uss": uss}
    run["steps"].append(step)
    figures = "".join(f"{m.rss:>13.1f}/{m.uss:<6.1f}" for m in (*(memory[n] for n in _NAMES), total))
    print(f"{count:>5} {'' if seconds is None else f'{seconds:.1f} s':>14}  {figures}", flush=True)


def _scale(up: Installation, count: int) -> float:
    """Apply a Deployment of `count` pods; return the seconds until all are ready."""
    body = deployment(
        "bench", count, script="exec sleep 1000000", **mounted("configMap", "bench", "/etc/bench")
    )
    begun = time.monotonic()
    up.apply(body)
    while True:
        pods = up.pods("app=bench")
        if len(pods) == count and all(is_ready(pod) for pod in pods):
            return round(time.monotonic() - begun, 2)
        if time.monotonic() - begun > 180:
            raise AssertionError(f"{count} pods did not become ready\n{up.logs()}")
        time.sleep(0.05)


def _memory(up: Installation, settle: float) -> dict[str, Memory]:
    assert up.process is not None
    pids = {"up": up.process.pid, "control-plane": up.pid("control-plane"), "cloudcore": up.pid("cloudcore")}
    pids["edgecore"] = up.pid("edgecore-edge-1")
    wait_until_quiet(list(pids.values()), settle)
    return {name: memory_of(pid) for name, pid in pids.items()}


if __name__ == "__main__":
    sys.exit(main())
