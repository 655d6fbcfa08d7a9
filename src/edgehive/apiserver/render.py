"""Answers in the form the client chose: plain objects, tables, metadata only; JSON or YAML."""

from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Any

import msgspec

from edgehive.aio.http import Response
from edgehive.apiserver.codec import decode, encode
from edgehive.apiserver.negotiate import JSON, YAML, Form
from edgehive.apiserver.reads import ObjectList
from edgehive.apiserver.watches import Line
from edgehive.kube.resources import ResourceInfo
from edgehive.kube.table import render_table


class Renderer:
    """Renders objects, lists and watch lines of one resource in one form."""

    def __init__(self, info: ResourceInfo, form: Form, *, now: Callable[[], datetime], include: str) -> None:
        self._info = info
        self._form = form
        self._now = now
        self._include = include or "Metadata"
        self._columns_sent = False

    def one(self, raw: bytes) -> bytes:
        """One object."""
        obj = None
        if self._form.transform == "Table":
            obj = decode(raw)
            if obj.get("kind") == "Status" and obj.get("apiVersion") == "v1":
                return raw
            return encode(self._table([obj], _list_meta(obj)))
        if self._form.transform:
            return encode(self._partial(decode(raw)))
        return raw

    def many(self, found: ObjectList) -> bytes:
        """A list."""
        if self._form.transform == "Table":
            return encode(self._table([decode(raw) for raw in found.items], found.metadata()))
        if self._form.transform:
            items = [self._partial(decode(raw)) for raw in found.items]
            version = f"meta.k8s.io/{self._form.version}"
            head = {"kind": "PartialObjectMetadataList", "apiVersion": version}
            return encode(head | {"metadata": found.metadata(), "items": items})
        return found.encode(self._info)

    def line(self, line: Line) -> Line:
        """One watch event; the columns of a table are told once."""
        if self._form.transform == "Table":
            obj = decode(line[1])
            table = self._table([] if line[0] == "BOOKMARK" else [obj], _list_meta(obj))
            if self._columns_sent:
                table["columnDefinitions"] = []
            self._columns_sent = True
            return line[0], encode(table)
        if self._form.transform:
            return line[0], encode(self._partial(decode(line[1])))
        return line

    def _table(self, objs: Sequence[dict[str, Any]], meta: dict[str, Any]) -> dict[str, Any]:
        table = render_table(self._info, objs, now=self._now(), include_object=self._include, list_meta=meta)
        table["apiVersion"] = f"meta.k8s.io/{self._form.version}"
        return table

    def _partial(self, obj: dict[str, Any]) -> dict[str, Any]:
        version = f"meta.k8s.io/{self._form.version}"
        return {"kind": "PartialObjectMetadata", "apiVersion": version, "metadata": obj.get("metadata", {})}


def _list_meta(obj: dict[str, Any]) -> dict[str, Any]:
    return {"resourceVersion": str((obj.get("metadata") or {}).get("resourceVersion", ""))}


def respond(
    raw: bytes, form: Form, *, status: int = 200, pretty: bool = False, warnings: Sequence[str] = ()
) -> Response:
    """Make the HTTP response of a JSON answer."""
    if form.media == YAML:
        body = _to_yaml(raw)
    else:
        body = msgspec.json.format(raw, indent=2) + b"\n" if pretty else raw
    repeated = tuple(("warning", f"299 - {quoted(text)}") for text in warnings)
    return Response(status, body, {"content-type": form.media or JSON}, repeated=repeated)


def _to_yaml(raw: bytes) -> bytes:
    import yaml

    text: str = yaml.safe_dump(msgspec.json.decode(raw), sort_keys=False, allow_unicode=True)
    return text.encode()


def quoted(text: str) -> str:
    """A quoted-string of HTTP: no control characters, quotes escaped."""
    clean = "".join(c if c.isprintable() else " " for c in text)
    return '"' + clean.replace("\\", "\\\\").replace('"', '\\"') + '"'
