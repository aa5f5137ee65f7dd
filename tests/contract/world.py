"""The documents that stages are given in tests, the files that their parameters name, and the ways to split tables."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.stage import Filter, Stage
from stages import STAGES
from stages.classify.buckets import Buckets
from stages.classify.upsample import Upsample
from stages.encode.encode import Encode
from stages.extract.html import ExtractHtml
from stages.filter.heuristics import C4Quality
from stages.filter.language import Language
from stages.filter.language_threshold import LanguageThreshold
from stages.score.select import Select
from tests.contract.stage_cases import ANNOTATIONS, CASES, CLASSIFIER, LINEAR, OTHER_TOKENIZER, TINY, TOKENIZER
from tests.stages.score import tiny_models

MOST_MARKUP, MOST_TEXT = 20_000, 2_500  # characters: the rules of repetition and the slow extractor take their time

# Texts that pages rarely have and stages must take all the same.
ODD = [
    "x",
    "¶",
    "é" * 300,
    "\ufeff \u2028 a",
    "line\n" * 40,
    "word " * 200,
    "漢字かな交じり文" * 30,
    "👩‍👩‍👧 end",
    "- a\n- b\n…",
    "NaN # # #",
]


@dataclass(frozen=True)
class World:
    """What stages are given: documents of each state, and files."""

    pages: pa.Table
    texts: pa.Table
    named: pa.Table
    encoded: pa.Table
    files: Mapping[str, str]

    @staticmethod
    def of(pages: pa.Table, texts: pa.Table, tokenizer: Path) -> World:
        pages = pages.filter(pc.less(pc.utf8_length(pages["text"]), MOST_MARKUP))
        short = pc.utf8_slice_codeunits(texts["text"], 0, MOST_TEXT)
        texts = texts.set_column(texts.column_names.index("text"), texts.schema.field("text"), short)
        texts = with_odd(texts)
        named = Language(min_score=0.0).open()(texts).drop_columns(["drop"])
        encoded = Encode(tokenizer=str(tokenizer)).open()(named).drop_columns(["drop"])
        return World.around(with_odd(pages), texts, named, encoded, tokenizer)

    @staticmethod
    def around(pages: pa.Table, texts: pa.Table, named: pa.Table, encoded: pa.Table, tokenizer: Path) -> World:
        """Put the files that parameters name beside the tokenizer's folder."""
        other = tokenizer.with_name("another")
        other.mkdir(exist_ok=True)
        (other / "tokenizer.json").write_bytes((tokenizer / "tokenizer.json").read_bytes())
        lid = other / "lid.ftz"
        lid.write_bytes(Path(Language().files()[0]).read_bytes())
        golden = Path(__file__).with_name("golden")
        files = {CLASSIFIER.path: str(golden / "classifier.bin"), LINEAR.path: str(golden / "linear.bin")}
        files |= {ANNOTATIONS: str(golden / "annotations.jsonl")}
        files |= {TOKENIZER: str(tokenizer), OTHER_TOKENIZER: str(other), "<lid.176 elsewhere>": str(lid)}
        files |= {TINY.path: str(tiny_models.save_llama(other / "lm", tiny_models.tokenizer_json(), layers=1, width=16))}
        (other / "words.txt").write_text("# a list\nfor\nand the\n")
        files |= {"<words>": str(other / "words.txt")}
        files |= {"<an n-gram model>": str(tiny_models.save_ngram(encoded["input_ids"], 600, other / "ngram.arrow"))}
        return World(whole(pages), whole(texts), whole(named), whole(encoded), files)

    def make(self, name: str, parameters: Mapping[str, Any]) -> Stage:
        given = {"paths": "nowhere"} if name in ("warc", "jsonl", "parquet", "text") else {}
        values = {key: filled(value, self.files) for key, value in parameters.items()}
        return STAGES[name](**given, **values)

    def stage(self, name: str, index: int) -> Stage:
        return self.make(name, CASES[name].one[index])

    def input(self, stage: Stage) -> pa.Table:
        """Return documents as they are where such a stage stands in a build."""
        if isinstance(stage, ExtractHtml):
            return self.pages
        if isinstance(stage, Filter | C4Quality | LanguageThreshold):
            return self.named
        if isinstance(stage, Buckets):
            return with_qualities(self.named)
        if isinstance(stage, Upsample):
            return with_qualities(self.encoded)
        if isinstance(stage, Select):
            return with_signals(self.encoded)
        return self.encoded if "input_ids" in stage.needs() else self.texts


def with_signals(docs: pa.Table) -> pa.Table:
    """Return the documents with columns as two models give them: many equal values, and tokens without."""
    ids = docs["input_ids"].combine_chunks()
    flat = ids.values.to_numpy().astype(np.int64)
    firsts = ids.offsets.to_numpy()[:-1][ids.value_lengths().to_numpy() > 0]
    for name, factor, modulus in (("ref_loss.a", 31, 23), ("ref_loss.b", 17, 41), ("entropy.a", 13, 5)):
        values = ((flat * factor) % modulus / 4).astype(np.float16)
        values[firsts] = np.nan
        values[flat % 97 == 5] = np.nan
        docs = docs.append_column(name, pa.ListArray.from_arrays(ids.offsets, pa.array(values)))
    return docs


def with_qualities(docs: pa.Table) -> pa.Table:
    """Return the documents with two scores each: many equal ones, below zero too, and documents without, null or NaN."""
    numbers = np.array([int(name[:6], 16) for name in docs["id"].to_pylist()], np.int64)
    quality = pa.array((numbers % 11 / 8).astype(np.float32), mask=numbers % 7 == 3)
    topic = np.where(numbers % 5 == 1, np.nan, (numbers % 13 - 6) / 2).astype(np.float32)
    return docs.append_column("quality", quality).append_column("topic", pa.array(topic))


def filled(value: Any, files: Mapping[str, str]) -> Any:
    """Return a parameter with real files for the names that stand for them."""
    if dataclasses.is_dataclass(value):
        return dataclasses.replace(value, **{f.name: filled(getattr(value, f.name), files) for f in dataclasses.fields(value)})
    if isinstance(value, dict):
        return {key: filled(each, files) for key, each in value.items()}
    if isinstance(value, tuple) and all(isinstance(each, str) for each in value):
        return tuple(files.get(each, each) for each in value)
    return files.get(value, value) if isinstance(value, str) else value


def with_odd(docs: pa.Table) -> pa.Table:
    """Return the documents followed by ones with odd texts, and by the first of them again under another id."""
    rows = docs.slice(0, 1).to_pylist() * len(ODD)
    odd = [
        {**row, "id": f"{i:032x}", "text": text, "url": None, "date": None}
        for i, (row, text) in enumerate(zip(rows, ODD, strict=True))
    ]
    again = [{**docs.slice(1, 1).to_pylist()[0], "id": "f" * 32}]
    return pa.concat_tables([docs, pa.Table.from_pylist(odd + again, schema=docs.schema)])


def whole(docs: pa.Table) -> pa.Table:
    """Return the documents in fresh buffers, one chunk a column."""
    return docs.take(pa.array(range(docs.num_rows))).combine_chunks()


def _cut(docs: pa.Table, sizes: Sequence[int]) -> list[pa.Table]:
    tables, start = [], 0
    while start < docs.num_rows:
        size = sizes[len(tables) % len(sizes)]
        tables.append(docs.slice(start, size))
        start += size
    return tables


def _at_an_offset(docs: pa.Table) -> pa.Table:
    """Return the documents as a slice of buffers that hold others before and behind them."""
    longer = whole(pa.concat_tables([docs.slice(3), docs, docs.slice(0, 5)]))
    return longer.slice(docs.num_rows - 3, docs.num_rows)


def _chunked(docs: pa.Table) -> pa.Table:
    """Return one table of many chunks, empty ones among them."""
    return pa.concat_tables([docs.slice(0, 0), *_cut(docs, [1, 4, 0, 2, 7]), docs.slice(0, 0)])


SPLITS: dict[str, Callable[[pa.Table], list[pa.Table]]] = {
    "rows": lambda docs: _cut(docs, [1]),
    "pieces of an offset": lambda docs: _cut(_at_an_offset(docs), [2, 11, 1, 5]),
    "chunks of an offset": lambda docs: [_chunked(_at_an_offset(docs))],
    "copies": lambda docs: [docs.slice(0, 0), *map(whole, _cut(docs, [9, 3])), docs.slice(0, 0)],
}


def state(table: pa.Table | pa.Array) -> str:
    """Return a hash of the values and types; equal for tables that differ in chunks and offsets only, NaN equal to NaN."""
    if isinstance(table, pa.Array | pa.ChunkedArray):
        table = pa.table({"values": table})
    schema = [(f.name, str(f.type), sorted((f.metadata or {}).items())) for f in table.schema]
    rows = "\n".join(str(row) for row in table.to_pylist())
    return hashlib.sha256(f"{schema}\n{rows}".encode("utf-8", "surrogatepass")).hexdigest()
