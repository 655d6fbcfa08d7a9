"""A containerd of the tests' own: its directories and socket are temporary, its images are made from busybox-static.

`Containerd.start(path)` / `stop()`; `why_not()` says why this machine cannot (no root, no binaries).
"""

import hashlib
import io
import json
import os
import shutil
import signal
import subprocess
import tarfile
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

BUSYBOX = "docker.io/library/busybox:1.36"
PAUSE = "registry.k8s.io/pause:3.9"
_APPLETS = "sh ls cat echo sleep env date id mkdir rm touch ps kill true false wget nc hostname head tail grep tr stty tty"


def why_not() -> str:
    """Return why containerd cannot be used here, or nothing."""
    if os.geteuid() != 0:
        return "containerd needs root"
    missing = [name for name in ("containerd", "ctr", "runc") if shutil.which(name) is None]
    if missing:
        return f"not installed: {', '.join(missing)}"
    busybox = shutil.which("busybox")
    if busybox is None or b"statically linked" not in _file(busybox):
        return "busybox-static is not installed"
    return ""


def _file(path: str) -> bytes:
    # An ELF without PT_INTERP is static; enough to tell busybox-static from busybox.
    head = Path(path).read_bytes()[:4096]
    return b"dynamic" if b"/ld-" in head else b"statically linked"


def _layer() -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        for name in ("bin", "etc", "tmp", "proc", "sys", "dev", "root"):
            entry = tarfile.TarInfo(name)
            entry.type, entry.mode = tarfile.DIRTYPE, 0o1777 if name == "tmp" else 0o755
            tar.addfile(entry)
        binary = Path(shutil.which("busybox") or "/bin/busybox").read_bytes()
        entry = tarfile.TarInfo("bin/busybox")
        entry.size, entry.mode = len(binary), 0o755
        tar.addfile(entry, io.BytesIO(binary))
        for applet in _APPLETS.split():
            entry = tarfile.TarInfo(f"bin/{applet}")
            entry.type, entry.linkname = tarfile.SYMTYPE, "busybox"
            tar.addfile(entry)
        passwd = b"root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/:/bin/false\n"
        entry = tarfile.TarInfo("etc/passwd")
        entry.size, entry.mode = len(passwd), 0o644
        tar.addfile(entry, io.BytesIO(passwd))
    return out.getvalue()


def plugins() -> str:
    """Where this machine's CNI plugins are; empty when there are none."""
    return next((p for p in ("/usr/lib/cni", "/opt/cni/bin") if Path(p, "bridge").exists()), "")


@contextmanager
def apart() -> "Iterator[Containerd]":
    """A containerd in a network namespace of its own, with CNI plugins and without any configuration."""
    name = f"eh{os.getpid()}"
    subprocess.run(["ip", "netns", "add", name], check=True)
    enter = ("nsenter", f"--net=/run/netns/{name}")
    subprocess.run([*enter, "ip", "link", "set", "lo", "up"], check=True)
    with tempfile.TemporaryDirectory(prefix="ehn") as directory:
        made = Containerd(Path(directory) / "d", prefix=enter, plugins=plugins())
        try:
            made.start()
            yield made
        finally:
            made.stop()
            subprocess.run(["ip", "netns", "delete", name], check=False)


def why_not_apart() -> str:
    """Return why `apart` cannot be had here, or nothing."""
    return why_not() or ("" if plugins() and shutil.which("ip") else "no CNI plugins")


def image_archive(names: dict[str, list[str]]) -> bytes:
    """Return a docker archive with one image a name, all of one busybox layer; the values are the commands."""
    layer = _layer()
    digest = hashlib.sha256(layer).hexdigest()
    files: dict[str, bytes] = {"layer.tar": layer}
    manifest = []
    for number, (name, command) in enumerate(names.items()):
        config = {
            "architecture": "amd64",
            "os": "linux",
            "config": {"Env": ["PATH=/bin"], "Cmd": command, "WorkingDir": "/"},
            "rootfs": {"type": "layers", "diff_ids": [f"sha256:{digest}"]},
            "history": [{"created_by": f"edgehive tests: {name}"}],
        }
        if os.uname().machine == "aarch64":
            config["architecture"] = "arm64"
        files[f"{number}.json"] = json.dumps(config).encode()
        manifest.append({"Config": f"{number}.json", "RepoTags": [name], "Layers": ["layer.tar"]})
    files["manifest.json"] = json.dumps(manifest).encode()
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        for name, content in files.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            tar.addfile(entry, io.BytesIO(content))
    return out.getvalue()


@dataclass
class Containerd:
    """One containerd process below `base`; the socket path must be short (108 bytes)."""

    base: Path
    process: "subprocess.Popen[bytes] | None" = None
    prefix: tuple[str, ...] = ()
    """A command that starts another one, such as nsenter."""
    plugins: str = ""
    """Where the CNI plugins are; empty: there are none."""
    images: dict[str, list[str]] = field(
        default_factory=lambda: {BUSYBOX: ["sh"], PAUSE: ["sleep", "2147483647"]}
    )

    @property
    def socket(self) -> Path:
        return self.base / "c.sock"

    @property
    def endpoint(self) -> str:
        """For ``containerRuntimeEndpoint``."""
        return f"unix://{self.socket}"

    def start(self) -> None:
        """Start containerd, wait until it serves, import the images."""
        self.base.mkdir(parents=True, exist_ok=True)
        (self.base / "config.toml").write_text(self._config())
        self.launch()
        archive = self.base / "images.tar"
        archive.write_bytes(image_archive(self.images))
        self.ctr("images", "import", str(archive))
        archive.unlink()

    def launch(self) -> None:
        """Start (again) the process alone."""
        log = (self.base / "containerd.log").open("ab")
        self.process = subprocess.Popen(
            [*self.prefix, "containerd", "--config", str(self.base / "config.toml")],
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
        log.close()
        deadline = time.monotonic() + 20
        while self._ctr("version").returncode != 0:
            if self.process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError((self.base / "containerd.log").read_text()[-2000:])
            time.sleep(0.05)

    def ctr(self, *args: str) -> str:
        """Run ctr in the namespace of the CRI plugin."""
        done = self._ctr(*args)
        if done.returncode != 0:
            raise RuntimeError(f"ctr {args}: {done.stderr.decode()}")
        return done.stdout.decode()

    def kill(self) -> None:
        """Kill the process; the containers go on."""
        if self.process is not None:
            self.process.kill()
            self.process.wait()
            self.process = None

    def stop(self) -> None:
        """End every container, then containerd, then what is left of mounts."""
        if self.process is not None:
            for task in self._ctr("tasks", "list", "-q").stdout.decode().split():
                self._ctr("tasks", "kill", "-s", "SIGKILL", task)
                self._ctr("tasks", "delete", "--force", task)
            for container in self._ctr("containers", "list", "-q").stdout.decode().split():
                self._ctr("containers", "delete", container)
            self.process.send_signal(signal.SIGTERM)
            try:
                self.process.wait(10)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
            self.process = None
        self._end_shims()
        mounts = [line.split()[1] for line in Path("/proc/self/mounts").read_text().splitlines()]
        for mount in sorted((m for m in mounts if m.startswith(f"{self.base}/")), reverse=True):
            subprocess.run(["umount", "-l", mount], check=False, capture_output=True)
        shutil.rmtree(self.base, ignore_errors=True)

    def _end_shims(self) -> None:
        marker = str(self.socket).encode()
        for entry in Path("/proc").iterdir():
            if entry.name.isdigit():
                try:
                    command = (entry / "cmdline").read_bytes()
                except OSError:
                    continue
                if marker in command and b"containerd-shim" in command:
                    os.kill(int(entry.name), signal.SIGKILL)

    def _ctr(self, *args: str) -> "subprocess.CompletedProcess[bytes]":
        command = ["ctr", "--address", str(self.socket), "--namespace", "k8s.io", *args]
        return subprocess.run(command, capture_output=True, check=False, timeout=60)

    def _config(self) -> str:
        return f"""version = 2
root = "{self.base}/root"
state = "{self.base}/state"
oom_score = 0
[grpc]
  address = "{self.socket}"
[ttrpc]
  address = "{self.base}/t.sock"
[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "{PAUSE}"
  restrict_oom_score_adj = true
  disable_apparmor = true
  disable_hugetlb_controller = true
  tolerate_missing_hugetlb_controller = true
  netns_mounts_under_state_dir = true
  stream_server_address = "127.0.0.1"
  stream_server_port = "0"
[plugins."io.containerd.grpc.v1.cri".cni]
  bin_dir = "{self.plugins or f"{self.base}/cni/bin"}"
  conf_dir = "{self.base}/cni/net.d"
[plugins."io.containerd.grpc.v1.cri".containerd]
  snapshotter = "overlayfs"
  default_runtime_name = "runc"
[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
  runtime_type = "io.containerd.runc.v2"
[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.other]
  runtime_type = "io.containerd.runc.v2"
[plugins."io.containerd.internal.v1.opt"]
  path = "{self.base}/opt"
"""
