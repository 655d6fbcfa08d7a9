"""get and list: current or past state, pages, and what resourceVersion means for them."""

import base64
import binascii
import builtins
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import msgspec

from edgehive.apiserver.catalog import bucket_of, key_of
from edgehive.apiserver.codec import matcher, to_served
from edgehive.apiserver.context import Selection
from edgehive.kit.malformed import MALFORMED
from edgehive.kube.resources import ResourceInfo
from edgehive.kube.status import ApiStatus, bad_request, expired, invalid, not_found
from edgehive.store.revisions import Event, Expired, Record, TooNew

_STALE_CONTINUE = (
    "The provided continue parameter is too old to display a consistent list result. You can start a new list "
    "without the continue parameter."
)


@dataclass(frozen=True, slots=True)
class ObjectList:
    """The answer of a list."""

    items: list[bytes]
    resource_version: str
    continue_token: str = ""
    remaining: int | None = None

    def metadata(self) -> dict[str, Any]:
        """``ListMeta``."""
        meta: dict[str, Any] = {"resourceVersion": self.resource_version}
        if self.continue_token:
            meta["continue"] = self.continue_token
            if self.remaining is not None:
                meta["remainingItemCount"] = self.remaining
        return meta

    def encode(self, info: ResourceInfo) -> bytes:
        """The list object as JSON."""
        head = {"kind": info.list_kind or f"{info.kind}List", "apiVersion": info.api_version}
        text = msgspec.json.encode(head | {"metadata": self.metadata()})
        return b"".join((text[:-1], b',"items":[', b",".join(self.items), b"]}\n"))


class ReadStore(Protocol):
    """What reading and watching need of a store (`aio.storage.Storage`)."""

    @property
    def revision(self) -> int: ...
    def get(self, bucket: str, key: str) -> Record | None: ...
    def scan(
        self, bucket: str, prefix: str = "", *, after: str = "", at: int | None = None
    ) -> Iterator[tuple[str, Record]]: ...
    def since(self, bucket: str, revision: int) -> Sequence[Event]: ...
    def check(self, bucket: str, revision: int) -> None: ...
    async def changed(self, bucket: str) -> None: ...


class Reader:
    """Reads objects of any resource; never waits."""

    def __init__(self, storage: ReadStore) -> None:
        self._storage = storage

    def record(self, info: ResourceInfo, namespace: str, name: str) -> Record:
        """Return the stored object.

        Raises:
            ApiStatus: 404.
        """
        record = self._storage.get(bucket_of(info), key_of(info, namespace, name))
        if record is None:
            raise not_found(info.gvr.resource, name, info.gvr.group)
        return record

    def get(self, info: ResourceInfo, namespace: str, name: str, resource_version: str = "") -> bytes:
        """Return one object in the version asked for.

        Raises:
            ApiStatus: 404; 504 when `resource_version` lies in the future.
        """
        if resource_version:
            self._not_older(parse_version(resource_version))
        return to_served(self.record(info, namespace, name).value, info)

    def list(self, info: ResourceInfo, selection: Selection) -> ObjectList:
        """Return one page.

        Raises:
            ApiStatus: 400, 410 (too old), 422 (parameters that do not go together), 504 (too new).
        """
        selection.fields.require_supported(info.gvr, selectable(info))
        check_version_match(selection)
        after, at = self._position(info, selection)
        if selection.limit < 0:
            raise bad_request("limit must not be negative")
        try:
            return self._page(info, selection, after, at)
        except Expired as exc:
            if selection.continue_token:
                raise expired(_STALE_CONTINUE) from exc
            raise expired(f"The resourceVersion for the provided list is too old: {at}") from exc
        except TooNew as exc:
            raise self._too_large(int(str(exc))) from exc

    def _position(self, info: ResourceInfo, selection: Selection) -> tuple[str, int | None]:
        """Return (key to go on after, revision to look at)."""
        if selection.continue_token:
            if selection.resource_version not in {"", "0"}:
                raise bad_request("specifying resource version is not allowed when using continue")
            return parse_continue(selection.continue_token)
        version = parse_version(selection.resource_version)
        if version == 0:
            return "", None
        exact = selection.match == "Exact" or (not selection.match and selection.limit > 0)
        if exact:
            return "", version
        self._not_older(version)
        return "", None

    def _page(self, info: ResourceInfo, selection: Selection, after: str, at: int | None) -> ObjectList:
        test = matcher(info, selection.labels, selection.fields)
        revision = self._storage.revision if at is None else at
        items: builtins.list[bytes] = []
        last, more, rest = "", False, 0
        for key, record in self._candidates(info, selection, after, at):
            if more:
                rest += 1
                continue
            if test is not None and not test(record.value):
                continue
            if selection.limit and len(items) == selection.limit:
                if test is not None:
                    return self._cut(items, revision, last, None)
                more, rest = True, 1
                continue
            items.append(to_served(record.value, info))
            last = key
        return self._cut(items, revision, last, rest) if more else ObjectList(items, str(revision))

    def _candidates(
        self, info: ResourceInfo, selection: Selection, after: str, at: int | None
    ) -> Iterable[tuple[str, Record]]:
        bucket = bucket_of(info)
        prefix = f"{selection.namespace}/" if info.namespaced and selection.namespace else ""
        name = selection.fields.exact("metadata.name")
        if name is not None and at is None and not after and (prefix or not info.namespaced):
            record = self._storage.get(bucket, prefix + name)
            return [] if record is None else [(prefix + name, record)]
        return self._storage.scan(bucket, prefix, after=after, at=at)

    @staticmethod
    def _cut(items: builtins.list[bytes], revision: int, last: str, rest: int | None) -> ObjectList:
        return ObjectList(items, str(revision), format_continue(revision, last), rest)

    def _not_older(self, version: int) -> None:
        if version > self._storage.revision:
            raise self._too_large(version)

    def _too_large(self, version: int) -> ApiStatus:
        message = f"Too large resource version: {version}, current: {self._storage.revision}"
        cause = {"reason": "ResourceVersionTooLarge", "message": "Too large resource version"}
        return ApiStatus(504, "Timeout", message, {"causes": [cause], "retryAfterSeconds": 1})


def selectable(info: ResourceInfo) -> tuple[str, ...]:
    """The ``selectableFields`` of a custom resource."""
    return tuple(path.removeprefix(".") for path in info.extra.get("selectableFields", "").split(",") if path)


def parse_version(text: str) -> int:
    """Read a resourceVersion; absent is 0.

    Raises:
        ApiStatus: 400.
    """
    if not text:
        return 0
    if not (text.isascii() and text.isdigit() and len(text) < 20):
        raise bad_request(f'Invalid value: "{text[:60]}": strconv.ParseUint: invalid syntax')
    return int(text)


def check_version_match(selection: Selection) -> None:
    """Check ``resourceVersionMatch`` against the other parameters.

    Raises:
        ApiStatus: 422.
    """
    if not selection.match:
        return
    field, reason = "resourceVersionMatch", "FieldValueForbidden"
    problem = ""
    if selection.match not in {"Exact", "NotOlderThan"}:
        reason, problem = "FieldValueNotSupported", f'Unsupported value: "{selection.match[:60]}"'
        problem += ': supported values: "Exact", "NotOlderThan", ""'
    elif selection.continue_token:
        problem = "Forbidden: resourceVersionMatch is forbidden when continue is provided"
    elif not selection.resource_version:
        problem = "Forbidden: resourceVersionMatch is forbidden unless resourceVersion is provided"
    elif selection.match == "Exact" and selection.resource_version == "0":
        problem = 'Forbidden: resourceVersionMatch "exact" is forbidden for resourceVersion "0"'
    if problem:
        raise invalid("ListOptions", "", [(field, reason, problem)], "meta.k8s.io")


def format_continue(revision: int, after: str) -> str:
    """Make a continue token."""
    text = msgspec.json.encode({"v": "edgehive/v1", "rv": revision, "after": after})
    return base64.urlsafe_b64encode(text).rstrip(b"=").decode()


def parse_continue(token: str) -> tuple[str, int]:
    """Return (key to go on after, revision) of a continue token.

    Raises:
        ApiStatus: 400.
    """
    try:
        text = base64.urlsafe_b64decode(token.encode() + b"=" * (-len(token) % 4))
        found = msgspec.json.decode(text, type=dict[str, int | str])
        after, revision = found["after"], found["rv"]
        if isinstance(after, str) and isinstance(revision, int) and revision > 0 and after:
            return after, revision
    except (binascii.Error, ValueError, KeyError, *MALFORMED) as exc:
        raise bad_request("continue key is not valid") from exc
    raise bad_request("continue key is not valid")
