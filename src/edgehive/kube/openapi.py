"""OpenAPI documents of what is served: for ``kubectl explain``, validation and client-side apply."""

from collections.abc import Iterable
from typing import Any

from edgehive.kube.resources import ResourceInfo


def openapi_v2(infos: Iterable[ResourceInfo]) -> dict[str, Any]:
    """Return the ``/openapi/v2`` document as JSON values."""
    raise NotImplementedError


def openapi_v2_protobuf(infos: Iterable[ResourceInfo]) -> bytes:
    """Return it in ``application/com.github.proto-openapi.spec.v2@v1.0+protobuf``."""
    raise NotImplementedError


def openapi_v3_index(infos: Iterable[ResourceInfo]) -> dict[str, Any]:
    """Return the ``/openapi/v3`` document: ``paths`` -> ``{"apis/apps/v1": {"serverRelativeURL": ...}}``."""
    raise NotImplementedError


def openapi_v3(infos: Iterable[ResourceInfo]) -> dict[str, Any]:
    """Return the document of one group-version, whose resources are `infos`."""
    raise NotImplementedError
