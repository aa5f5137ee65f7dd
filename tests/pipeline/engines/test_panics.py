"""What is left of a child's standard error: each panic once, nothing that steers a terminal, no secret."""

from __future__ import annotations

import os

import pytest

from pipeline.engines.panics import PLACES, Panics, pass_on


def panic(place: str, message: bytes = b"index out of bounds") -> list[bytes]:
    head = f"thread '<unnamed>' (71) panicked at {place}:\n".encode()
    note = b"note: run with `RUST_BACKTRACE=1` environment variable to display a backtrace\n"
    return [b"\n", head, message + b"\n", b"stack backtrace:\n", b"   0: core::panicking\n", b"      at src/lib.rs:7\n", note]


def test_a_panic_is_told_once_a_place_in_two_lines() -> None:
    panics = Panics()
    first, again, other = panic("src/a.rs:1:2"), panic("src/a.rs:1:2", b"another document"), panic("src/b.rs:3:4")
    assert list(panics.without_repeats([*first, *again, *other])) == [*first[1:3], *other[1:3]]


def test_what_else_is_said_stays_between_panics() -> None:
    panics = Panics()
    said = [b"warning: odd page\n", b"   at the door\n"]
    assert list(panics.without_repeats([said[0], *panic("src/a.rs:1:2"), *said])) == [
        said[0],
        *panic("src/a.rs:1:2")[1:3],
        said[0],
        said[1],  # like a line of a backtrace, but behind none
    ]


def test_a_process_tells_so_many_places() -> None:
    panics = Panics()
    lines = [line for number in range(PLACES + 5) for line in panic(f"src/a.rs:{number}:1")]
    assert len(list(panics.without_repeats(lines))) == 2 * PLACES


def test_what_is_passed_on_steers_no_terminal_and_holds_no_secret(capfd: pytest.CaptureFixture[str]) -> None:
    ours, theirs = os.pipe()
    thread = pass_on(os.fdopen(ours, "rb"))
    os.write(theirs, b"title \x1b]0;x\x07 \xff\n\nhttps://me:hunter2@host/path\n")
    os.close(theirs)
    thread.join()
    said = capfd.readouterr().err
    assert said.startswith("title \\x1b]0;x\\x07 \\xff\n") and "hunter2" not in said and "host/path" in said
