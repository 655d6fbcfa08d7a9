"""NFS volumes: mounted by the system's own ``mount``, without ever waiting for the server in the event loop."""

import asyncio
import contextlib
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

from edgehive.edge.runtime import RuntimeFailure
from edgehive.edge.volumes_files import is_mounted

_TIMEOUT = 60.0
_LAST_WAIT = 5.0  # one that hangs in the kernel cannot even be killed


async def mount_nfs(directory: Path, source: Mapping[str, object], options: Sequence[str] = ()) -> None:
    """Mount an NFS export on `directory`; nothing happens where it is mounted already.

    Raises:
        RuntimeFailure: It cannot be mounted; with mount's own words.
    """
    # The table of mounts is asked, not the directory: a look at that hangs while the server is away.
    if is_mounted(directory):
        return
    directory.mkdir(parents=True, exist_ok=True)
    export = f"{source.get('server', '')}:{source.get('path', '')}"
    wanted = [*options, *(["ro"] if source.get("readOnly") else [])]
    command = ["mount", "-t", "nfs", *(["-o", ",".join(wanted)] if wanted else []), export, str(directory)]
    try:
        process = await asyncio.create_subprocess_exec(
            *command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
        )
    except OSError as exc:
        raise RuntimeFailure("FailedMount", f"mounting {export}: {exc}") from exc
    try:
        async with asyncio.timeout(_TIMEOUT):
            _, words = await process.communicate()
    except TimeoutError as exc:
        raise RuntimeFailure("FailedMount", f"mounting {export}: no answer in {_TIMEOUT:g} s") from exc
    finally:
        if process.returncode is None:
            process.kill()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_LAST_WAIT):
                    await process.communicate()
    if process.returncode != 0:
        text = words.decode(errors="replace").strip()
        raise RuntimeFailure("FailedMount", f"mounting {export}: {text}")
