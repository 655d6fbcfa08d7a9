"""docs/dependencies.md and pyproject.toml name the same packages, and the code uses them."""

import ast
import re
import sys
import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
PAGE = (ROOT / "docs" / "dependencies.md").read_text(encoding="utf-8")
IMPORTED_AS = {
    "google-re2": "re2",
    "pyyaml": "yaml",
    "influxdb-client": "influxdb_client",
    "opentelemetry-exporter-otlp-proto-http": "opentelemetry",
    "pyserial": "serial",
    "taospy": "taosrest",
    "aws-cdk-lambda-layer-kubectl-v35": "aws_cdk",
}
TOOLS = {"import-linter", "mypy", "pytest-asyncio", "pytest-timeout", "pyserial", "ruff"}
"""Used without being imported; pymodbus imports pyserial."""


def names(requirements: list[str]) -> set[str]:
    return {re.split(r"[^\w.-]", one)[0].lower() for one in requirements}


def imported(*folders: str) -> set[str]:
    """Top-level modules that the code names, also late and by `importorskip`."""
    found: set[str] = set()
    for folder in folders:
        for path in (ROOT / folder).rglob("*.py"):
            text = path.read_text(encoding="utf-8")
            for node in ast.walk(ast.parse(text)):
                if isinstance(node, ast.Import):
                    found |= {alias.name.partition(".")[0] for alias in node.names}
                elif isinstance(node, ast.ImportFrom) and node.module:
                    found.add(node.module.partition(".")[0])
            found |= {name.partition(".")[0] for name in re.findall(r'importorskip\(\s*"([\w.]+)"', text)}
    return found


def module_of(name: str) -> str:
    return IMPORTED_AS.get(name, name.replace("-", "_"))


EXTRAS = {
    name
    for extra, wanted in PROJECT["optional-dependencies"].items()
    if extra != "dev"
    for name in names(wanted)
}


def test_each_package_has_its_words_on_the_page() -> None:
    named = {name.lower() for name in re.findall(r"`([\w.-]+)`", PAGE)}
    declared = names(PROJECT["dependencies"]) | EXTRAS
    assert declared - named == set()
    development = names(PROJECT["optional-dependencies"]["dev"])
    assert {name for name in development - named if not name.startswith("types-")} == set()


def test_what_is_declared_is_used() -> None:
    used = imported("src")
    assert {name for name in names(PROJECT["dependencies"]) if module_of(name) not in used} == set()
    used |= imported("tests", "bench")
    used |= {"aws_cdk"}  # found by its path, never imported
    wanted = EXTRAS | names(PROJECT["optional-dependencies"]["dev"])
    for name in sorted(wanted - TOOLS):
        module = {"protobuf": "google", "grpcio": "grpc", "paho-mqtt": "paho"}.get(name, module_of(name))
        assert module in used or name.startswith("types-"), name


def test_what_is_imported_is_declared_or_explained() -> None:
    declared = {module_of(name) for name in names(PROJECT["dependencies"]) | EXTRAS}
    explained = set(re.findall(r"`([\w.-]+)`", PAGE))
    foreign = imported("src") - sys.stdlib_module_names - {"edgehive"}
    assert foreign - declared - explained == set()
