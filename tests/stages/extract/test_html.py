"""Extraction against the engines called directly, and pages that must not hang or crash it."""

from collections import Counter
from pathlib import Path

import pyarrow as pa
import pytest
from fastwarc.warc import ArchiveIterator, WarcRecordType
from resiliparse.extract.html2text import extract_plain_text

from gristmill.html.cost import levels
from gristmill.html.mending import GUTTERS, NAVIGATION, plain_spaces
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
def test_all_that_resiliparse_gives_when_called_directly_comes_out(main_content):
    found = run(PAGES, main_content=main_content)
    for page, text in zip(PAGES, found["text"].to_pylist(), strict=True):
        skipped = [*NAVIGATION, *GUTTERS] if main_content else GUTTERS
        alone = extract_plain_text(
            page, main_content=main_content, comments=False, alt_texts=False, preserve_formatting=True, skip_elements=skipped
        )
        assert not Counter("".join(plain_spaces(alone).split())) - Counter(text)
    assert set(found["media"].to_pylist()) == {"text/plain"}
    assert found["extra"].to_pylist() == list(range(len(PAGES)))


def test_trafilatura_gives_what_it_gives_when_called_directly():
    import trafilatura

    some = PAGES[:8]
    expected = [trafilatura.extract(page, favor_precision=True, include_comments=False, deduplicate=False) or "" for page in some]
    expected = [plain_spaces(text) for text in expected]
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


@pytest.mark.timeout(60)  # many times what it takes; with the square of a page it would not end
@pytest.mark.parametrize(
    ("engine", "markup"),
    [
        ("resiliparse", "<div>" * 500 + "<p>some words of text here</p>" * 20_000),
        ("resiliparse", "<div class=a>" * 400 + "<b></b>" * 100_000),
        ("resiliparse", "<ul><li>a<li>b</ul>" * 50_000),
        ("resiliparse", "<aside>note</aside>" * 50_000),
        ("trafilatura", "<a href=x>some words</a> " * 50_000),
        ("trafilatura", "<ul>" + "<li><a href=x>some words</a>" * 30_000),
    ],
)
def test_pages_of_too_much_work_are_dropped_before_it(engine, markup):
    assert run([markup], engine=engine)["drop"].to_pylist() == ["too_complex"]


@pytest.mark.timeout(60)  # many times what it takes; with the square of a page it would not end
@pytest.mark.parametrize(
    "markup",
    [
        "<div>" * 500 + "<p>some words of text here</p>" * 4_000,
        "<ul><li>some words<li>of text</ul>" * 8_000,
        "<div>" + "<p>some text</p><ul><li>of a list</ul>" * 10_000,
        "<p>" + "<ruby>犬<rt>i</ruby>" * 8_000,
        "<p>" + "text and <time>5</time> and <b class=email>b</b> " * 8_000,
        "<script>" + "'<div>'" * 300_000 + "</script>" + "<p>some words of text here</p>" * 20,
    ],
)
def test_work_below_the_bound_is_done(markup):
    assert run([markup])["drop"].to_pylist() == [None]


def test_the_bound_of_work_is_a_parameter():
    page = "<p>some words of text here</p>" * 200
    assert run([page], max_work=1000)["drop"].to_pylist() == ["too_complex"]
    assert run([page], max_work=1 << 20)["drop"].to_pylist() == [None]


def test_levels_are_those_of_the_tree():
    parts = [
        ("<html>", 1),
        ("<body>", 2),
        ("<p>ab<br>c", 3),
        ("</p>", 2),
        ("<script>'<p>'</script>", 2),
        ("</body>", 1),
        ("</html>", 0),
    ]
    assert levels("".join(part for part, _ in parts)) == sum(len(part) * level for part, level in parts)


@pytest.mark.timeout(60)  # many times what it takes; with the square of a page it would not end
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
def test_odd_pages_end(markup):
    found = run([markup])
    assert found["text"].null_count == 0


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"engine": "trafilatura", "main_content": False}, "main_content: false needs engine: resiliparse"),
        ({"favor": "recall"}, "favor: recall needs engine: trafilatura"),
        ({"max_depth": 0}, "max_depth is 0"),
        ({"max_chars": -1}, "max_chars is -1"),
        ({"max_work": 0}, "max_work is 0"),
    ],
)
def test_parameters_that_contradict_each_other_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        ExtractHtml(**options)


def deciding(stage: ExtractHtml, markup: str, media: str = "text/html") -> tuple[dict[str, object], str | None]:
    """Return what the stage says of one page by name, and the name of what decided."""
    before = pa.table({"media": [media], "text": [markup]})
    found = stage.explain(before, stage.open()(before))
    return {each.name: each.value for each in found}, next((each.name for each in found if each.decisive), None)


def test_the_bounds_that_a_page_reached_are_told():
    page = "<html><body><article><p>Some prose, long enough to be the content of it.</p></article></body></html>"
    for stage in (ExtractHtml(), ExtractHtml(engine="trafilatura")):
        found, name = deciding(stage, page)
        assert name is None and found["depth"] == 4 and found["engine"] == stage.engine and found["text_chars"] > 40
    work = deciding(ExtractHtml(), page)[0]["work"]
    assert deciding(ExtractHtml(max_work=work), page)[1] is None
    found, name = deciding(ExtractHtml(max_work=work - 1), page)
    assert name == "work" and found["work"] == work, "the limit and the number are of one sum"
    assert deciding(ExtractHtml(max_depth=4), page)[1] is None
    assert deciding(ExtractHtml(max_depth=3), page)[1] == "depth"
    assert deciding(ExtractHtml(max_chars=len(page) - 1), page)[1] == "markup_chars"
    assert deciding(ExtractHtml(), "<p> </p>")[1] == "text_chars"
    assert deciding(ExtractHtml(), "plain", "text/plain") == ({"media": "text/plain"}, None)
    reopening = "".join(f"<b id={n}><p>" for n in range(5_000))
    assert deciding(ExtractHtml(), reopening)[1] == "elements_opened_again"
