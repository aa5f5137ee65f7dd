"""Extraction against the engines called directly, and pages that must not hang or crash it."""

import time
from pathlib import Path

import pyarrow as pa
import pytest
from fastwarc.warc import ArchiveIterator, WarcRecordType
from resiliparse.extract.html2text import extract_plain_text

from stages.extract.html import ExtractHtml

CRAWL = Path(__file__).parents[3] / "examples" / "crawl" / "docs-00000.warc.gz"


def pages(count):
    with CRAWL.open("rb") as file:
        records = ArchiveIterator(file, record_types=WarcRecordType.response)
        return [record.reader.read().decode("utf-8", "replace") for record, _ in zip(records, range(count), strict=False)]


PAGES = pages(60)


def docs(texts, media="text/html"):
    return pa.table({"media": [media] * len(texts), "text": texts, "extra": range(len(texts))})


def run(texts, media="text/html", **options):
    return ExtractHtml(**options).open()(docs(texts, media))


@pytest.mark.parametrize("main_content", [True, False])
def test_resiliparse_gives_what_it_gives_when_called_directly(main_content):
    found = run(PAGES, main_content=main_content)
    expected = [
        extract_plain_text(page, main_content=main_content, comments=False, alt_texts=False, preserve_formatting=True)
        for page in PAGES
    ]
    assert found["text"].to_pylist() == expected
    assert set(found["media"].to_pylist()) == {"text/plain"}
    assert found["extra"].to_pylist() == list(range(len(PAGES)))


def test_trafilatura_gives_what_it_gives_when_called_directly():
    import trafilatura

    some = PAGES[:8]
    expected = [trafilatura.extract(page, favor_precision=True, include_comments=False, deduplicate=False) or "" for page in some]
    assert run(some, engine="trafilatura")["text"].to_pylist() == expected


@pytest.mark.parametrize("engine", ["resiliparse", "trafilatura"])
def test_batches_and_repetition_do_not_change_what_comes(engine):
    some = PAGES[:6] * 2  # the same page again: nothing may be remembered
    whole = run(some, engine=engine)
    transform = ExtractHtml(engine=engine).open()
    table = docs(some)
    split = pa.concat_tables([transform(table.slice(start, 5)) for start in range(0, len(some), 5)])
    assert whole.equals(split)
    assert whole["text"][:6].to_pylist() == whole["text"][6:].to_pylist()


def test_text_that_is_no_markup_passes_unchanged():
    found = run(["a <b> c", "<p>not markup"], "text/plain")
    assert found["text"].to_pylist() == ["a <b> c", "<p>not markup"]
    assert found["drop"].to_pylist() == [None, None]


@pytest.mark.parametrize("engine", ["resiliparse", "trafilatura"])
@pytest.mark.parametrize("markup", ["", " \n", "<html></html>", "<script>x()</script>", "<!-- note -->", "\0"])
def test_pages_without_text_are_dropped(engine, markup):
    found = run([markup], engine=engine)
    assert found["drop"].to_pylist() == ["no_text"]
    assert found["media"].to_pylist() == ["text/plain"]


def test_no_rows_in_no_rows_out():
    empty = docs(["x"]).slice(0, 0)
    found = ExtractHtml().open()(empty)
    assert found.num_rows == 0
    assert found.schema.field("drop").type == pa.string()


@pytest.mark.parametrize(("depth", "drop"), [(512, None), (513, "too_deep"), (200_000, "too_deep")])
def test_depth_is_bounded_exactly(depth, drop):
    # html and body are elements, too. Not the main content, which may well be found empty.
    found = run(["<div>" * (depth - 2) + "text " * 20], main_content=False)
    assert found["drop"].to_pylist() == [drop]


def test_elements_that_tags_imply_count():
    found = run(["<table><td>" * 127 + "text", "<table><td>" * 128 + "text"], main_content=False)
    assert found["drop"].to_pylist() == [None, "too_deep"]


def test_a_wide_page_with_many_tags_is_not_deep():
    assert run(["<p>some words of text here</p>" * 2000])["drop"].to_pylist() == [None]


def test_size_is_bounded():
    page = "<p>some words of text here</p>" * 10
    assert run([page, page + "x"], max_chars=len(page))["drop"].to_pylist() == [None, "too_long"]


@pytest.mark.parametrize(
    "markup",
    [
        "<table><tr><td>" * 60_000,
        "<b><i>" * 20_000,
        "<a><p>" * 5_000,
        "<" * 1_000_000,
        "&" * 1_000_000,
        "<!--" + "-" * 1_000_000,
        "<p class='" + "a " * 500_000 + "'>x",
        "<select>" * 10_000 + "<option>" * 10_000,
        "<svg><foreignObject>" * 10_000,
        "<p>a\0b\ufffe\U0010ffff</p>" * 1000,
    ],
)
def test_odd_pages_take_no_time(markup):
    started = time.process_time()
    found = run([markup])
    assert found["text"].null_count == 0
    assert time.process_time() - started < 5


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"engine": "trafilatura", "main_content": False}, "main_content: false needs engine: resiliparse"),
        ({"favor": "recall"}, "favor: recall needs engine: trafilatura"),
        ({"max_depth": 0}, "max_depth is 0"),
        ({"max_chars": -1}, "max_chars is -1"),
    ],
)
def test_parameters_that_contradict_each_other_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        ExtractHtml(**options)
