"""Decisions and reasons against datatrove's own filters, called as datatrove's pipeline calls them."""

import pyarrow as pa
import pytest
from datatrove.data import Document
from datatrove.pipeline.filters.base_filter import get_filter_result
from datatrove.pipeline.filters.c4_filters import C4QualityFilter
from datatrove.pipeline.filters.fineweb_quality_filter import FineWebQualityFilter
from datatrove.pipeline.filters.gopher_quality_filter import GopherQualityFilter
from datatrove.pipeline.filters.gopher_repetition_filter import GopherRepetitionFilter

from pipeline.finding import Finding, Limit
from stages.filter.heuristics import C4Quality, FinewebQuality, GopherQuality, GopherRepetition

SMALL = 20
FILTERS = [
    (GopherRepetition, GopherRepetitionFilter),
    (GopherQuality, GopherQualityFilter),
    (FinewebQuality, FineWebQualityFilter),
]
PROSE = "The people of the town have always said that the river is to be crossed with care, and that it will rise in spring. "


def docs(texts, languages=None):
    columns = {"text": pa.array(texts, pa.string())}
    if languages is not None:
        columns["language"] = pa.array(languages, pa.string())
    return pa.table(columns)


def reference(judge, text):
    kept, reason = get_filter_result(judge.filter(Document(text=text, id="")))
    return None if kept else reason


@pytest.fixture(scope="module")
def some(crawl_texts):
    """Documents of moderate length: datatrove takes long for the others."""
    prose = [text for text in crawl_texts if len(text) < 6_000][:SMALL]
    return [*prose, "", " \n", "word", "...", "#" * 80, "- a\n" * 60, PROSE * 9]


@pytest.mark.parametrize(("stage", "peer"), FILTERS)
def test_decisions_and_reasons_equal_datatroves_for_any_batch(some, stage, peer):
    judge = stage().open()
    own = peer()
    found = judge(docs(some)).to_pylist()
    assert found == [reference(own, text) for text in some]
    assert len(set(found)) > 2
    split = pa.concat_arrays([judge(docs(some).slice(start, 7)) for start in range(0, len(some), 7)])
    assert split.to_pylist() == found


@pytest.mark.parametrize(("stage", "peer"), FILTERS)
def test_words_are_split_in_the_language_of_the_document(crawl_texts, stage, peer):
    texts = [text for text in crawl_texts if len(text) < 5_000][-8:]
    for language in ("fr", "tr"):
        options = {"min_stop_words": None} if peer is GopherQualityFilter else {}
        own = peer(language=language, **options)
        expected = [reference(own, text) for text in texts]
        assert stage().open()(docs(texts, [language] * len(texts))).to_pylist() == expected
        options = {"min_stop_words": 0} if peer is GopherQualityFilter else {}
        assert stage(language=language, **options).open()(docs(texts)).to_pylist() == expected


def test_stop_words_are_asked_of_english_only_unless_given():
    german = "Der Fluss steigt im Frühling, und die Leute der Stadt haben stets gesagt, dass man ihn mit Vorsicht quert. " * 6
    table = docs([german, german], ["de", "en"])
    assert GopherQuality().open()(table).to_pylist() == [None, "gopher_enough_stop_words"]
    assert GopherQuality(stop_words=("the", "of")).open()(table).to_pylist() == ["gopher_enough_stop_words"] * 2
    assert GopherQuality(stop_words=("die", "und")).open()(table).to_pylist() == [None, None]


@pytest.mark.parametrize("language", ["zh", "ja", "th", "ko", "vi", "hi", "tl", "no-such-code"])
@pytest.mark.parametrize("stage", [GopherQuality, GopherRepetition, FinewebQuality])
def test_languages_without_a_splitter_are_named(stage, language):
    assert stage().open()(docs([PROSE * 9], [language])).to_pylist() == ["no_word_splitter"]


def test_documents_whose_language_is_null_are_read_as_the_default():
    judge = GopherQuality().open()
    assert judge(docs([PROSE * 9, "short"], [None, None])).to_pylist() == [None, "gopher_short_doc"]


@pytest.mark.parametrize(
    ("options", "text", "reason"),
    [
        ({"min_doc_words": 500}, PROSE * 9, "gopher_short_doc"),
        ({"max_doc_words": 60}, PROSE * 9, "gopher_long_doc"),
        ({"min_avg_word_length": 6}, PROSE * 9, "gopher_below_avg_threshold"),
        ({"max_avg_word_length": 3}, PROSE * 9, "gopher_above_avg_threshold"),
        ({"min_doc_words": None, "min_avg_word_length": None, "min_stop_words": None}, "Hello you", None),
    ],
)
def test_parameters_reach_the_rules(options, text, reason):
    assert GopherQuality(**options).open()(docs([text])).to_pylist() == [reason]


def explained(stage, text, language=None):
    """Return what the stage says of one text: its findings by name, and the name of the one that decided."""
    before = docs([text], None if language is None else [language])
    found = stage.explain(before, before.append_column("drop", stage.open()(before)))
    return {each.name: each for each in found}, next((each.name for each in found if each.decisive), None)


DECIDING = {
    "gopher_short_doc": "words",
    "gopher_long_doc": "words",
    "gopher_below_avg_threshold": "mean_word_length",
    "gopher_above_avg_threshold": "mean_word_length",
    "gopher_too_many_hashes": "hashes_per_word",
    "gopher_too_many_ellipsis": "ellipses_per_word",
    "gopher_too_many_bullets": "bullet_lines",
    "gopher_too_many_end_ellipsis": "ellipsis_lines",
    "gopher_below_alpha_threshold": "alpha_words",
    "gopher_enough_stop_words": "stop_words",
    "line_punct_ratio": "lines_ending_a_sentence",
    "short_line_ratio": "short_lines",
    "char_dup_ratio": "characters_in_duplicate_lines",
    "list_ratio": "newlines_per_word",
    "dup_para_frac": "duplicate_paragraphs",
    "dup_para_char_frac": "characters_in_duplicate_paragraphs",
    "dup_line_frac": "duplicate_lines",
    "dup_line_char_frac": "characters_in_duplicate_lines",
    "empty": None,
    None: None,
    **{f"top_{n}_gram": f"top_{n}_gram" for n in (2, 3, 4)},
    **{f"duplicated_{n}_n_grams": f"duplicate_{n}_grams" for n in range(5, 11)},
}


@pytest.mark.parametrize("stage", [GopherRepetition, GopherQuality, FinewebQuality])
def test_the_number_that_decided_is_the_one_of_the_reason(some, stage):
    short = [text for text in some if len(text) < 2_000]
    reasons = stage().open()(docs(short)).to_pylist()
    assert len(set(reasons)) > 2
    for text, reason in zip(short, reasons, strict=True):
        found, deciding = explained(stage(), text)
        assert deciding == DECIDING[reason], reason
        if deciding is not None:
            assert next(limit.relation for limit in found[deciding].limits if limit.broken) in ("below", "above")


def test_each_number_has_its_limits():
    found, _ = explained(GopherQuality(), PROSE * 9)
    words = len(PROSE.split()) * 9
    assert found["words"].value == words and found["mean_word_length"].value == pytest.approx(3.9, abs=0.2)
    assert [(limit.parameter, limit.value, limit.relation) for limit in found["words"].limits] == [
        ("min_doc_words", 50, "passes"),
        ("max_doc_words", 100_000, "passes"),
    ]
    assert [limit.parameter for limit in found["alpha_words"].limits] == ["max_non_alpha_words_ratio"]
    assert found["stop_words"].value == 8 and len(found) == 8
    assert "stop_words" not in explained(GopherQuality(), PROSE * 9, "fr")[0], "the English ones say nothing of French"
    assert len(explained(GopherQuality(max_bullet_lines_ratio=None), PROSE * 9)[0]) == 7


def test_numbers_behind_the_rule_that_decided_are_told_too():
    found, deciding = explained(GopherQuality(), "- a b\n" * 10)
    assert deciding == "words" and found["words"].limits[0].relation == "below"
    assert found["bullet_lines"].limits[0].relation == "above" and found["bullet_lines"].value == 1


def test_pairs_have_a_limit_for_each_n():
    found, deciding = explained(GopherRepetition(), "one two three four. " * 40)
    assert deciding == "top_2_gram" and found["top_2_gram"].limits[0].parameter == "top_n_grams[2]"
    assert found["duplicate_10_grams"].limits[0].value == 0.10


def test_a_text_whose_words_cannot_be_split_has_no_numbers():
    assert explained(GopherQuality(), "文字", "zh") == ({}, None)


def test_c4_tells_which_lines_went():
    text = PROSE * 3 + "\nno end\nuses cookies on the page.\nToo few.\n" + PROSE
    before = docs([text])
    found = {each.name: each for each in C4Quality().explain(before, C4Quality().open()(before))}
    assert found["sentences"].value == 4 and found["sentences"].decisive and found["sentences"].limits[0].relation == "below"
    counts = {name: each.value for name, each in found.items() if name.startswith("lines")}
    assert counts == {"lines": 5, "lines_kept": 2, "lines_no_terminal_punc": 1, "lines_policy": 1, "lines_too_few_words": 1}
    assert [limit.parameter for limit in found["lines_too_few_words"].limits] == ["min_words_per_line"]
    for text, reason in (("lorem ipsum dolor sit.", "lorem_ipsum"), ("a { b c.", "curly_bracket")):
        before = docs([text])
        first, *others = C4Quality().explain(before, C4Quality().open()(before))
        limit = Limit(f"filter_{reason}", True, "by", broken=True)
        assert first == Finding(reason, "found", (limit,), decisive=True) and not any(each.decisive for each in others)


def test_c4_rewrites_and_drops_as_datatrove_does(some):
    texts = [
        *some,
        PROSE * 2 + "\n" + PROSE * 3 + "\nno end\nuses cookies on the page.\n" + PROSE + "[12]",
        "lorem ipsum dolor sit.",
        "a { b c.",
    ]
    found = C4Quality().open()(docs(texts))
    own = C4QualityFilter()
    for text, after, drop in zip(texts, found["text"].to_pylist(), found["drop"].to_pylist(), strict=True):
        document = Document(text=text, id="")
        kept, reason = get_filter_result(own.filter(document))
        assert (after, drop) == ((document.text, None) if kept else (text, reason))
    assert {None, "too_few_sentences", "lorem_ipsum", "curly_bracket"} <= set(found["drop"].to_pylist())
    assert "cookies" not in found["text"][len(some)].as_py()
    assert C4Quality().open()(docs([PROSE], ["zh"]))["drop"].to_pylist() == ["no_word_splitter"]


@pytest.mark.parametrize("stage", [GopherQuality, GopherRepetition, FinewebQuality])
def test_no_rows_in_no_reasons_out(stage):
    assert stage().open()(docs([])).to_pylist() == []


def test_nothing_is_written_to_standard_error(capfd):
    GopherQuality().open()(docs([PROSE * 9]))
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: GopherQuality(min_doc_words=10, max_doc_words=5), "min_doc_words is 10, above max_doc_words = 5"),
        (lambda: GopherQuality(max_bullet_lines_ratio=90), "max_bullet_lines_ratio is 90; it is a share"),
        (lambda: GopherRepetition(dup_line_frac=-1), "dup_line_frac is -1"),
        (lambda: GopherRepetition(top_n_grams=((0, 0.1),)), "top_n_grams"),
        (lambda: FinewebQuality(line_punct_thr=2), "line_punct_thr is 2"),
        (lambda: GopherQuality(language="zh"), "language: 'zh' has no word splitter"),
    ],
)
def test_mistakes_are_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make().check()
