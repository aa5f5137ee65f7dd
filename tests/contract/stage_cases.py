"""Every stage with parameters to test it with; the documents it is given are in `world.py`."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from gristmill.models.causal_lm.parameters import CausalLm
from gristmill.models.fasttext.fasttext import FastText
from gristmill.models.language_id import LanguageId
from gristmill.models.linear.linear import Linear
from gristmill.models.ngram.file import NgramFile
from gristmill.rephrasing.endpoint import Endpoint
from gristmill.selection.policy import Cap, Policy, Term
from gristmill.selection.schemes import Scheme
from stages.classify.buckets import Edges, Quantiles
from stages.classify.join import Joined
from stages.classify.kinds import FastTextModel, LinearModel
from stages.classify.upsample import Bytes, Group, Share, Tokens
from stages.rephrase.rephrase import PromptFor
from stages.score.ngram import Curated, Ngram

ANNOTATIONS = "<annotations>"
CLASSIFIER = FastText(path="<a fastText classifier>")
LINEAR = Linear(path="<a linear classifier>")
TOKENIZER, OTHER_TOKENIZER = "<the tokenizer>", "<another tokenizer>"
TINY = CausalLm(path="<a model of another tokenizer>", window=128, overlap=16, pack_tokens=1024, first_token="bos")


ON_A_BUILD = ("tokens", "sidecars")
"""Stages that work on a finished build and have no meaning without one: tests/stages/sink/test_sidecars.py has theirs."""


@dataclass(frozen=True)
class Case:
    """Parameters of a stage. `one`: sets that run; the first is what `other` differs from, by one parameter each.

    `other` names every parameter of the stage; what must change along with it stands beside it.
    """

    one: Sequence[Mapping[str, Any]] = ({},)
    other: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)


def one_each(**values: Any) -> dict[str, dict[str, Any]]:
    return {name: {name: value} for name, value in values.items()}


CASES: dict[str, Case] = {
    "warc": Case(other=one_each(max_record_bytes=1 << 20, max_replaced=0.1)),
    "jsonl": Case(
        other=one_each(text_key="content", url_key="address", date_key="when", max_line_bytes=1 << 20, carry=("source",))
    ),
    "parquet": Case(other=one_each(text_column="content", url_column="address", date_column="when", carry={"source": "string"})),
    "text": Case(
        [{}, {"per": "blank_line"}], one_each(per="file", max_document_bytes=1 << 20, encoding="latin1", max_replaced=0.1)
    ),
    "extract_html": Case(
        [{}, {"main_content": False, "comments": True, "links": True}, {"engine": "trafilatura", "favor": "recall"}],
        {
            **one_each(
                engine="trafilatura",
                main_content=False,
                comments=True,
                links=True,
                max_chars=99_999,
                max_depth=99,
                max_work=1 << 20,
            ),
            "favor": {"favor": "recall", "engine": "trafilatura"},
        },
    ),
    "language": Case(
        [{"keep": ("en", "fr")}, {"min_score": 0.0, "max_chars": 300}],
        one_each(keep=("fr", "en"), min_score=0.5, max_chars=10, normalize="none", model="<lid.176 elsewhere>"),
    ),
    "languages": Case(
        [
            {"identifiers": {"lid": LanguageId(), "bayes": LanguageId(model="py3langid")}, "keep": ("en", "fr"), "agree": 2},
            {"identifiers": {"start": LanguageId(max_chars=40), "all": LanguageId(normalize="none")}},
        ],
        one_each(identifiers={"lid": LanguageId(), "bayes": LanguageId()}, keep=("en",), agree=1),
    ),
    "language_threshold": Case(
        [{}, {"low": 0.0, "high": 1.0, "deviations": 0.0}],
        one_each(low=0.2, high=0.8, deviations=2.0, language="url", score="length"),
    ),
    "gopher_repetition": Case(
        other=one_each(
            dup_line_frac=0.2,
            dup_para_frac=0.2,
            dup_line_char_frac=0.1,
            dup_para_char_frac=0.1,
            top_n_grams=((2, 0.2),),
            dup_n_grams=((5, 0.15),),
            language="de",
            unless="language_score > 0.5",
        )
    ),
    "gopher_quality": Case(
        [{}, {"stop_words": ("der", "die"), "min_doc_words": None}],
        one_each(
            min_doc_words=49,
            max_doc_words=99_999,
            min_avg_word_length=2,
            max_avg_word_length=11,
            max_symbol_word_ratio=None,
            max_bullet_lines_ratio=0.8,
            max_ellipsis_lines_ratio=0.2,
            max_non_alpha_words_ratio=0.7,
            min_stop_words=1,
            stop_words=("the",),
            language="de",
            unless="language_score > 0.5",
        ),
    ),
    "c4_quality": Case(
        [{"min_num_sentences": 2}, {"split_paragraph": False, "filter_no_terminal_punct": False, "min_num_sentences": 1}],
        one_each(
            split_paragraph=False,
            remove_citations=False,
            filter_no_terminal_punct=False,
            min_num_sentences=4,
            min_words_per_line=2,
            max_word_length=999,
            filter_lorem_ipsum=False,
            filter_javascript=False,
            filter_curly_bracket=False,
            filter_policy=False,
            language="de",
            unless="language_score > 0.5",
        ),
    ),
    "fineweb_quality": Case(
        other=one_each(
            line_punct_thr=0.1,
            line_punct_exclude_zero=True,
            stop_chars=(".",),
            short_line_thr=0.6,
            short_line_length=20,
            char_duplicates_ratio=0.02,
            new_line_ratio=0.2,
            language="de",
            unless="language_score > 0.5",
        )
    ),
    "classify": Case(
        [
            {"models": {"prose": FastTextModel(fasttext=CLASSIFIER, label="prose")}},
            {
                "models": {
                    "kind": FastTextModel(fasttext=CLASSIFIER, best=True),
                    "each": FastTextModel(fasttext=dataclasses.replace(CLASSIFIER, max_chars=40), labels=("Q-A", "code")),
                }
            },
            {"models": {"linear": LinearModel(linear=LINEAR, best=True)}},
        ],
        one_each(models={"prose": FastTextModel(fasttext=CLASSIFIER, label="code")}),
    ),
    "join": Case(
        [
            {
                "tables": ANNOTATIONS,
                "columns": {"grade": "float32", "about": Joined(column="topic", type="string", default="none")},
            },
            {"tables": ANNOTATIONS, "columns": {"grade": "float64"}, "key": "id", "key_column": "document", "missing": "drop"},
        ],
        {
            **one_each(columns={"grade": "float32"}, missing="drop", duplicates="first", key="id", key_column="document"),
            "tables": {"tables": (ANNOTATIONS, CLASSIFIER.path)},
        },
    ),
    "buckets": Case(
        [
            {"scores": {"quality": Quantiles(quantiles=5)}},
            {
                "scores": {"quality": Quantiles(quantiles=4), "topic": Edges(edges=(-1.0, 0.0, 2.0), best="low")},
                "name": "level",
                "ensemble": {"quality": 1.0, "topic": 2.5},
                "levels": {"good": (2, 3), "bad": (0, 1)},
                "weight": "documents",
                "by": ("language", "file"),
                "min_documents": 4,
                "mantissa_bits": 3,
            },
        ],
        one_each(
            scores={"quality": Quantiles(quantiles=6)},
            name="part",
            ensemble="mean",
            levels={"all": (0, 4)},
            weight="documents",
            by=("language",),
            own_edges=False,
            min_documents=7,
            mantissa_bits=20,
        ),
    ),
    "word_list": Case(
        [
            {"words": ("the", "of the", "page"), "max_share": 0.1},
            {"name": "adult", "expletives": ("en", "zh"), "words": ("かな交", "word"), "max_words": 3},
        ],
        one_each(name="other", expletives=("de",), lists=("<words>",), words=("the",), max_words=2, max_share=0.2),
    ),
    "keep_if": Case(
        [
            {"where": "language in ('en', 'de') and language_score >= 0.5"},
            {"where": "case when length(text) > 900 then language_score > 0.9 end", "reason": "short", "unless": "url is null"},
        ],
        one_each(where="language_score >= 0.5", reason="low", unless="language_score > 0.9"),
    ),
    "dedup_exact": Case([{}, {"normalize": "whitespace"}], one_each(normalize="whitespace")),
    "dedup_minhash": Case(
        [{}, {"ngram": 2, "bands": 32, "rows": 2, "threshold": 0.1, "max_stars": 2}],
        one_each(ngram=4, bands=13, rows=7, threshold=0.7, max_stars=15, seed=1, normalize="none", fold_numbers=True),
    ),
    "rephrase": Case(
        [
            {"endpoint": Endpoint(url="http://127.0.0.1:1/v1"), "model": "m", "prompts": ("distill", "table")},
            {
                "endpoint": Endpoint(url="http://127.0.0.1:1/v1"),
                "model": "m",
                "prompts": (PromptFor(prompt="wikipedia", only="url is null"),),
            },
        ],
        {
            "endpoint": {},  # nothing of it changes what is built
            **one_each(
                model="n",
                prompts=("table", "distill"),
                only="length > 100",
                tokenizer=TOKENIZER,
                keep_original=True,
                temperature=0.0,
                seed=None,
                max_tokens=99,
                options={"top_p": 0.9},
                max_copied=0.5,
                same_language=False,
            ),
        },
    ),
    "encode": Case(
        [
            {"tokenizer": TOKENIZER},
            {"tokenizer": TOKENIZER, "bos": "<|endoftext|>", "eos": None},
            {"tokenizer": TOKENIZER, "inference": "least_tokens", "special_tokens_in_text": "token"},
        ],
        one_each(
            tokenizer=OTHER_TOKENIZER,
            bos="<|endoftext|>",
            eos=None,
            inference="longest_prefix",
            special_tokens_in_text="refuse",
            pattern="gpt2",
            special_tokens=(("<s>", 1000),),
        ),
    ),
    "score_ngram": Case(
        [
            {"models": {"base": Ngram(), "reference": Ngram(curated=Curated(column="language_score", at_least=0.9))}},
            {"models": {"long": Ngram(order=5, prune=(0, 0, 1), curated=Curated(column="length", at_least=4400))}, "folds": 3},
        ],
        one_each(models={"base": Ngram(order=4)}, folds=1),
    ),
    "score_lm": Case(
        [
            {"name": "tiny", "model": TINY, "tokenizer": TOKENIZER},
            {"name": "3-gram", "model": NgramFile(ngram_file="<an n-gram model>")},
        ],
        one_each(name="other", model=dataclasses.replace(TINY, overlap=8), tokenizer=OTHER_TOKENIZER),
    ),
    "select": Case(
        [
            {"policies": {"low": Policy(score=(Term(model="a"),), direction="low", keep=0.5)}},
            {
                "policies": {
                    "excess": Scheme(scheme="rho1_offline", base="b", reference="a", keep=0.6, unit="bytes", per="byte"),
                    "both": Scheme(scheme="self_reference", model="a", scope="shard"),
                    "hard": Scheme(scheme="eslm", model="b", cap=Cap(model="a", quantile=0.9)),
                    "soft": Policy(score=(Term(model="b"),), direction="high", keep=0.4, soft=0.5, scope="document"),
                    "pieces": Policy(score=(Term(model="a"),), direction="low", keep=0.3, scope="sequence", sequence_tokens=9),
                    "online": Scheme(scheme="rho1", reference="a"),
                },
                "tokenizer": TOKENIZER,
            },
        ],
        one_each(
            policies={"low": Policy(score=(Term(model="a"),), direction="low", keep=0.4)}, tokenizer=TOKENIZER, scores=False
        ),
    ),
    "upsample": Case(
        [
            {"score": "quality", "budget": Share(share=1.3), "zero_below": 0.2},
            {
                "score": "topic",
                "budget": Bytes(bytes=1500),
                "best": "low",
                "weight": "bytes",
                "by": "language",
                "groups": {"en": Group(budget=Share(share=1.5), cap=3.0, zero_below=0.0)},
                "slices": 5,
                "mantissa_bits": 4,
            },
        ],
        {
            **one_each(
                score="topic",
                budget=Tokens(tokens=9000),
                best="low",
                cap=2.5,
                zero_below=0.1,
                slices=4,
                weight="bytes",
                by="language",
                mantissa_bits=3,
            ),
            "groups": {"by": "language", "groups": {"en": Group(cap=3.0)}},
        },
    ),
    "save": Case(),
    "shards": Case(
        [{}, {"tokens_per_shard": 2000, "columns": ("language_score", "url", "language", "language_score"), "zst_copies": True}],
        one_each(tokens_per_shard=1, columns=("url",), zst_copies=True),
    ),
    "documents": Case([{}, {"bytes_per_shard": 10_000}], one_each(bytes_per_shard=1)),
}
RUNS = [(name, index) for name, case in CASES.items() for index in range(len(case.one))]
