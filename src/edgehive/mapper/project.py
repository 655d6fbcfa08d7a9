"""The files of a new mapper project."""

import re
from pathlib import Path

from edgehive.kit.errors import UserError

_NAME = re.compile(r"[a-z][a-z0-9-]{0,40}")

_MAPPER = '''"""The mapper of {name} devices."""

import sys

from edgehive.mapper import Driver, Property, Value, main


class {title}(Driver):
    """Talks to one {name} device."""

    protocol = "{name}"

    def connect(self) -> None:
        # self.device.config is what the Device says under protocol.configData.
        self.values: dict[str, Value] = {{}}

    def read(self, prop: Property) -> Value | None:
        # prop.visitor is what the Device says under visitors.configData.
        return self.values.get(prop.name, prop.visitor.get("start"))

    def write(self, prop: Property, value: Value) -> None:
        self.values[prop.name] = value


if __name__ == "__main__":
    sys.exit(main({title}))
'''

_CONFIG = """grpc_server:
  socket_path: {sockets}/{name}.sock
common:
  name: {title}-mapper
  version: v1.0.0
  api_version: v1.0.0
  protocol: {name}
  address: 127.0.0.1
  edgecore_sock: {sockets}/dmi.sock
  http_port: 7777
"""

_DEVICES = """apiVersion: devices.kubeedge.io/v1beta1
kind: DeviceModel
metadata:
  name: {name}-model
  namespace: default
spec:
  protocol: {name}
  properties:
    - name: level
      description: An example property
      type: INT
      accessMode: ReadWrite
      minimum: "0"
      maximum: "100"
---
apiVersion: devices.kubeedge.io/v1beta1
kind: Device
metadata:
  name: {name}-1
  namespace: default
spec:
  deviceModelRef:
    name: {name}-model
  nodeName: {node}
  protocol:
    protocolName: {name}
    configData:
      address: 127.0.0.1
  properties:
    - name: level
      collectCycle: 1000
      reportCycle: 1000
      reportToCloud: true
      desired:
        value: "42"
      visitors:
        protocolName: {name}
        configData:
          start: 0
"""

_README = """# {name} mapper

With the Python of an edgehive that is installed (in a checkout: `.venv/bin/python`), on the edge node, beside edgecore:

    python mapper.py --config-file config.yaml
    kubectl apply -f devices.yaml                  # its nodeName is that of this node
    kubectl get devices

Both sockets in `config.yaml` are in the directory that edgecore has as `modules.deviceTwin.dmiSockPath`: /etc/kubeedge, or
with `edgehive up` edge/NODE/dmi of its data directory. The mapper runs as edgecore's user.

Or as a pod: make a wheel of edgehive here (`pip wheel --no-deps --wheel-dir . PATH-OF-ITS-CHECKOUT`), `docker build -t
{name}-mapper:v1 .`, bring the image to the node, `kubectl apply -f deployment.yaml`.

`mapper.py` is all of it: read, write, and connect and close where the device needs them. Plain functions may block;
`async` ones work too. An exception means that the device did not do it; the SDK reports the device offline and
connects again.
"""

_DOCKERFILE = """FROM python:3.12-slim
# From: pip wheel --no-deps --wheel-dir . PATH-OF-EDGEHIVE'S-CHECKOUT
COPY edgehive-*.whl /tmp/
RUN pip install --no-cache-dir /tmp/edgehive-*.whl
COPY mapper.py config.yaml /app/
CMD ["python", "/app/mapper.py", "--config-file", "/app/config.yaml"]
"""

_POD = """# Beside edgecore on its node: the sockets of both are in {sockets}.
apiVersion: apps/v1
kind: Deployment
metadata:
  name: {name}-mapper
  namespace: default
spec:
  replicas: 1
  selector:
    matchLabels:
      app: {name}-mapper
  strategy:
    type: Recreate
  template:
    metadata:
      labels:
        app: {name}-mapper
    spec:
      nodeName: {node}
      hostNetwork: true
      containers:
        - name: mapper
          image: {name}-mapper:v1
          volumeMounts:
            - name: sockets
              mountPath: {sockets}
      volumes:
        - name: sockets
          hostPath:
            path: {sockets}
"""

_FILES = {
    "mapper.py": _MAPPER,
    "config.yaml": _CONFIG,
    "devices.yaml": _DEVICES,
    "README.md": _README,
    "Dockerfile": _DOCKERFILE,
    "deployment.yaml": _POD,
}


def write_project(
    name: str, directory: Path, *, node: str = "edge-1", sockets: Path = Path("/etc/kubeedge")
) -> list[Path]:
    """Write the project; return its files. `sockets` is where edgecore of `node` has its dmi.sock.

    Raises:
        UserError: the name is no name, or the directory is there already.
    """
    if not _NAME.fullmatch(name):
        raise UserError(
            f"{name!r} is not a name", hint="use lower case letters, digits and -, such as my-sensor"
        )
    title = "".join(part.capitalize() for part in name.split("-"))
    try:
        directory.mkdir(parents=True)
        written = []
        for file, text in _FILES.items():
            path = directory / file
            path.write_text(text.format(name=name, title=title, node=node, sockets=sockets), encoding="utf-8")
            written.append(path)
    except FileExistsError as exc:
        raise UserError(f"{directory} is there already", hint="choose another one with --directory") from exc
    except OSError as exc:
        raise UserError(f"{directory} cannot be written: {exc.strerror}") from exc
    return written
