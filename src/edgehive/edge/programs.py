"""Other programs on this machine, and whole directories: `shutil` without its compression libraries in memory (0.5 MB)."""

import os
from pathlib import Path


def find_program(name: str) -> str | None:
    """The path of the executable `name` on ``PATH``."""
    for directory in os.get_exec_path():
        path = os.path.join(directory, name)  # noqa: PTH118 - as it was given
        if os.access(path, os.X_OK) and os.path.isfile(path):  # noqa: PTH113
            return path
    return None


def discard_tree(directory: Path) -> None:
    """Remove a directory with all that is in it, as far as that is possible."""
    if directory.is_dir():
        import shutil

        shutil.rmtree(directory, ignore_errors=True)
