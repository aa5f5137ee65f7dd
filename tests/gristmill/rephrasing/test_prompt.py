"""Prompts of the package and of files: what they hold, and what is wrong with one that is none."""

from __future__ import annotations

from pathlib import Path

import pytest

from gristmill.errors import InputError
from gristmill.rephrasing.prompt import FOLDER, NAMES, read_prompt

SIZES = {  # of the text and of the answer, as Nemotron-CC has them
    "diverse_qa": (1000, 600),
    "distill": (2000, 1600),
    "extract_knowledge": (1400, 1400),
    "knowledge_list": (1000, 600),
    "wikipedia": (512, 512),
}


@pytest.mark.parametrize("name", NAMES)
def test_a_prompt_of_the_package_asks_for_its_preamble_and_has_its_sizes(name: str) -> None:
    prompt = read_prompt(name)
    assert prompt.name == name and len(prompt.hash) == 16 and prompt.about
    if name in SIZES:
        assert (prompt.input_tokens, prompt.output_tokens) == SIZES[name]
    filled = prompt.filled("the {text} of a page, 100 %")
    assert filled.endswith("the {text} of a page, 100 %") and filled.count(prompt.preamble) == 1
    assert 50 <= prompt.least_tokens <= prompt.output_tokens
    assert ("exactly as it stands" in filled and "in its own language" in filled) or "language of the passage" in filled


def test_the_names_are_the_files() -> None:
    assert {path.stem for path in FOLDER.iterdir()} == set(NAMES)
    assert len({read_prompt(name).hash for name in NAMES}) == len({read_prompt(name).preamble for name in NAMES}) == len(NAMES)


def written(tmp_path: Path, content: str | bytes) -> str:
    path = tmp_path / "My Prompt.md"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return str(path)


def test_a_file_of_ones_own(tmp_path: Path) -> None:
    path = written(tmp_path, "input_tokens: 100\r\noutput_tokens: 50\r\n---\r\nSay {text} and {text}.\r\n")
    prompt = read_prompt(path)
    assert (prompt.name, prompt.preamble, prompt.least_tokens) == ("my_prompt", "", 0)
    assert prompt.filled("it") == "Say it and it."
    other = read_prompt(written(tmp_path, "input_tokens: 100\noutput_tokens: 50\n---\nSay {text} and {text}!\n"))
    assert other.hash != prompt.hash


WRONG: dict[str, tuple[str | bytes, str]] = {
    "no head": ("Say {text}", "has no line '---' between its head"),
    "no text": ("input_tokens: 1\noutput_tokens: 1\n---\nSay it", "does not say where the text stands; write {text} there"),
    "missing": ("output_tokens: 1\n---\n{text}", "'input_tokens' is missing from its head; give a number of tokens"),
    "zero": (
        "input_tokens: 0\noutput_tokens: 1\n---\n{text}",
        "'input_tokens' must be a number of tokens, at least 1, found '0'",
    ),
    "words": ("input_tokens: many\noutput_tokens: 1\n---\n{text}", "'input_tokens' must be a number of tokens.*found 'many'"),
    "unknown": ("input_token: 1\noutput_tokens: 1\n---\n{text}", "'input_token' is none of its head, which has input_tokens, "),
    "twice": ("input_tokens: 1\ninput_tokens: 1\noutput_tokens: 1\n---\n{text}", "'input_tokens' is there twice"),
    "least": ("input_tokens: 9\noutput_tokens: 5\nleast_tokens: 6\n---\n{text}", "least_tokens is 6, above output_tokens, 5"),
    "bytes": (b"input_tokens: 1\noutput_tokens: 1\n---\n{text}\xff", "is not UTF-8"),
}


@pytest.mark.parametrize(("content", "said"), WRONG.values(), ids=WRONG)
def test_what_is_no_prompt(content: str | bytes, said: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=f"prompt .*My Prompt.md'.*{said}"):
        read_prompt(written(tmp_path, content))


def test_a_name_that_is_none() -> None:
    with pytest.raises(InputError, match="prompt 'distil' is no file, and none of the package's: diverse_qa, distill, "):
        read_prompt("distil")
