"""KubeEdge's configuration files: YAML laid over a tree of structs that holds the defaults.

A value of the wrong type is refused with the path of its key; an unknown key is reported with the nearest known one
and otherwise ignored, because files of newer KubeEdge must keep working.
"""

import contextlib
import marshal
import os
import sys
import threading
import typing
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar

import msgspec

from edgehive.kit.errors import UserError
from edgehive.kit.text import safe_label

Config = TypeVar("Config", bound=msgspec.Struct)

Check = tuple[bool, str, str]
"""Whether it is fine, the key it is about, and what is wrong otherwise."""


@dataclass(frozen=True, slots=True)
class LoadedConfig(Generic[Config]):
    """A configuration and what was odd about its file, one sentence each."""

    config: Config
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class ConfigFile(Generic[Config]):
    """A program's configuration file and what it has to be."""

    program: str
    kind: type[Config]
    complete: Callable[[Config], Config]
    """Fills in what depends on the machine."""
    check: Callable[[Config, str], list[str]]
    """Returns what is odd, one sentence each, and raises `UserError` for what is impossible; its text is the origin."""

    def load(self, path: Path) -> LoadedConfig[Config]:
        """Read the file at `path` over the defaults and check it.

        Raises:
            UserError: missing, unreadable, not YAML, a wrong type or an impossible value.
        """
        return self.parse(read_config(path, program=self.program), origin=str(path))

    def parse(self, text: str, *, origin: str = "the configuration") -> LoadedConfig[Config]:
        """Parse YAML over the defaults and check it.

        Raises:
            UserError: not YAML, a wrong type or an impossible value.
        """
        config, warnings = adopt_config(text, self.kind, origin=origin, program=self.program)
        config = self.complete(config)
        return LoadedConfig(config, (*warnings, *self.check(config, origin)))


def read_config(path: Path, *, program: str) -> str:
    """Return the text of `program`'s configuration file.

    Raises:
        UserError: missing or unreadable.
    """
    try:
        return path.read_text(encoding="utf-8")
    except FileNotFoundError as exc:
        raise UserError(
            f"the configuration file {path} does not exist",
            hint=f"make one with: {program} --minconfig > {path}",
        ) from exc
    except (OSError, UnicodeDecodeError) as exc:
        raise UserError(f"the configuration file {path} cannot be read: {exc}") from exc


def adopt_config(text: str, kind: type[Config], *, origin: str, program: str) -> tuple[Config, list[str]]:
    """Lay YAML over the defaults of `kind`; return it and what was odd, one sentence each.

    Raises:
        UserError: not YAML, or a wrong type.
    """
    parsed = _parsed_apart(text)
    data = _parsed_here(text, origin) if parsed is None else parsed[0]
    if data is None:
        data = {}
    hint = _hint(program)
    if not isinstance(data, dict):
        raise UserError(f"{origin} must be a mapping of keys, not a {_type_name(data)}", hint=hint)
    warnings: list[str] = []
    try:
        return msgspec.convert(_known(data, kind, "", warnings), type=kind), warnings
    except msgspec.ValidationError as exc:
        raise UserError(f"{origin}: {_readable(str(exc))}", hint=hint) from exc


def _parsed_here(text: str, origin: str) -> Any:
    import yaml

    try:
        return yaml.safe_load(text)
    except (yaml.YAMLError, RecursionError) as exc:
        raise UserError(f"{origin} is not valid YAML: {exc}") from exc


def _parsed_apart(text: str) -> tuple[Any] | None:
    """Parse in a child process, whose memory (0.8 MB of code for one file) goes with it.

    None: it has to be done here, because the child could not, or because it may not be made.
    """
    if "yaml" in sys.modules or threading.active_count() > 1:
        return None
    try:
        reading, writing = os.pipe()
    except OSError:
        return None
    try:
        child = os.fork()
    except OSError:
        os.close(reading)
        os.close(writing)
        return None
    if child == 0:
        _answer_and_end(text, writing)
    os.close(writing)
    with open(reading, "rb") as file:  # noqa: PTH123 - a descriptor, not a path
        answer = file.read()
    with contextlib.suppress(ChildProcessError):  # somebody ignores SIGCHLD
        os.waitpid(child, 0)
    try:
        return (marshal.loads(answer),) if answer else None  # noqa: S302 - our own child wrote it
    except (EOFError, ValueError, TypeError):
        return None


def _answer_and_end(text: str, descriptor: int) -> typing.NoReturn:
    """The child: nothing but the answer may leave it, no exception, no flushed buffer, no exit handler."""
    try:
        import yaml

        answer = marshal.dumps(yaml.safe_load(text))  # dates are refused, and parsed by the parent
        while answer:
            answer = answer[os.write(descriptor, answer) :]
    finally:
        os._exit(0)


def refuse_failed(checks: Iterable[Check], *, origin: str, program: str) -> None:
    """Raise `UserError` for the first check that is not fine."""
    for fine, key, message in checks:
        if not fine:
            raise UserError(f"{origin}: {key}: {message}", hint=_hint(program))


def dump_yaml(data: Any) -> str:
    """Write YAML as a person would: keys in their order, one a line."""
    import yaml

    text: str = yaml.safe_dump(data, sort_keys=False, default_flow_style=False, allow_unicode=True)
    return text


def _hint(program: str) -> str:
    return f"print all keys with their defaults: {program} --defaultconfig"


def _type_name(value: object) -> str:
    names = {str: "text", list: "list", bool: "boolean", int: "number", float: "number"}
    return names.get(type(value), type(value).__name__)


def _readable(message: str) -> str:
    what, _, where = message.partition(" - at ")
    return f"{where.strip('`').removeprefix('$.') or 'the file'}: {what[:1].lower()}{what[1:]}"


def _known(
    data: Mapping[Any, Any], kind: type[msgspec.Struct], path: str, warnings: list[str]
) -> dict[str, Any]:
    """Keep the keys that `kind` has: any letter case as Go reads them, nulls left to the default."""
    hints = typing.get_type_hints(kind)
    fields = dict(zip(kind.__struct_encode_fields__, kind.__struct_fields__, strict=True))
    by_case = {name.lower(): name for name in fields}
    known: dict[str, Any] = {}
    for key, value in data.items():
        name = key if key in fields else by_case.get(str(key).lower())
        if name is None:
            warnings.append(_unknown(key, path, fields))
        elif value is not None:
            inner = hints[fields[name]]
            nested = isinstance(inner, type) and issubclass(inner, msgspec.Struct) and isinstance(value, dict)
            known[name] = _known(value, inner, f"{path}{name}.", warnings) if nested else value
    return known


def _unknown(key: object, path: str, fields: Mapping[str, str]) -> str:
    import difflib  # seldom needed

    near = difflib.get_close_matches(str(key), fields, n=1, cutoff=0.6)
    meant = f"; did you mean {path}{near[0]}?" if near else ""
    return f"unknown key {path}{safe_label(key)} is ignored{meant}"
