"""`edgehive version`."""

import argparse
import json
import platform

from edgehive import __version__


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the flags."""
    parser.add_argument("-o", "--output", choices=("text", "json"), default="text")


def run_version(arguments: argparse.Namespace) -> int:
    """Print the version."""
    if arguments.output == "json":
        print(
            json.dumps(
                {"version": __version__, "python": platform.python_version(), "machine": platform.machine()}
            )
        )
    else:
        print(f"edgehive {__version__} (Python {platform.python_version()}, {platform.machine()})")
    return 0
