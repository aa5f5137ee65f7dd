"""The work: one folder a family, in the order that documents meet them; `STAGES` names every stage.

A name in a config is a key of this dict. Families never import each other; they meet in `pipeline.schema`.
"""

from __future__ import annotations

from pipeline.stage import Save, Stage
from stages.classify.buckets import Buckets
from stages.classify.classify import Classify
from stages.classify.join import Join
from stages.classify.upsample import Upsample
from stages.dedup.exact import DedupExact
from stages.dedup.minhash import DedupMinhash
from stages.encode.encode import Encode
from stages.extract.html import ExtractHtml
from stages.filter.heuristics import C4Quality, FinewebQuality, GopherQuality, GopherRepetition
from stages.filter.keep_if import KeepIf
from stages.filter.language import Language
from stages.filter.language_threshold import LanguageThreshold
from stages.filter.languages import Languages
from stages.filter.words import WordList
from stages.rephrase.rephrase import Rephrase
from stages.score.lm import ScoreLm
from stages.score.ngram import ScoreNgram
from stages.score.select import Select
from stages.sink.documents import Documents
from stages.sink.shards import Shards
from stages.sink.sidecars import Sidecars
from stages.source.jsonl import JsonlSource
from stages.source.parquet import ParquetSource
from stages.source.text import TextSource
from stages.source.tokens import TokensSource
from stages.source.warc import WarcSource

STAGES: dict[str, type[Stage]] = {
    "warc": WarcSource,
    "jsonl": JsonlSource,
    "parquet": ParquetSource,
    "text": TextSource,
    "tokens": TokensSource,
    "extract_html": ExtractHtml,
    "language": Language,
    "languages": Languages,
    "language_threshold": LanguageThreshold,
    "gopher_repetition": GopherRepetition,
    "gopher_quality": GopherQuality,
    "c4_quality": C4Quality,
    "fineweb_quality": FinewebQuality,
    "classify": Classify,
    "join": Join,
    "buckets": Buckets,
    "word_list": WordList,
    "keep_if": KeepIf,
    "dedup_exact": DedupExact,
    "dedup_minhash": DedupMinhash,
    "rephrase": Rephrase,
    "encode": Encode,
    "score_ngram": ScoreNgram,
    "score_lm": ScoreLm,
    "select": Select,
    "upsample": Upsample,
    "save": Save,
    "shards": Shards,
    "documents": Documents,
    "sidecars": Sidecars,
}
