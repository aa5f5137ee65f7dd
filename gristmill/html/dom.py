"""What is asked of resiliparse's tree of a page that has a body: `HTMLTree`, its nodes and their collections.

Reads and writes nothing. resiliparse's own types say that each of these may be None, which callers rule out once, by looking at
`body`; see resiliparse.parse.html for what each does.
"""

from __future__ import annotations

from typing import Protocol


class Node(Protocol):
    """An element or a text."""

    @property
    def text(self) -> str:
        """All text in it."""
        ...


class Nodes(Protocol):
    """Nodes in the order of the page, such as the children of an element; changes with the tree."""

    def values(self) -> list[Node]:
        """Return them as they are now."""
        ...


class Elements(Protocol):
    """Elements in the order of the page, such as those of a selector; changes with the tree."""

    def __len__(self) -> int: ...

    def values(self) -> list[Element]:
        """Return them as they are now."""
        ...


class Element(Node, Protocol):
    """An element; equal, with an equal hash, where it is the same one."""

    local_name: str
    class_name: str
    attribute_names: list[str]
    parent_element: Element | None
    next_element_sibling: Element | None
    previous_element_sibling: Element | None
    child_nodes: Nodes
    children: Elements

    def __hash__(self) -> int: ...

    def getattr(self, attr_name: str) -> str | None:
        """Return an attribute, None where it has none."""
        ...

    def remove_attribute(self, attr_name: str) -> None:
        """Take an attribute off it."""
        ...

    def get_elements_by_tag_name(self, tag_name: str) -> Elements:
        """Return the elements of a name below it."""
        ...

    def query_selector(self, selector: str) -> Element | None:
        """Return the first element below it that a CSS selector matches."""
        ...

    def query_selector_all(self, selector: str) -> Elements:
        """Return all elements below it that a CSS selector matches."""
        ...

    def matches(self, selector: str) -> bool:
        """Tell whether a CSS selector matches it."""
        ...

    def closest(self, selector: str) -> Element | None:
        """Return itself or the nearest element around it that a CSS selector matches."""
        ...

    def contains(self, node: Node) -> bool:
        """Tell whether a node is below it."""
        ...

    def append(self, *nodes: Node) -> None:
        """Put nodes behind its last child, from where they were."""
        ...

    def replace_with(self, *nodes: Node) -> None:
        """Put nodes in its place."""
        ...

    def remove(self) -> None:
        """Take it out of the tree."""
        ...


class Document(Element, Protocol):
    """The document, which makes elements and texts."""

    def create_element(self, tag_name: str) -> Element:
        """Return a new element, which is nowhere yet."""
        ...

    def create_text_node(self, text: str) -> Node:
        """Return a new text, which is nowhere yet."""
        ...


class Tree(Protocol):
    """A page."""

    document: Document
    body: Element
