"""``/openapi/v2`` and ``/openapi/v3``. Documents are made when asked for and not kept: they are large and rare."""

import hashlib

from edgehive.aio.http import Request, Response
from edgehive.apiserver.catalog import Catalog
from edgehive.apiserver.codec import encode
from edgehive.apiserver.negotiate import accepted
from edgehive.kube.openapi import openapi_v2, openapi_v2_protobuf, openapi_v3, openapi_v3_index
from edgehive.kube.openapi_protobuf import V2_PROTOBUF, V2_PROTOBUF_ACCEPT


class OpenApi:
    """Answers the OpenAPI paths."""

    def __init__(self, catalog: Catalog) -> None:
        self._catalog = catalog

    def answer(self, request: Request) -> Response | None:
        """Answer an OpenAPI path; None when it is none."""
        path = request.path.rstrip("/")
        if path == "/openapi/v2":
            return self._v2(request)
        if path == "/openapi/v3":
            return self._reply(request, encode(openapi_v3_index(self._catalog.all())), "application/json")
        if path.startswith("/openapi/v3/"):
            return self._v3(request, path.removeprefix("/openapi/v3/"))
        return None

    def _v2(self, request: Request) -> Response:
        for media, _ in accepted(request):
            if media == V2_PROTOBUF_ACCEPT:
                return self._reply(request, openapi_v2_protobuf(self._catalog.all()), V2_PROTOBUF)
            if media in {"application/json", "*/*", "application/*"}:
                break
        return self._reply(request, encode(openapi_v2(self._catalog.all())), "application/json")

    def _v3(self, request: Request, name: str) -> Response | None:
        match name.split("/"):
            case ["api", version]:
                infos = self._catalog.in_version("", version)
            case ["apis", group, version]:
                infos = self._catalog.in_version(group, version)
            case _:
                return None
        return self._reply(request, encode(openapi_v3(infos)), "application/json") if infos else None

    @staticmethod
    def _reply(request: Request, body: bytes, content: str) -> Response:
        tag = f'"{hashlib.sha256(body).hexdigest().upper()}"'
        headers = {"content-type": content, "etag": tag, "vary": "Accept"}
        if request.headers.get("if-none-match") == tag:
            return Response(304, b"", headers)
        return Response(200, body, headers)
