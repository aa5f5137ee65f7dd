"""Answers in a store: the first that is put is everybody's, whoever asks, whoever is killed, and what they took adds up."""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable, Generator, Mapping, Sequence
from pathlib import Path

import pytest

from gristmill.errors import InputError, Stopped
from gristmill.storage.store import open_store
from pipeline.journal import Answer, Ask
from pipeline.units import answers as module
from pipeline.units.answers import StoredAnswers

SUBJECT = {"who": "the oracle"}


def journal(root: Path, shard: str = "a.txt", alive: Callable[[], None] = lambda: None, asking: bool = True) -> StoredAnswers:
    return StoredAnswers(open_store(str(root)), SUBJECT, shard, alive, asking=asking)


def saying(word: str, seen: list[str] | None = None) -> Ask:
    def ask(keys: Sequence[str]) -> Generator[Mapping[str, Answer], None, None]:
        for key in keys:
            if seen is not None:
                seen.append(key)
            yield {key: Answer(f"{word} {key}", {"letters": len(key)})}

    return ask


def words(found: Mapping[str, Answer]) -> list[str]:
    return [answer.content for answer in found.values()]


def chunks(root: Path) -> list[Path]:
    return sorted(root.glob("answers/*/*/*.jsonl.gz"))


def test_what_is_kept_is_not_asked_again(tmp_path: Path) -> None:
    seen: list[str] = []
    first = journal(tmp_path)
    assert words(first.answers(["x", "y", "x"], saying("one", seen))) == ["one x", "one y"] and seen == ["x", "y"]
    assert words(first.answers(["y", "z"], saying("two", seen))) == ["one y", "two z"] and seen == ["x", "y", "z"]
    again = journal(tmp_path)
    assert words(again.answers(["z", "y", "x"], saying("three", seen))) == ["two z", "one y", "one x"] and len(seen) == 3
    assert [path.name for path in chunks(tmp_path)] == ["00000001.jsonl.gz", "00000002.jsonl.gz"]
    assert words(journal(tmp_path, "b.txt").answers(["x"], saying("of b"))) == ["of b x"]
    (about,) = tmp_path.glob("answers/*/about.json")
    assert json.loads(about.read_text()) == SUBJECT


def test_of_two_who_ask_at_once_the_first_to_put_answers_for_both(tmp_path: Path) -> None:
    one, other = journal(tmp_path), journal(tmp_path)
    inner: list[str] = []

    def slowly(keys: Sequence[str]) -> Generator[Mapping[str, Answer], None, None]:
        yield from saying("one")(keys)
        inner.extend(words(other.answers(["y", "z"], saying("other"))))  # while the first has not put its own

    assert words(one.answers(["x", "y"], slowly)) == ["one x", "other y"]
    assert inner == ["other y", "other z"]
    assert words(one.answers(["z"], saying("never"))) == ["other z"], "it has read the winner's chunk"
    assert words(journal(tmp_path).answers(["x", "y", "z"], saying("never"))) == ["one x", "other y", "other z"]
    assert one.spent() == other.spent() == {"letters": 3}, "an answer that gave way is nobody's"


def test_answers_before_an_error_are_kept(tmp_path: Path) -> None:
    def breaking(keys: Sequence[str]) -> Generator[Mapping[str, Answer], None, None]:
        yield from saying("one")(keys[:2])
        raise Stopped("no more")

    with pytest.raises(Stopped, match="no more"):
        journal(tmp_path).answers(["x", "y", "z"], breaking)
    seen: list[str] = []
    assert words(journal(tmp_path).answers(["x", "y", "z"], saying("two", seen))) == ["one x", "one y", "two z"]
    assert seen == ["z"]


def test_answers_are_put_as_they_come_and_signs_of_life_given(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "CHUNK", 3)
    monkeypatch.setattr(module, "LIFE_S", 0.0)
    lives: list[int] = []
    found = journal(tmp_path, alive=lambda: lives.append(len(chunks(tmp_path))))
    found.answers([str(number) for number in range(8)], saying("one"))
    assert len(chunks(tmp_path)) == 3 and lives == [0, 0, 0, 1, 1, 1, 2, 2]


def test_what_was_spent_is_that_of_all_shards_and_used_is_that_of_one(tmp_path: Path) -> None:
    one, other = journal(tmp_path), journal(tmp_path, "b.txt")
    one.answers(["x", "yy"], saying("one"))
    other.answers(["zzz"], saying("other"))
    assert one.spent() == other.spent() == {"letters": 6}
    assert one.account() == {"answers": 2, "letters": 3} and journal(tmp_path).account() == {}
    later = journal(tmp_path)
    later.answers(["yy"], saying("never"))
    later.answers(["yy"], saying("never"))
    assert later.account() == {"answers": 1, "letters": 2}, "each answer once, however often it was looked at"


def test_a_writer_killed_before_it_told_what_a_chunk_took_is_made_up_for(tmp_path: Path) -> None:
    journal(tmp_path).answers(["xxxx"], saying("one"))
    (told,) = tmp_path.glob("answers/*/spent/*")
    told.unlink()
    after = journal(tmp_path)
    assert after.spent() == {}
    after.answers(["xxxx"], saying("never"))
    assert after.spent() == {"letters": 4} and told.exists()


def test_nobody_is_asked_about_a_finished_build(tmp_path: Path) -> None:
    journal(tmp_path).answers(["x"], saying("one"))
    looking = journal(tmp_path, asking=False)
    assert words(looking.answers(["x"], saying("never"))) == ["one x"]
    with pytest.raises(InputError, match="no answer is kept to 1 of 2 questions"):
        looking.answers(["x", "y"], saying("never"))


@pytest.mark.parametrize(
    "damage",
    [
        lambda data: data[:-9],
        lambda data: data[:30] + bytes([data[30] ^ 1]) + data[31:],
        lambda data: b"no gzip",
        lambda data: gzip.compress(b'{"key": "x"}\n'),
        lambda data: gzip.compress(b"[1]\n"),
    ],
)
def test_a_damaged_chunk_is_named_and_may_be_deleted(damage: Callable[[bytes], bytes], tmp_path: Path) -> None:
    journal(tmp_path).answers(["x"], saying("one"))
    journal(tmp_path).answers(["y"], saying("one"))
    path = chunks(tmp_path)[0]
    path.chmod(0o644)
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(InputError, match=f"{path.name} is damaged .*; delete it: what it answered is asked again"):
        journal(tmp_path).answers(["x"], saying("two"))
    path.unlink()
    assert words(journal(tmp_path).answers(["x", "y"], saying("two"))) == ["two x", "one y"]
