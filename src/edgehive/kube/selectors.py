"""Label and field selectors, as text and as objects."""

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from edgehive.kube.refs import GVR, is_dns_subdomain
from edgehive.kube.status import bad_request

_NAME = re.compile(r"([A-Za-z0-9][-A-Za-z0-9_.]{0,61})?[A-Za-z0-9]")
_WORD = re.compile(r"\s*(!=|==|[=!<>(),]|[^\s=!<>(),]+)")


def is_label_value(text: str) -> bool:
    """Tell whether `text` may be the value of a label."""
    return text == "" or _NAME.fullmatch(text) is not None


def is_qualified_name(text: str) -> bool:
    """Tell whether `text` may be a label or annotation key: ``[prefix/]name``."""
    prefix, slash, name = text.rpartition("/")
    return _NAME.fullmatch(name) is not None and (not slash or is_dns_subdomain(prefix))


@dataclass(frozen=True, slots=True)
class Requirement:
    """One condition; `op` is ``in``, ``notin``, ``exists``, ``!``, ``>`` or ``<`` (equality is ``in`` one)."""

    key: str
    op: str
    values: frozenset[str] = frozenset()

    def matches(self, labels: Mapping[str, str]) -> bool:
        """Tell whether `labels` fulfil the condition."""
        value = labels.get(self.key)
        match self.op:
            case "in":
                return value is not None and value in self.values
            case "notin":
                return value is None or value not in self.values
            case "exists":
                return value is not None
            case "!":
                return value is None
        try:
            number, bound = int(value or ""), int(next(iter(self.values)))
        except ValueError:
            return False
        return number > bound if self.op == ">" else number < bound

    def __str__(self) -> str:
        values = ",".join(sorted(self.values))
        match self.op:
            case "exists":
                return self.key
            case "!":
                return f"!{self.key}"
            case "in" if len(self.values) == 1:
                return f"{self.key}={values}"
            case "notin" if len(self.values) == 1:
                return f"{self.key}!={values}"
            case "in" | "notin":
                return f"{self.key} {self.op} ({values})"
        return f"{self.key}{self.op}{values}"


@dataclass(frozen=True, slots=True)
class LabelSelector:
    """All requirements must match; `never` matches nothing (an absent selector)."""

    requirements: tuple[Requirement, ...] = ()
    never: bool = False

    @staticmethod
    def parse(text: str) -> "LabelSelector":
        """Parse the text form of ``labelSelector=``; empty text matches everything.

        Raises:
            ApiStatus: 400.
        """
        return LabelSelector(tuple(_Parser(text).requirements()))

    @staticmethod
    def from_object(selector: Mapping[str, Any] | None) -> "LabelSelector":
        """Build from ``matchLabels``/``matchExpressions``; None matches nothing, ``{}`` everything.

        Raises:
            ApiStatus: 400.
        """
        if selector is None:
            return LabelSelector(never=True)
        found = [
            Requirement(key, "in", frozenset((str(value),)))
            for key, value in sorted((selector.get("matchLabels") or {}).items())
        ]
        ops = {"In": "in", "NotIn": "notin", "Exists": "exists", "DoesNotExist": "!", "Gt": ">", "Lt": "<"}
        for expression in selector.get("matchExpressions") or ():
            op = ops.get(expression.get("operator", ""))
            values = frozenset(str(v) for v in expression.get("values") or ())
            if op is None:
                raise bad_request(f'"{expression.get("operator")}" is not a valid label selector operator')
            if (op in ("exists", "!")) == bool(values) or (op in "<>" and len(values) != 1):
                raise bad_request(f"wrong number of values for operator {expression['operator']}")
            found.append(Requirement(str(expression.get("key", "")), op, values))
        return LabelSelector(tuple(found))

    @staticmethod
    def from_labels(labels: Mapping[str, str] | None) -> "LabelSelector":
        """Build from a plain map, as ``spec.selector`` of a Service; None or empty matches nothing."""
        return LabelSelector.from_object({"matchLabels": labels}) if labels else LabelSelector(never=True)

    def matches(self, labels: Mapping[str, str] | None) -> bool:
        """Tell whether an object with `labels` is selected."""
        if self.never:
            return False
        labels = labels or {}
        return all(requirement.matches(labels) for requirement in self.requirements)

    @property
    def everything(self) -> bool:
        """Whether nothing is filtered out."""
        return not self.requirements and not self.never

    def __str__(self) -> str:
        return ",".join(str(requirement) for requirement in self.requirements)


class _Parser:
    def __init__(self, text: str) -> None:
        self._text = text
        self._words = self._split(text)
        self._at = 0

    def _split(self, text: str) -> list[str]:
        words, at = [], 0
        text = text.rstrip()
        while at < len(text):
            match = _WORD.match(text, at)
            if match is None:
                raise self._wrong("unexpected character")
            words.append(match[1])
            at = match.end()
        return words

    def _wrong(self, why: str) -> Exception:
        return bad_request(f"unable to parse requirement: {why} in {self._text!r}")

    def _next(self) -> str:
        word = self._words[self._at] if self._at < len(self._words) else ""
        self._at += 1
        return word

    def requirements(self) -> Iterator[Requirement]:
        if not self._words:
            return
        while True:
            yield self._requirement()
            word = self._next()
            if word == "":
                return
            if word != ",":
                raise self._wrong(f"found {word!r}, expected ','")

    def _requirement(self) -> Requirement:
        key = self._next()
        negated = key == "!"
        if negated:
            key = self._next()
        if not is_qualified_name(key):
            raise self._wrong(f"invalid label key {key!r}")
        following = self._words[self._at] if self._at < len(self._words) else ""
        if negated or following in ("", ","):
            return Requirement(key, "!" if negated else "exists")
        self._at += 1
        match following:
            case "=" | "==":
                return Requirement(key, "in", frozenset((self._value(),)))
            case "!=":
                return Requirement(key, "notin", frozenset((self._value(),)))
            case "<" | ">":
                bound = self._value()
                if not re.fullmatch(r"-?[0-9]+", bound):
                    raise self._wrong(f"{bound!r} is not an integer")
                return Requirement(key, following, frozenset((bound,)))
            case "in" | "notin":
                return Requirement(key, following, self._values())
        raise self._wrong(f"found {following!r}, expected: in, notin, =, ==, !=, <, >")

    def _value(self) -> str:
        word = self._words[self._at] if self._at < len(self._words) else ","
        if word == ",":
            return ""
        self._at += 1
        if not is_label_value(word):
            raise self._wrong(f"invalid label value {word!r}")
        return word

    def _values(self) -> frozenset[str]:
        if self._next() != "(":
            raise self._wrong("expected '('")
        values: list[str] = []
        current = ""
        while (word := self._next()) != ")":
            if word == "":
                raise self._wrong("expected ')'")
            if word == ",":
                values.append(current)
                current = ""
            elif current or not is_label_value(word):
                raise self._wrong(f"invalid label value {word!r}")
            else:
                current = word
        return frozenset((*values, current))


_META_FIELDS = ("metadata.name", "metadata.namespace")
_FIELDS: Mapping[tuple[str, str], Mapping[str, str]] = {
    ("", "pods"): {
        "spec.nodeName": "",
        "spec.restartPolicy": "",
        "spec.schedulerName": "",
        "spec.serviceAccountName": "",
        "spec.hostNetwork": "false",
        "status.phase": "",
        "status.podIP": "",
        "status.podIPs": "",
        "status.nominatedNodeName": "",
    },
    ("", "nodes"): {"spec.unschedulable": "false"},
    ("", "namespaces"): {"status.phase": "", "name": ""},
    ("", "secrets"): {"type": ""},
    ("", "services"): {"spec.clusterIP": "", "spec.type": ""},
    ("", "events"): {
        "involvedObject.kind": "",
        "involvedObject.namespace": "",
        "involvedObject.name": "",
        "involvedObject.uid": "",
        "involvedObject.apiVersion": "",
        "involvedObject.resourceVersion": "",
        "involvedObject.fieldPath": "",
        "reason": "",
        "reportingComponent": "",
        "source": "",
        "type": "",
    },
    ("events.k8s.io", "events"): {
        "reason": "",
        "reportingController": "",
        "regarding.kind": "",
        "regarding.namespace": "",
        "regarding.name": "",
        "regarding.uid": "",
        "type": "",
    },
    ("apps", "replicasets"): {"status.replicas": "0"},
}


def selectable_fields(gvr: GVR) -> Mapping[str, str]:
    """Return the field labels a built-in resource may be selected by, with the text of an absent value."""
    return dict.fromkeys(_META_FIELDS, "") | dict(_FIELDS.get((gvr.group, gvr.resource), {}))


@dataclass(frozen=True, slots=True)
class FieldSelector:
    """Terms ``(path, equal, value)``; all must match."""

    terms: tuple[tuple[str, bool, str], ...] = ()

    @staticmethod
    def parse(text: str) -> "FieldSelector":
        r"""Parse ``a.b=c,d!=e``; ``\,``, ``\=`` and ``\\`` stand for themselves in values.

        Raises:
            ApiStatus: 400.
        """
        terms = []
        for part in _split_unescaped(text):
            if not part.strip():
                continue
            match = re.match(r"([^=!]+)(!=|==?)(.*)", part, re.DOTALL)
            if match is None:
                raise bad_request(f"invalid selector: {text!r}; can't understand {part!r}")
            path, op, value = match[1].strip(), match[2], re.sub(r"\\([,=\\])", r"\1", match[3])
            terms.append((path, op != "!=", value))
        return FieldSelector(tuple(terms))

    def require_supported(self, gvr: GVR, extra: Iterable[str] = ()) -> None:
        """Check that `gvr` can be selected by these fields (`extra`: a CRD's ``selectableFields``).

        Raises:
            ApiStatus: 400.
        """
        allowed = {*selectable_fields(gvr), *extra}
        for path, _, _ in self.terms:
            if path not in allowed:
                raise bad_request(f"field label not supported: {path}")

    def matches(self, obj: Mapping[str, Any], gvr: GVR | None = None) -> bool:
        """Tell whether the decoded `obj` is selected; `gvr` gives absent fields their meaning."""
        absent = selectable_fields(gvr) if gvr is not None else {}
        return all(
            (_field(obj, path, absent.get(path, "")) == value) == equal for path, equal, value in self.terms
        )

    def exact(self, path: str) -> str | None:
        """Return the value `path` must equal, if there is such a term (``metadata.name`` makes a get)."""
        return next((value for p, equal, value in self.terms if equal and p == path), None)

    def __str__(self) -> str:
        escaped = ((p, eq, re.sub(r"([,=\\])", r"\\\1", v)) for p, eq, v in self.terms)
        return ",".join(f"{p}{'=' if eq else '!='}{v}" for p, eq, v in escaped)


def _split_unescaped(text: str) -> list[str]:
    return re.findall(r"(?:\\.|[^,\\]|\\$)+", text, re.DOTALL)


def _field(obj: Mapping[str, Any], path: str, absent: str) -> str:
    if path == "source":
        path = "source.component"
    elif path == "name":
        path = "metadata.name"
    value: Any = obj
    for key in path.removeprefix(".").split("."):
        value = value.get(key) if isinstance(value, Mapping) else None
    if value is None:
        return absent
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, list):
        return ",".join(str(v.get("ip", "")) if isinstance(v, Mapping) else str(v) for v in value)
    return str(value)
