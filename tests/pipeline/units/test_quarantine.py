"""What is on record of a document in quarantine: kinds that can be counted, one short line that is safe to print."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pytest

from gristmill.errors import ENDINGS
from pipeline.engines.panics import Panics
from pipeline.stage import Map, Transform
from pipeline.units.bisection import work_through
from pipeline.units.flow import Flow, StageRun
from pipeline.units.quarantine import reason_of, reason_of_exception
from tests.toy import documents


@pytest.mark.parametrize(
    ("message", "kind", "kept"),
    [
        ("bad_gzip: after 12 bytes", "bad_gzip", "bad_gzip: after 12 bytes"),
        ("undecodable", "undecodable", "undecodable"),
        ("undecodable:", "undecodable", "undecodable"),
        ("not_utf8: at byte 3: 0xff", "not_utf8", "not_utf8: at byte 3: 0xff"),
        ("RecursionError: too deep", "RecursionError", "RecursionError: too deep"),
        ("chunk of 7 bytes: no", "error", "error: chunk of 7 bytes: no"),
        ("http://a.test/x: no", "error", "error: http://a.test/x: no"),
        ("12: no", "error", "error: 12: no"),
        ("row_12: no", "error", "error: row_12: no"),
        ("Two Words: no", "error", "error: Two Words: no"),
        ("", "error", "error: "),
        ("error: of no kind", "error", "error: of no kind"),
    ],
)
def test_a_kind_is_one_word_before_the_first_colon(message: str, kind: str, kept: str) -> None:
    assert reason_of(message) == (kind, kept)


def test_a_word_that_is_too_long_is_no_kind() -> None:
    assert reason_of("a" * 61 + ": x")[0] == "error"
    assert reason_of("a" * 60 + ": x")[0] == "a" * 60


@pytest.mark.parametrize("length", [190, 199, 200, 201, 799, 801, 5_000_000])
def test_a_message_has_at_most_200_characters_and_an_ellipsis_tells_of_more(length: int) -> None:
    whole = "bad_gzip: ".ljust(length, "é")
    kind, kept = reason_of(whole)
    assert kind == "bad_gzip" and len(kept) == min(length, 200)
    assert kept == whole if length <= 200 else kept.endswith("…") and whole.startswith(kept[:-1])


def test_a_message_is_one_line_without_unseen_characters() -> None:
    said = "bad_head: a\x1b[31mred\r\n\tb\u202ec\u2028d\x07e\ud83d"
    assert reason_of(said) == ("bad_head", "bad_head: a\ufffd[31mred b\ufffdc d\ufffde\ufffd")


def test_an_address_in_memory_is_left_out() -> None:
    assert reason_of_exception(TypeError(f"{object()!r} is no page"))[1] == "TypeError: <object object at 0x…> is no page"


class Panic(BaseException):
    """What a library in Rust raises: not an Exception."""


@pytest.mark.parametrize("error", [ValueError(""), ValueError("x" * 999), Panic("at byte 4"), KeyError("\ud800\n")])
def test_the_kind_of_an_exception_is_its_class(error: BaseException) -> None:
    kind, kept = reason_of_exception(error)
    assert kind == type(error).__name__ and kept.startswith(kind) and len(kept) <= 200
    pa.array([kept])  # it can be written


@dataclass(frozen=True, kw_only=True)
class Says(Map):
    """Gives each document its text as its error."""

    def open(self) -> Transform:
        def work(docs: pa.Table) -> pa.Table:
            return docs.append_column("error", pa.array([text or None for text in docs["text"].to_pylist()], pa.string()))

        return work


def test_the_ledger_counts_kinds_whatever_the_messages_hold() -> None:
    lines = ["no_body: of 12", "no_body: of 3", "", "it is\nno kind: 3", "x: " + "long " * 9000]
    run = StageRun("says", Says(), Says().open())
    flow = Flow([run])
    kept = list(flow.stream(iter([(0, documents("f", lines))])))
    flow.finish()
    assert [table.num_rows for table in kept] == [1]
    assert run.tally.quarantined == {"no_body": 2, "error": 1, "x": 1}
    lost = flow.quarantined().to_pylist()
    assert [row["reason"] for row in lost] == ["no_body", "no_body", "error", "x"]
    assert lost[2]["detail"] == "error: it is no kind: 3" and len(lost[3]["detail"]) == 200


@dataclass(frozen=True, kw_only=True)
class Breaks(Map):
    """Raises on a text."""

    error: type[BaseException] = Panic

    def open(self) -> Transform:
        def work(docs: pa.Table) -> pa.Table:
            if "bad" in docs["text"].to_pylist():
                raise self.error("a pattern went back too often")
            return docs

        return work


@pytest.mark.parametrize("careful", [False, True])
def test_what_panics_is_quarantined_like_what_raises(careful: bool) -> None:
    stage = Breaks()
    done = work_through("breaks", stage, stage.open(), documents("f", ["a", "bad", "c", "d"]), {}, None, careful)
    assert done.table["text"].to_pylist() == ["a", "c", "d"]
    assert [table.select(["reason", "detail"]).to_pylist() for table in done.lost] == [
        [{"reason": "Panic", "detail": "Panic: a pattern went back too often"}]
    ]


@pytest.mark.parametrize("ending", ENDINGS)
def test_what_ends_a_process_is_no_documents_error(ending: type[BaseException]) -> None:
    stage = Breaks(error=ending)
    with pytest.raises(ending):
        work_through("breaks", stage, stage.open(), documents("f", ["a", "bad"]), {}, None, False)


def panic(place: str, message: str = "it broke", trace: bool = True) -> list[str]:
    header = ["", f"thread '<unnamed>' (17) panicked at {place}:", message]
    frames = ["stack backtrace:", "   0: rust_begin_unwind", "      at /src/a.rs:3:4", "note: run with RUST_BACKTRACE=full"]
    return header + (frames if trace else [])


def heard(*lines: str) -> list[str]:
    def stream() -> Iterator[bytes]:
        return (line.encode() + b"\n" for line in lines)

    return [line.decode().rstrip("\n") for line in Panics().without_repeats(stream())]


def test_of_panics_each_place_is_told_once_and_nothing_else_is_lost() -> None:
    said = ["before", *panic("a.rs:1:2"), "between", *panic("a.rs:1:2", trace=False), "after", *panic("b.rs:9:9"), "end"]
    first, second = (panic(place)[1:3] for place in ("a.rs:1:2", "b.rs:9:9"))
    assert heard(*said) == ["before", *first, "between", "after", *second, "end"]


def test_lines_that_look_like_a_backtrace_are_kept_elsewhere() -> None:
    lines = ["stack backtrace:", "   0: of something else", "note: the backtrace is above"]
    assert heard(*lines) == lines


def test_a_thousand_places_are_no_flood() -> None:
    assert len(heard(*(line for n in range(1000) for line in panic(f"a.rs:{n}:1")))) == 200


@pytest.mark.parametrize("pattern", [r"(a+)+d|\s+|\w+"])
def test_a_pattern_that_panics_when_the_encoder_is_tried_is_a_message_about_the_tokenizer(pattern: str, tmp_path: Path) -> None:
    from tokenizers import Regex, Tokenizer, models, pre_tokenizers, trainers

    from gristmill.errors import InputError
    from stages.encode.encode import Encode

    made = Tokenizer(models.BPE())
    cut = pre_tokenizers.Split(Regex(pattern), "isolated")
    made.pre_tokenizer = pre_tokenizers.Sequence([cut, pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])
    special = ["<|endoftext|>"]
    trainer = trainers.BpeTrainer(
        vocab_size=258, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), special_tokens=special, show_progress=False
    )
    made.train_from_iterator(["xy zz"], trainer)
    file = tmp_path / "odd.json"
    made.save(str(file))
    with pytest.raises(InputError, match=r"odd\.json.*PanicException.*pattern"):
        Encode(tokenizer=str(file)).open()
