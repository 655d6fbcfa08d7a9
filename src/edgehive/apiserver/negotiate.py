"""Content negotiation: which form of an answer the client wants, and what the body it sent is."""

from dataclasses import dataclass
from typing import Any

from edgehive.aio.http import Request
from edgehive.apiserver.codec import as_object, decode_json, decode_yaml
from edgehive.apiserver.protobuf import MEDIA as PROTOBUF
from edgehive.apiserver.protobuf import ProtobufDecoder
from edgehive.kube.status import ApiStatus, bad_request

JSON, YAML = "application/json", "application/yaml"
_SUPPORTED = (JSON, YAML, "application/json;stream=watch")
_META = "meta.k8s.io"
_TRANSFORMS = frozenset({"Table", "PartialObjectMetadata", "PartialObjectMetadataList"})


@dataclass(frozen=True, slots=True)
class Form:
    """The form of an answer: media type, and ``Table`` or ``PartialObjectMetadata(List)`` or neither."""

    media: str = JSON
    transform: str = ""
    version: str = "v1"


def accepted(request: Request) -> list[tuple[str, dict[str, str]]]:
    """The media types of the Accept header with their parameters, best first."""
    found: list[tuple[float, int, str, dict[str, str]]] = []
    text = ",".join(request.header_values("accept")) or "*/*"
    for index, part in enumerate(text.split(",")):
        media, *parameters = (piece.strip() for piece in part.split(";"))
        values = {k.strip(): v.strip() for k, _, v in (p.partition("=") for p in parameters)}
        try:
            quality = float(values.pop("q", "1"))
        except ValueError:
            quality = 0.0
        if media and quality > 0:
            found.append((-quality, index, media.lower(), values))
    return [(media, values) for _, _, media, values in sorted(found, key=lambda f: f[:2])]


def choose(request: Request, *, transforms: bool = True) -> Form:
    """Return the best form that we can answer in.

    Raises:
        ApiStatus: 406.
    """
    for media, values in accepted(request):
        if media in {"*/*", "application/*"}:
            return Form()
        if media not in {JSON, YAML}:
            continue
        kind = values.get("as", "")
        if not kind:
            return Form(media)
        version = values.get("v", "v1")
        if transforms and kind in _TRANSFORMS and values.get("g") == _META and version in {"v1", "v1beta1"}:
            return Form(media, kind, version)
    message = "only the following media types are accepted: " + ", ".join(_SUPPORTED)
    raise ApiStatus(406, "NotAcceptable", message)


def media_of(request: Request) -> str:
    """The media type of the body, without parameters."""
    return request.headers.get("content-type", "").partition(";")[0].strip().lower()


class BodyReader:
    """Reads request bodies in any form that clients send."""

    def __init__(self) -> None:
        self._protobuf = ProtobufDecoder()

    async def read(self, request: Request) -> Any:
        """Read a JSON, YAML or protobuf body; an empty one is None.

        Raises:
            ApiStatus: 400, 413, 415.
        """
        media = media_of(request)
        body = await request.body()
        if not body.strip():
            return None
        if media == PROTOBUF:
            return self._protobuf.decode(body)
        if media == JSON:
            return decode_json(body)
        if media in {"", "*/*", YAML, "application/x-yaml", "text/yaml"}:
            return decode_yaml(body)
        accepted_ = ", ".join((JSON, YAML, PROTOBUF))
        message = "the body of the request was in an unknown format - accepted media types include: "
        raise ApiStatus(415, "UnsupportedMediaType", message + accepted_)

    async def require(self, request: Request) -> dict[str, Any]:
        """Read a body that must be there; raises `ApiStatus`."""
        value = await self.read(request)
        if value is None:
            raise bad_request("the request has no body")
        return as_object(value)
