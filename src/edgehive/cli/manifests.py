"""`edgehive manifests`: what an administrator applies before cloudcore runs on a cluster of their own."""

import argparse
import sys
from pathlib import Path

from edgehive.kube.cloudcore_manifests import Wishes, cloudcore_manifests
from edgehive.kube.cloudcore_rights import Needs


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the flags."""
    parser.add_argument(
        "--config",
        metavar="FILE",
        type=Path,
        help="cloudcore.yaml: rights for what is on in it (default: what is on by default)",
    )
    parser.add_argument(
        "--user",
        metavar="NAME",
        default="",
        help="give the rights to this user (a client certificate's CN), not to the service account kubeedge/cloudcore",
    )
    parser.add_argument(
        "--token",
        action="store_true",
        help="with a Secret kubeedge/cloudcore-token that holds a token of the service account, for a kubeconfig",
    )
    parser.add_argument(
        "--impersonate",
        metavar="NODE",
        dest="nodes",
        action="append",
        default=[],
        help="with authorization enforced: name a node cloudcore may act for, on Kubernetes before 1.36; "
        "may be repeated",
    )


def run_manifests(arguments: argparse.Namespace) -> int:
    """Print them as YAML."""
    from edgehive.aio.configfile import dump_yaml

    wishes = Wishes(
        needs=_needs(arguments.config),
        user=arguments.user,
        nodes=tuple(arguments.nodes),
        token=arguments.token,
    )
    sys.stdout.write("---\n".join(dump_yaml(manifest) for manifest in cloudcore_manifests(wishes)))
    return 0


def _needs(path: Path | None) -> Needs:
    from edgehive.aio.configfile import adopt_config, read_config
    from edgehive.cloud.config import CloudCoreConfig
    from edgehive.cloud.startup import needs_of

    if path is None:
        return needs_of(CloudCoreConfig())
    # Not `load_config`: the files it looks for need not be on the administrator's machine.
    text = read_config(path, program="cloudcore")
    config, warnings = adopt_config(text, CloudCoreConfig, origin=str(path), program="cloudcore")
    for warning in warnings:
        sys.stderr.write(f"{warning}\n")
    return needs_of(config)
