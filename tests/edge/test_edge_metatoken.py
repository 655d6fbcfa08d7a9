import datetime
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgehive.edge.metatoken import bound_uid, has_token, needs_refresh, token_key

NOW = 1_800_000_000.0


def kept(left: float, *, lifetime: int = 3607, token: str = "t", uid: str = "u") -> bytes:
    expires = datetime.datetime.fromtimestamp(NOW + left, datetime.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    return json.dumps(
        {
            "spec": {"expirationSeconds": lifetime, "boundObjectRef": {"kind": "Pod", "uid": uid}},
            "status": {"token": token, "expirationTimestamp": expires},
        }
    ).encode()


@pytest.mark.parametrize(
    ("request_", "key"),
    [
        (
            {
                "spec": {
                    "expirationSeconds": 3607,
                    "boundObjectRef": {"kind": "Pod", "apiVersion": "v1", "name": "web", "uid": "1111"},
                }
            },
            '"sa"/"ns"/[]string(nil)/3607/'
            'v1.BoundObjectReference{Kind:"Pod", APIVersion:"v1", Name:"web", UID:"1111"}',
        ),
        (
            {"spec": {"audiences": ["a", "b"]}},
            '"sa"/"ns"/[]string{"a", "b"}/0/v1.BoundObjectReference{Kind:"", APIVersion:"", Name:"", UID:""}',
        ),
        (
            {"spec": {"audiences": []}},
            '"sa"/"ns"/[]string{}/0/v1.BoundObjectReference{Kind:"", APIVersion:"", Name:"", UID:""}',
        ),
    ],
)
def test_the_key_is_the_one_of_kubeedge(request_: dict[str, Any], key: str) -> None:
    assert token_key("ns", "sa", request_) == key


@pytest.mark.parametrize(
    ("left", "lifetime", "stale"),
    [(3600, 3607, False), (722, 3607, False), (720, 3607, True), (-5, 3607, True), (86_000, 200_000, True)],
)
def test_a_token_is_asked_anew_in_its_last_fifth_or_after_a_day(
    left: float, lifetime: int, stale: bool
) -> None:
    assert needs_refresh(kept(left, lifetime=lifetime), NOW) is stale


def test_a_row_without_a_token_is_none() -> None:
    assert needs_refresh(kept(3600, token=""), NOW)
    assert not has_token(kept(3600, token=""))
    assert has_token(kept(3600))
    assert bound_uid(kept(3600, uid="abc")) == "abc"


@given(st.binary(max_size=60))
def test_rubbish_rows_are_asked_anew(data: bytes) -> None:
    assert needs_refresh(data, NOW)
    assert not has_token(data)
    assert bound_uid(data) == ""
