"""Prompts: a file with a head of a few values, a line `---`, and the words, in which `{text}` stands for the text.

Reads files: those of the package (`NAMES`), or of the user's own by path. The head:

    input_tokens: 1000      the most of the text that one request is given
    output_tokens: 600      the most that is answered
    least_tokens: 100       fewer in an answer are too few; 0 where it is left out
    preamble: Here it is:   the line that an answer must begin with, which is then taken away; none where it is left out
    about: ...              for people
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from gristmill.errors import InputError

FOLDER = Path(__file__).with_name("prompts")
NAMES = (
    "diverse_qa",
    "distill",
    "extract_knowledge",
    "knowledge_list",
    "wikipedia",
    "math",
    "table",
    "faq",
    "tutorial",
)
"""The prompts of the package: five tasks as Nemotron-CC has them, four formats as FinePhrase has them."""

TEXT = "{text}"
NUMBERS: Mapping[str, int | None] = {
    "input_tokens": None,
    "output_tokens": None,
    "least_tokens": 0,
}  # key → its value where it is left out
WORDS = ("preamble", "about")


@dataclass(frozen=True, kw_only=True)
class Prompt:
    """A prompt; see the head of this file for its values. `hash`: 16 hex digits over the whole file."""

    name: str
    hash: str
    words: str
    input_tokens: int
    output_tokens: int
    least_tokens: int = 0
    preamble: str = ""
    about: str = ""

    def filled(self, text: str) -> str:
        """Return what is sent."""
        return self.words.replace(TEXT, text)


def path_of(prompt: str) -> Path:
    """Return the file of a prompt, by the name of one of the package or a path. Raises InputError when there is none."""
    if prompt in NAMES:
        return FOLDER / f"{prompt}.md"
    path = Path(prompt)
    if not path.is_file():
        raise InputError(f"prompt {prompt!r} is no file, and none of the package's: {', '.join(NAMES)}")
    return path


def read_prompt(prompt: str) -> Prompt:
    """Read a prompt by its name or path; one of a path is called as its file is, without the ending.

    Raises:
        InputError: there is none, or it is not as the head of this file says.
    """
    path = path_of(prompt)
    content = path.read_bytes()
    try:
        head, line, words = content.decode().replace("\r\n", "\n").partition("\n---\n")
    except UnicodeDecodeError as error:
        raise InputError(f"prompt {str(path)!r} is not UTF-8: {error}") from error
    if not line:
        raise InputError(f"prompt {str(path)!r} has no line '---' between its head (input_tokens: 1000, ...) and its words")
    if TEXT not in words:
        raise InputError(f"prompt {str(path)!r} does not say where the text stands; write {TEXT} there")
    numbers, told = _head(head, str(path))
    name = re.sub(r"[^a-z0-9_]+", "_", path.stem.lower()).strip("_") or "prompt"
    return Prompt(
        name=name,
        hash=hashlib.sha256(content).hexdigest()[:16],
        words=words.strip("\n"),
        input_tokens=numbers["input_tokens"],
        output_tokens=numbers["output_tokens"],
        least_tokens=numbers["least_tokens"],
        preamble=told["preamble"],
        about=told["about"],
    )


def _head(head: str, where: str) -> tuple[dict[str, int], dict[str, str]]:
    """Return the numbers and the words of a head. Raises InputError."""
    found: dict[str, str] = {}
    for line in filter(str.strip, head.splitlines()):
        key, colon, value = line.partition(":")
        if not colon or key not in (*NUMBERS, *WORDS) or key in found:
            problem = "is there twice" if key in found else "is none of its head"
            raise InputError(f"prompt {where!r}: {key.strip()!r} {problem}, which has {', '.join((*NUMBERS, *WORDS))}")
        found[key] = value.strip()
    numbers: dict[str, int] = {}
    for key, default in NUMBERS.items():
        value = found.get(key, str(default))
        if key not in found and default is None:
            raise InputError(f"prompt {where!r}: {key!r} is missing from its head; give a number of tokens, such as 1000")
        least = 0 if default == 0 else 1
        if not re.fullmatch(r"[0-9]{1,9}", value) or int(value) < least:
            raise InputError(f"prompt {where!r}: {key!r} must be a number of tokens, at least {least}, found {value!r}")
        numbers[key] = int(value)
    if numbers["least_tokens"] > numbers["output_tokens"]:
        most = numbers["output_tokens"]
        raise InputError(f"prompt {where!r}: least_tokens is {numbers['least_tokens']}, above output_tokens, {most}")
    return numbers, {key: found.get(key, "") for key in WORDS}
