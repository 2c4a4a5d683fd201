"""YAML that remembers its lines. Refuses what YAML itself takes in silence: a key given twice.

Source: the node graph of PyYAML's SafeLoader, the parser that Serve reads the file with.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, ClassVar

import yaml
from yaml.constructor import SafeConstructor

from serve_app.check.problem import Path, Problem

MERGE_TAG = "tag:yaml.org,2002:merge"


@dataclass(frozen=True, slots=True)
class Document:
    """A parsed file: its value as Serve would see it, and the nodes that know the lines."""

    value: Any
    root: yaml.Node

    def line(self, path: Path) -> int:
        """The line of the key or item at `path`, or of what is there around it."""
        node, line = self.root, self.root.start_mark.line + 1
        for step in path:
            found = _step(node, step)
            if found is None:
                break
            mark, node = found
            line = mark.line + 1
        return line


def load(text: str) -> tuple[Document | None, list[Problem]]:
    """The document, None where there is none, and what is wrong with it as YAML."""
    try:
        return _load(text)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line = mark.line + 1 if mark else 1
        return None, [Problem((), f"not YAML: {error.problem or error.context}", line)]
    except yaml.reader.ReaderError as error:
        line = text.count("\n", 0, error.position) + 1
        return None, [Problem((), f"not YAML: {error.reason}", line)]
    except RecursionError:
        return None, [Problem((), "nested too deeply", 1)]
    except (AttributeError, ValueError) as error:  # a date such as 2026-13-45 or !!timestamp x
        return None, [Problem((), f"not YAML: {error}", 1)]


def _load(text: str) -> tuple[Document | None, list[Problem]]:
    loader = _Loader(text)
    root = loader.get_single_node()
    if root is None:
        return None, [Problem((), "the file is empty", 1)]
    problems = list(_Keys().problems(root, ()))  # before merges: they repeat keys rightly
    # Constructing also lays `<<` merges flat in the nodes, so that lines are found through them.
    return Document(loader.construct_document(root), root), problems


class _Loader(yaml.SafeLoader):
    """With its own word on dates: lm-format-enforcer, which vLLM imports, takes that of all safe
    loaders in the process away (lmformatenforcer/external/jsonschemaobjectutil.py)."""

    yaml_constructors: ClassVar = {
        **yaml.SafeLoader.yaml_constructors,
        "tag:yaml.org,2002:timestamp": yaml.constructor.SafeConstructor.construct_yaml_timestamp,
    }


class _Keys:
    """One walk over the nodes as they were written; every anchor is entered once."""

    def __init__(self) -> None:
        self._open: set[int] = set()
        self._done: set[int] = set()

    def problems(self, node: yaml.Node, path: Path) -> Iterator[Problem]:
        if id(node) in self._open:
            circle = "an anchor that contains itself"
            raise yaml.composer.ComposerError(None, None, circle, node.start_mark)
        if id(node) in self._done:
            return
        self._open.add(id(node))
        if isinstance(node, yaml.MappingNode):
            yield from _duplicates(node, path)
        for step, child in _children(node):
            yield from self.problems(child, (*path, step))
        self._open.discard(id(node))
        self._done.add(id(node))


def _duplicates(node: yaml.MappingNode, path: Path) -> Iterator[Problem]:
    first: dict[object, int] = {}
    for key, _ in node.value:
        if not isinstance(key, yaml.ScalarNode) or key.tag == MERGE_TAG:
            continue
        name, line = _plain(key), key.start_mark.line + 1
        if name in first:
            dropped = f"given twice; YAML would drop the one on line {first[name]}"
            yield Problem((*path, str(name)), dropped, line)
        first[name] = line


def _children(node: yaml.Node) -> Iterator[tuple[str | int, yaml.Node]]:
    if isinstance(node, yaml.SequenceNode):
        yield from enumerate(node.value)
    elif isinstance(node, yaml.MappingNode):
        for key, child in node.value:
            yield str(key.value), child


def _step(node: yaml.Node, step: str | int) -> tuple[yaml.Mark, yaml.Node] | None:
    if isinstance(node, yaml.SequenceNode) and isinstance(step, int) and step < len(node.value):
        return node.value[step].start_mark, node.value[step]
    if isinstance(node, yaml.MappingNode):
        for key, child in reversed(node.value):  # a key written here wins over a merged one
            if isinstance(key, yaml.ScalarNode) and _plain(key) == step:
                return key.start_mark, child
    return None


def _plain(key: yaml.ScalarNode) -> Any:
    return SafeConstructor().construct_object(key)
