"""`--kubeconfig`, the same for every command that asks a cluster."""

import argparse
import os

from edgehive.cli.up_layout import Layout, default_data_dir


def add_kubeconfig(parser: argparse.ArgumentParser, what: str) -> None:
    """Declare the flag; without it ``$KUBECONFIG``, else what `edgehive up` has written, else kubectl's own place."""
    found = Layout(default_data_dir(os.environ)).kubeconfig
    parser.add_argument(
        "--kubeconfig",
        "--kube-config",
        metavar="FILE",
        # Empty: `load_kubeconfig` looks at the variable itself, which may be a list of files.
        default="" if os.environ.get("KUBECONFIG") or not found.exists() else str(found),
        help=f"{what} (default: $KUBECONFIG, else that of `edgehive up`, else ~/.kube/config)",
    )
