"""What the documents name must be there: tests, files, links."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/*.md")])

_TEST = re.compile(r"`(?:tests/)?((?:\w+/)*test_\w+\.py)(?:::(\w+)(?:::(\w+))?)?`")
_LINK = re.compile(r"\]\(([^)#:]+)(?:#[^)]*)?\)")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_test_named_exists(page: Path) -> None:
    missing = []
    for path, *names in _TEST.findall(page.read_text()):
        # A page may leave out the folder where the name says enough: names are unique in the tree.
        text = "".join(file.read_text() for file in (ROOT / "tests").glob(f"**/{path}"))
        if not text or any(name and not re.search(rf"(def|class) {name}\b", text) for name in names):
            missing.append("::".join([path, *filter(None, names)]))
    assert not missing


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_link_leads_somewhere(page: Path) -> None:
    links = _LINK.findall(page.read_text())
    assert [link for link in links if not (page.parent / link).exists()] == []
