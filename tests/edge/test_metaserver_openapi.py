"""OpenAPI v2 in protobuf, for kubectl up to 1.28."""

import aiohttp
import msgspec
import pytest

from edgehive.edge.metaserver_openapi import convert, to_protobuf
from edgehive.kit.errors import EdgehiveError
from edgehive.kube.status import ApiStatus
from tests.support.metaserver_lab import with_lab

PROTOBUF = "application/com.github.proto-openapi.spec.v2@v1.0+protobuf"


@with_lab
async def test_the_cluster_s_document_is_given_in_both_forms(lab):
    url = await lab.url() + "/openapi/v2"
    async with aiohttp.ClientSession() as session:
        async with session.get(url, headers={"Accept": PROTOBUF}) as answer:
            assert (
                answer.headers["content-type"] == "application/com.github.proto-openapi.spec.v2.v1.0+protobuf"
            )
            body = await answer.read()
        async with session.get(url) as answer:
            document = await answer.json()
    assert body.startswith(b"\n\x032.0")  # field 1: swagger
    assert b"io.k8s.api.core.v1.ConfigMap" in body
    assert convert(msgspec.json.encode(document)) == body


def document(parameters: list) -> bytes:
    operation = {"operationId": "o", "parameters": parameters, "responses": {"401": {"description": "no"}}}
    return msgspec.json.encode(
        {
            "swagger": "2.0",
            "info": {"title": "t", "version": "v"},
            "paths": {"/a": {"get": operation}},
            "parameters": {"p": {"name": "limit", "in": "query", "type": "integer"}},
            "definitions": {},
        }
    )


def test_what_real_api_servers_share_and_leave_out_is_understood():
    own = convert(document([{"name": "limit", "in": "query", "type": "integer"}]))
    assert convert(document([{"$ref": "#/parameters/p"}])) == own
    assert convert(document([{"$ref": "#/parameters/none"}])) == convert(document([]))


@pytest.mark.parametrize(
    "nonsense", [b"", b"[]", b"{}", b"[" * 100_000, b'{"info":1,"paths":[]}', b'{"info":{}}']
)
async def test_nonsense_is_refused(nonsense):
    with pytest.raises(EdgehiveError):
        convert(nonsense)


async def test_the_child_s_failure_is_an_answer():
    with pytest.raises(ApiStatus, match="cannot be converted"):
        await to_protobuf(b"nonsense")
