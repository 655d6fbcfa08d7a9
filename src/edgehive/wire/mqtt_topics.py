"""Topic names and filters (4.7): what is one, what matches what, and a tree of filters that finds matches fast."""

from typing import Final, Generic, TypeVar

K = TypeVar("K")
V = TypeVar("V")

MAX_TEXT: Final = 0xFFFF
MAX_LEVELS: Final = 64
"""Deeper names are refused: each level costs a node of the tree."""


def is_topic(name: str) -> bool:
    """Whether one can publish to `name`."""
    return _is_name(name) and "+" not in name and "#" not in name


def is_filter(name: str) -> bool:
    """Whether one can subscribe to `name`: ``+`` stands for a whole level, ``#`` for the last one."""
    if not _is_name(name):
        return False
    levels = name.split("/")
    if "#" in name and (name.count("#") > 1 or levels[-1] != "#"):
        return False
    return all("+" not in level or level == "+" for level in levels)


def _is_name(name: str) -> bool:
    if not name or "\0" in name or name.count("/") >= MAX_LEVELS:
        return False
    try:
        return len(name.encode()) <= MAX_TEXT
    except UnicodeEncodeError:
        return False


def matches(name: str, topic: str) -> bool:
    """Whether the filter `name` matches `topic`; a wildcard at the front does not match ``$...`` (4.7.2)."""
    if topic[:1] == "$" and name[:1] in ("+", "#"):
        return False
    wanted, given = name.split("/"), topic.split("/")
    for at, level in enumerate(wanted):
        if level == "#":
            return True
        if at >= len(given) or (level not in ("+", given[at])):
            return False
    return len(wanted) == len(given)


class _Node(Generic[K, V]):
    __slots__ = ("children", "values")

    def __init__(self) -> None:
        self.children: dict[str, _Node[K, V]] = {}
        self.values: dict[K, V] = {}


class TopicTree(Generic[K, V]):
    """Filters, each with a value for every key (the subscriber); matching visits only what can match."""

    def __init__(self) -> None:
        self._root: _Node[K, V] = _Node()
        self.nodes = 0
        """How large the tree is."""

    def put(self, name: str, key: K, value: V) -> None:
        """Set the value of `key` at the filter `name`."""
        node = self._root
        for level in name.split("/"):
            child = node.children.get(level)
            if child is None:
                child = node.children[level] = _Node()
                self.nodes += 1
            node = child
        node.values[key] = value

    def remove(self, name: str, key: K) -> bool:
        """Forget `key` at the filter `name`; tell whether it was there."""
        node, path = self._root, []
        for level in name.split("/"):
            child = node.children.get(level)
            if child is None:
                return False
            path.append((node, level))
            node = child
        if key not in node.values:
            return False
        del node.values[key]
        for parent, level in reversed(path):
            child = parent.children[level]
            if child.values or child.children:
                break
            del parent.children[level]
            self.nodes -= 1
        return True

    def match(self, topic: str) -> list[tuple[K, V]]:
        """Every key and value whose filter matches `topic`; a key once for each of its filters."""
        found: list[tuple[K, V]] = []
        levels = topic.split("/")
        depth = len(levels)
        stack = [(self._root, 0)]
        while stack:
            node, at = stack.pop()
            children = node.children
            wild = at or topic[:1] != "$"
            if wild and (rest := children.get("#")) is not None:
                found.extend(rest.values.items())
            if at == depth:
                found.extend(node.values.items())
                continue
            if wild and (any_level := children.get("+")) is not None:
                stack.append((any_level, at + 1))
            if (exact := children.get(levels[at])) is not None:
                stack.append((exact, at + 1))
        return found
