"""`edgehive down` and `edgehive status`: looking after a running `edgehive up` from elsewhere."""

import argparse
import asyncio
import os
import signal
import time
from pathlib import Path

from edgehive.cli.console import Console
from edgehive.cli.up_layout import Layout
from edgehive.cli.up_lock import end_leftovers, lock_holder, recorded_processes
from edgehive.cli.up_options import remembered_options
from edgehive.cli.up_supervisor import read_state
from edgehive.kit.errors import EdgehiveError, UserError

_STOP_SECONDS = 60.0


def run_down(arguments: argparse.Namespace) -> int:
    """Stop what runs in a data directory, also what a killed `edgehive up` left behind."""
    layout = Layout(arguments.data_dir.expanduser().absolute())
    console = Console()
    holder = lock_holder(layout)
    if holder:
        console.step(f"stopping edgehive up (process {holder})")
        os.kill(holder, signal.SIGTERM)
        deadline = time.monotonic() + _STOP_SECONDS
        while lock_holder(layout) == holder:
            if time.monotonic() > deadline:
                raise UserError(f"process {holder} did not stop", hint=f"see the logs in {layout.logs}")
            time.sleep(0.1)
    leftovers = recorded_processes(layout)
    end_leftovers(leftovers)
    if arguments.pods:
        ended = asyncio.run(_end_pods(layout, console))
        console.done(
            f"stopped, and {ended} pod{'' if ended == 1 else 's'} ended; the next start runs them anew"
        )
    elif holder or leftovers:
        console.done("stopped; pods keep running and are found again at the next start")
    else:
        console.line(f"nothing runs in {layout.root}")
    return 0


async def _end_pods(layout: Layout, console: Console) -> int:
    """End every pod of every node of an installation that is stopped; their volumes are unmounted and removed."""
    from edgehive.edge.config_load import load_config
    from edgehive.edge.pods_reset import remove_all_pods
    from edgehive.edge.pods_runtime import open_runtime

    ended = 0
    for path in sorted(layout.root.glob("edge/*/edgecore.yaml")):
        edged = load_config(path).config.modules.edged
        node, root = edged.hostname_override, Path(edged.root_directory)
        console.step(f"ending the pods of {node}")
        runtime = open_runtime(
            edged.tailored_kubelet_config.container_runtime_endpoint,
            node_ip="127.0.0.1",
            root_directory=root,
            clock=time.time,
        )
        try:
            ended += await remove_all_pods(runtime, node=node, root_directory=root)
        except (EdgehiveError, OSError) as exc:
            raise UserError(f"the pods of {node} could not all be ended: {exc}", hint="try again") from exc
        finally:
            await runtime.close()
    return ended


def run_status(arguments: argparse.Namespace) -> int:
    """Print what runs; exit code 1 when it is not up."""
    layout = Layout(arguments.data_dir.expanduser().absolute())
    console = Console()
    holder = lock_holder(layout)
    processes = recorded_processes(layout)
    up = bool(holder) and read_state(layout).get("ready") is True
    state = "up" if up else "starting" if holder else "left behind" if processes else "down"
    console.line(f"edgehive is {state}; data in {layout.root}")
    if holder:
        console.line(f"  {'supervisor':<24} pid {holder:<8} {_resident_mib(holder):6.1f} MiB")
    for process in processes:
        console.line(f"  {process.name:<24} pid {process.pid:<8} {_resident_mib(process.pid):6.1f} MiB")
    if holder:
        console.line(f"  API server https://127.0.0.1:{remembered_options(layout).api_port}")
        console.line(f"  KUBECONFIG={layout.kubeconfig}")
    return 0 if up else 1


def _resident_mib(pid: int) -> float:
    try:
        pages = int(Path(f"/proc/{pid}/statm").read_text(encoding="ascii").split()[1])
    except OSError:
        return 0.0
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20
