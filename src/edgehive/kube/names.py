"""The forms of Kubernetes names, and why a text is not one."""

import ipaddress
import re
from collections.abc import Mapping

from edgehive.kube.refs import is_dns_subdomain

_LABEL = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?")
_LABEL_1035 = re.compile(r"[a-z]([-a-z0-9]*[a-z0-9])?")
_NAME = re.compile(r"([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]")
_ENV = re.compile(r"[^=]+")
_KEY = re.compile(r"[-._a-zA-Z0-9]+")
_PORT_NAME = re.compile(r"[a-z0-9]([a-z0-9-]*[a-z0-9])?")

_SENTENCE: Mapping[str, str] = {
    "label": "a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and must "
    "start and end with an alphanumeric character (e.g. 'my-name',  or '123-abc', regex used for validation is "
    "'[a-z0-9]([-a-z0-9]*[a-z0-9])?')",
    "label1035": "a DNS-1035 label must consist of lower case alphanumeric characters or '-', start with an "
    "alphabetic character, and end with an alphanumeric character (e.g. 'my-name',  or 'abc-123', regex used "
    "for validation is '[a-z]([-a-z0-9]*[a-z0-9])?')",
    "subdomain": "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', "
    "and must start and end with an alphanumeric character (e.g. 'example.com', regex used for validation is "
    "'[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')",
}


def name_problem(form: str, text: str) -> str:
    """Return why `text` is not a name of `form` (``label``, ``label1035``, ``subdomain``); empty when it is."""
    limit = 253 if form == "subdomain" else 63
    if len(text) > limit:
        return f"must be no more than {limit} characters"
    fits = {
        "label": lambda: _LABEL.fullmatch(text) is not None,
        "label1035": lambda: _LABEL_1035.fullmatch(text) is not None,
        "subdomain": lambda: is_dns_subdomain(text),
    }[form]()
    return "" if fits else _SENTENCE[form]


def path_name_problem(text: str) -> str:
    """Return why `text` cannot be one segment of a URL's path; empty when it can."""
    if text in (".", ".."):
        return f"may not be '{text}'"
    bad = [char for char in "/%" if char in text]
    return f"may not contain '{bad[0]}'" if bad else ""


def qualified_name_problem(text: str) -> str:
    """Return why `text` is not ``[prefix/]name``; empty when it is."""
    prefix, slash, name = text.rpartition("/")
    if slash and not prefix:
        return "prefix part must be non-empty"
    if slash and not is_dns_subdomain(prefix):
        return f"prefix part {_SENTENCE['subdomain']}"
    if not name:
        return "name part must be non-empty"
    if len(name) > 63:
        return "name part must be no more than 63 characters"
    if _NAME.fullmatch(name) is None:
        return (
            "name part must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an "
            "alphanumeric character (e.g. 'MyName',  or 'my.name',  or '123-abc', regex used for validation is "
            "'([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]')"
        )
    return ""


def label_value_problem(text: str) -> str:
    """Return why `text` is not a label value; empty when it is."""
    if len(text) > 63:
        return "must be no more than 63 characters"
    if text and _NAME.fullmatch(text) is None:
        return (
            "a valid label must be an empty string or consist of alphanumeric characters, '-', '_' or '.', and must "
            "start and end with an alphanumeric character (e.g. 'MyValue',  or 'my_value',  or '12345', regex used "
            "for validation is '(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?')"
        )
    return ""


def config_key_problem(text: str) -> str:
    """Return why `text` is not a key of a ConfigMap or Secret; empty when it is."""
    if len(text) > 253:
        return "must be no more than 253 characters"
    if text in (".", "..") or text.startswith(".."):
        return "must not be '.', '..' or start with '..'"
    if _KEY.fullmatch(text) is None:
        return (
            "a valid config key must consist of alphanumeric characters, '-', '_' or '.' (e.g. 'key.name',  or "
            "'KEY_NAME',  or 'key-name', regex used for validation is '[-._a-zA-Z0-9]+')"
        )
    return ""


def env_name_problem(text: str) -> str:
    """Return why `text` is not the name of an environment variable; empty when it is."""
    fits = _ENV.fullmatch(text) is not None and text.isascii() and text.isprintable()
    return "" if fits else "environment variable names must be printable ASCII characters except '='"


def port_name_problem(text: str) -> str:
    """Return why `text` is not an IANA service name; empty when it is."""
    if len(text) > 15:
        return "must be no more than 15 characters"
    if _PORT_NAME.fullmatch(text) is None:
        return "must contain only alpha-numeric characters (a-z, 0-9), and hyphens (-)"
    if "--" in text:
        return "must not contain consecutive hyphens"
    return "" if re.search("[a-z]", text) else "must contain at least one letter (a-z)"


def is_ip(text: str) -> bool:
    """Tell whether `text` is an IPv4 or IPv6 address."""
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True
