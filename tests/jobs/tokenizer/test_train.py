"""The command and its sample: from a build's documents to a tokenizer, and what it refuses."""

import gzip
import hashlib
import json
import re
import shutil
import tracemalloc
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gristmill.errors import InputError, UserError
from gristmill.storage.store import InputFile, sha256_file
from gristmill.tokenizer import Bpe, SuperBpe
from gristmill.tokenizer.files import load
from gristmill.tokenizer.training.corpus import make_corpus
from gristmill.tokenizer.vocabulary import to_json, to_tokenizer
from jobs.tokenizer import corpus, train
from pipeline import schema
from pipeline.lineage import Lineage
from pipeline.stage import Source, Stored
from stages.sink.documents import Documents
from tests.random_examples import examples

RECIPES = Path(__file__).parents[3] / "jobs" / "recipes"


def table(texts, languages=None, media="text/plain", first=0):
    rows = {
        "id": [schema.document_id("f", first + i) for i in range(len(texts))],
        "url": [None] * len(texts),
        "date": [None] * len(texts),
        "file": ["f"] * len(texts),
        "offset": [first + i for i in range(len(texts))],
        "length": [0] * len(texts),
        "media": [media] * len(texts),
        "text": texts,
    }
    docs = pa.table(rows, schema=schema.DOCUMENT)
    return docs if languages is None else docs.append_column("language", pa.array(languages, pa.string()))


def write_build(output, tables, stamp="20260101T000000000000Z"):
    """Lay the documents out as the machine does, by the real sink; a shard a table. Return the build's id."""
    sink, stored = Documents(), []
    for number, docs in enumerate(tables):
        folder = output / "units" / f"{stamp}-{number}"
        folder.mkdir(parents=True)
        for part in sink.open()(iter([docs]), folder):
            data = str(part.path.relative_to(output))
            size = part.path.stat().st_size
            stored.append(Stored(number, "f", part.kind, part.number, data, sha256_file(part.path), size, part.rows, part.stats))
    assembly = sink.assemble(stored, Lineage(name="t", inputs=(), stages=()))
    place = output / "builds" / assembly.id
    place.mkdir(parents=True)
    for name, data in assembly.links.items():
        shutil.copy(output / data, place / name)
    for name, content in assembly.files.items():
        (place / name).write_bytes(content)
    record = {"build": assembly.id, "manifest": f"builds/{assembly.id}/{assembly.manifest}"}
    (output / "runs").mkdir(exist_ok=True)
    (output / "runs" / f"{stamp}-{assembly.id[:12]}.json").write_text(json.dumps(record))
    return assembly.id


@pytest.fixture(scope="module")
def pages():
    raw = gzip.decompress((RECIPES.parents[1] / "examples/crawl/docs-00000.warc.gz").read_bytes()).decode("utf-8", "ignore")
    found = [re.sub(r"(?s)<(script|style).*?</\1>|<[^>]*>", "", p.split("\r\n\r\n", 2)[-1]) for p in raw.split("WARC/1.")[1:400]]
    return [text for text in found if len(text) > 500][:48]


@pytest.fixture
def build(tmp_path, pages):
    languages = ["de" if i % 4 == 0 else "en" for i in range(len(pages))]
    half = len(pages) // 2
    docs = table(pages, languages)
    write_build(tmp_path / "texts", [docs.slice(0, half), docs.slice(half)])
    return tmp_path / "texts"


def write_recipe(folder, documents, scheme="superbpe: {vocab_size: 700}", name="tok", **settings):
    lines = [f"scheme: {{{scheme}}}", f"documents: {documents}", f"output: {folder / name}"]
    lines += [f"{key}: {value}" for key, value in settings.items()]
    path = folder / f"{name}.yaml"
    path.write_text("\n".join(lines))
    return str(path)


def open_tokenizer(folder):
    return to_tokenizer(load(folder))


def taken(where, budget=10**9, seed=0, stratify=None):
    return corpus.sample(where, budget, seed, stratify, lambda what, rows: None)


@dataclass(frozen=True, kw_only=True)
class Made(Source):
    """Yields the given texts in small tables."""

    texts: tuple[str, ...]
    rows: int = 3
    media: str = "text/plain"

    def open(self) -> Callable[[InputFile, int], Iterator[pa.Table]]:
        def read(file, rows):
            for at in range(0, len(self.texts), self.rows):
                yield table(list(self.texts[at : at + self.rows]), media=self.media, first=at)

        return read


def made(texts, **parameters):
    return Made(paths=__file__, texts=tuple(texts), **parameters)


def test_train_writes_a_folder_that_opens_and_says_what_it_was_made_from(tmp_path, build, capsys):
    assert train.train(write_recipe(tmp_path, build)) == 0
    file = tmp_path / "tok" / "tokenizer.json"
    sha256 = hashlib.sha256(file.read_bytes()).hexdigest()
    printed = capsys.readouterr()
    assert printed.out.splitlines()[-1] == f"tokenizer {sha256} {file}"
    assert "stage 2" in printed.err
    tokenizer = to_tokenizer(load(file))
    assert tokenizer.get_vocab_size() == 700
    assert sorted(p.name for p in file.parent.iterdir()) == ["recipe.json", "tokenizer.json", "tokenizer_config.json"]
    assert json.loads((tmp_path / "tok" / "tokenizer_config.json").read_text())["eos_token"] == "<|endoftext|>"

    record = json.loads((tmp_path / "tok" / "recipe.json").read_text())
    sample = taken(str(build), stratify="language")
    assert record["tokenizer"]["sha256"] == sha256
    assert record["corpus"]["sha256"] == sample.fingerprint()
    assert record["corpus"]["documents"] == len(sample)
    assert sum(entry["bytes"] for entry in record["corpus"]["strata"].values()) == record["corpus"]["bytes"] == sample.bytes
    training, held = sample.split(0.01, 250_000, 0.1)
    tokens = sum(len(tokenizer.encode(text).ids) for text in held)
    assert record["tokenizer"]["bytes_per_token"] == round(held.bytes / tokens, 4)
    assert record["tokenizer"]["held_out_documents"] == len(held) > 1
    # From the recorded recipe and documents alone comes the same tokenizer, which has not seen those held out.
    again = SuperBpe(vocab_size=700).train(make_corpus(training.texts, training.strata))
    assert to_json(again).encode() == file.read_bytes()
    superwords = [token for token in tokenizer.get_vocab() if re.search("[A-Za-z0-9][ĠĊ]+[A-Za-z0-9]", token)]
    assert record["tokenizer"]["superwords"] == len(superwords) > 3


def test_transformers_opens_the_folder(tmp_path, build, pages):
    from transformers import AutoTokenizer

    assert train.train(write_recipe(tmp_path, build)) == 0
    theirs = AutoTokenizer.from_pretrained(str(tmp_path / "tok"))
    ours = open_tokenizer(str(tmp_path / "tok"))
    assert (len(theirs), theirs.eos_token, theirs.eos_token_id) == (700, "<|endoftext|>", 0)
    for text in pages:
        ids = theirs(text)["input_ids"]
        assert ids == ours.encode(text).ids
        assert theirs.decode(ids) == text


def test_workers_on_ray_learn_the_same_tokenizer(tmp_path, build):
    shas = []
    for name, run in (("here", "{on: local}"), ("ray", "{on: ray, workers: 2}")):
        recipe = write_recipe(tmp_path, build, "superbpe: {vocab_size: 700, max_loss: 0.05}", name, run=run)
        assert train.train(recipe) == 0
        shas.append(hashlib.sha256((tmp_path / name / "tokenizer.json").read_bytes()).hexdigest())
        assert "run" not in json.loads((tmp_path / name / "recipe.json").read_text())["recipe"]
    assert shas[0] == shas[1]


def test_a_scheme_that_no_tokenizer_json_can_say_has_a_file_of_its_own(tmp_path, build, capsys):
    recipe = write_recipe(tmp_path, build, "boundless: {vocab_size: 700}")
    assert train.train(recipe) == 0
    first = capsys.readouterr().out
    assert sorted(p.name for p in (tmp_path / "tok").iterdir()) == ["gristmill-tokenizer.json", "recipe.json"]
    assert load(tmp_path / "tok").size == 700
    assert first.splitlines()[-1].endswith("gristmill-tokenizer.json")
    assert train.train(recipe) == 0
    assert capsys.readouterr().out == first


def test_a_second_run_trains_nothing_and_another_recipe_is_refused(tmp_path, build, capsys, monkeypatch):
    recipe = write_recipe(tmp_path, build, "bpe: {vocab_size: 300}")
    assert train.train(recipe) == 0
    first = capsys.readouterr().out
    before = (tmp_path / "tok" / "tokenizer.json").stat()  # but not when it was last read
    with monkeypatch.context() as patched:
        patched.delattr(Bpe, "train")
        assert train.train(recipe) == 0
    assert capsys.readouterr().out == first
    after = (tmp_path / "tok" / "tokenizer.json").stat()
    assert (after.st_ino, after.st_size, after.st_mtime_ns) == (before.st_ino, before.st_size, before.st_mtime_ns)
    for scheme, changed in (("bpe: {vocab_size: 301}", {}), ("bpe: {vocab_size: 300}", {"seed": 1})):
        with pytest.raises(UserError, match=r"made from another scheme or other documents.*Name another output"):
            train.train(write_recipe(tmp_path, build, scheme, **changed))
    (tmp_path / "tok" / "tokenizer.json").write_text("{}")
    with pytest.raises(UserError, match="or changed since"):
        train.train(write_recipe(tmp_path, build, "bpe: {vocab_size: 300}"))
    (tmp_path / "other").mkdir()
    with pytest.raises(UserError, match="no tokenizer of this command"):
        train.train(write_recipe(tmp_path, build, "bpe: {vocab_size: 300}", name="other"))
    assert not [p for p in tmp_path.iterdir() if p.name.startswith(".")]  # no temporary folder stays


def test_two_processes_may_finish_the_same_tokenizer(tmp_path):
    files = {"tokenizer.json": b"{}", "recipe.json": b"{}"}
    assert train.write_folder(tmp_path / "tok", files) == train.write_folder(tmp_path / "tok", files)
    with pytest.raises(OSError, match="not empty"):
        train.write_folder(tmp_path / "tok", {"tokenizer.json": b"{ }"})
    assert [p.name for p in tmp_path.iterdir()] == ["tok"]


def test_the_newest_build_of_documents_is_read_though_a_newer_one_holds_tokens(tmp_path):
    output = tmp_path / "out"
    older = write_build(output, [table(["old text"])], "20260101T000000000000Z")
    newest = write_build(output, [table(["new text"])], "20260102T000000000000Z")
    assert taken(str(output)).texts == (b"new text",)
    assert taken(f"{output}/builds/{older}/").texts == (b"old text",)
    manifest = output / "builds" / newest / "manifest.json"
    tokens = output / "builds" / "tokens"
    tokens.mkdir()
    (tokens / "manifest.json").write_text(json.dumps(_of_kind_tokens(json.loads(manifest.read_text()))))
    (output / "runs" / "20260103T000000000000Z-x.json").write_text('{"build": "x", "manifest": "builds/tokens/manifest.json"}')
    assert taken(str(output)).texts == (b"new text",)


def _of_kind_tokens(content):
    from gristmill.format import manifest as mf

    content = content | {"kind": "tokens", "shards": [], "totals": dict.fromkeys(content["totals"], 0)}
    return content | dict.fromkeys(("build", "order"), mf.build_id("tokens", ()))


@examples(40)
@given(st.lists(st.text("aé", max_size=12), min_size=1, max_size=12), st.integers(1, 60), st.integers(1, 12))
def test_the_sample_is_the_longest_start_of_the_shuffled_documents_that_fits(texts, budget, rows):
    sizes = [len(text.encode()) for text in texts]
    if not sum(sizes) or not any(0 < size <= min(budget, sum(sizes)) for size in sizes):
        with pytest.raises(InputError, match=r"without any text|less than any document"):
            taken(made(texts), budget)
        return
    got = taken(made(texts, rows=rows), budget)

    def rank(i):
        name = schema.document_id("f", i).encode()
        return hashlib.blake2b(name, digest_size=16, key=b"sample 0").digest()

    expected, total = [], 0
    for i in sorted(range(len(texts)), key=rank):
        if not 0 < sizes[i] <= budget:
            continue
        if (total := total + sizes[i]) > budget:
            break
        expected.append(texts[i])
    assert list(got) == expected


def test_the_sample_does_not_depend_on_the_order_of_documents(tmp_path, pages):
    docs = table(pages, ["en"] * len(pages))
    half = len(pages) // 2
    write_build(tmp_path / "a", [docs.slice(0, half), docs.slice(half)])
    write_build(tmp_path / "b", [docs.slice(half), docs.slice(0, half)])
    budget = sum(len(page.encode()) for page in pages) // 3
    assert taken(str(tmp_path / "a"), budget, 5, "language") == taken(str(tmp_path / "b"), budget, 5, "language")
    other = taken(str(tmp_path / "a"), budget, 6, "language")
    assert set(other.ids) != set(taken(str(tmp_path / "a"), budget, 5, "language").ids)
    assert other.bytes <= budget


def test_strata_keep_their_shares(tmp_path):
    texts, languages = [f"{i:05}" * 20 for i in range(1000)], ["sv" if i < 100 else "en" for i in range(1000)]
    write_build(tmp_path / "t", [table(texts, languages)])
    got = taken(str(tmp_path / "t"), 20_000, stratify="language")
    assert got.strata.count("sv") == 20
    assert got.strata.count("en") == 180
    assert "sv" in got.strata[:100]  # shuffled, not one stratum after the other
    assert "sv" in got.strata[100:]


def test_memory_stays_near_the_budget(tmp_path):
    write_build(tmp_path / "t", [table([f"{i} " * 2000 for i in range(at, at + 200)], first=at) for at in range(0, 2000, 200)])
    whole = sum(t["text"].nbytes for t in corpus.documents_of(str(tmp_path / "t")))
    tracemalloc.start()
    got = taken(str(tmp_path / "t"), 500_000)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert whole > 15_000_000
    assert 400_000 < got.bytes <= 500_000
    assert peak < 2_000_000


def test_dropped_and_unreadable_rows_of_a_source_are_left_out():
    @dataclass(frozen=True, kw_only=True)
    class Marked(Made):
        def open(self):
            def read(file, rows):
                docs = table(["keep", "drop", "error"])
                docs = docs.append_column("drop", pa.array([None, "reason", None]))
                yield docs.append_column("error", pa.array([None, None, "why"], pa.string()))

            return read

    assert list(taken(Marked(paths=__file__, texts=()))) == ["keep"]


def test_documents_that_cannot_be_used(tmp_path, build):
    with pytest.raises(InputError, match=r"no finished build of documents there: .*last stage is `documents`"):
        taken(str(tmp_path / "nowhere"))
    with pytest.raises(InputError, match="there are 2, without any text"):
        taken(made(["", ""]))
    with pytest.raises(InputError, match="are text/html, not text/plain; build texts first"):
        taken(made(["<p>"], media="text/html"))
    with pytest.raises(InputError, match=r"no column 'topic' to stratify by; they have \['id'"):
        taken(str(build), stratify="topic")
    with pytest.raises(InputError, match="bytes 3 is less than any document"):
        taken(str(build), budget=3)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("schema: bpe", r"r.yaml:1:1: unknown key 'schema'; did you mean 'scheme'\?"),
        ("documents: x\noutput: y", "key 'scheme' is missing"),
        ("scheme: {bpe: {vocab_size: 300}}\noutput: y", "key 'documents' is missing"),
        ("scheme: {bpe: {vocab_size: 300}}\ndocuments: x", "parameter 'output' is missing"),
        ("scheme: {bqe: {vocab_size: 300}}\ndocuments: x\noutput: y", r"r.yaml:1:10: unknown scheme 'bqe'; did you mean 'bpe'\?"),
        ("scheme: bpe\ndocuments: x\noutput: y", "parameter 'vocab_size' is missing"),
        ("scheme: [bpe]\ndocuments: x\noutput: y", "'scheme' must be one name with its parameters, found a list of 1"),
        ("scheme: {bpe: {vocab_size: 30}}\ndocuments: x\noutput: y", "r.yaml:1:28: scheme 'bpe': vocab_size must be from 257"),
        ("scheme: {superbpe: {vocab_size: 300, patterns: papr}}\ndocuments: x\noutput: y", "did you mean 'paper'"),
        ("scheme: {superbpe: {vocab_size: 300, transition: 400}}\ndocuments: x\noutput: y", "transition must be"),
        ("scheme: {bpe: {vocab_size: 300, pattern: '('}}\ndocuments: x\noutput: y", "pattern does not compile"),
        ("scheme: {bpe: {vocab_size: 300}}\ndocuments: x\noutput: y\nbytes: many", "'bytes' must be an integer"),
        ("scheme: {bpe: {vocab_size: 300}}\ndocuments: x\noutput: y\nbytes: 0", "bytes must be at least 1"),
        (
            "scheme: {bpe: {vocab_size: 300}}\ndocuments: {jsnl: {paths: x}}\noutput: y",
            "unknown documents 'jsnl'; did you mean 'jsonl'",
        ),
        ("scheme: {bpe: {vocab_size: 300}}\ndocuments: 3\noutput: y", "or the output folder of a build, found the integer 3"),
    ],
)
def test_mistakes_in_a_recipe_give_one_message_with_the_place(tmp_path, text, message):
    path = tmp_path / "r.yaml"
    path.write_text(text)
    with pytest.raises(UserError, match=message) as caught:
        train.read_recipe(str(path))
    assert str(path) in str(caught.value)


@pytest.mark.parametrize("source", ["jsonl", "text"])
def test_a_recipe_may_name_a_source(source, tmp_path, pages, capsys):
    flat = [re.sub(r"\s*\n\s*", "\n", page.strip()) for page in pages[:30]]
    file = tmp_path / f"texts.{source}"
    file.write_text("\n\n".join(flat) if source == "text" else "\n".join(json.dumps({"text": page}) for page in flat))
    documents = f"{{{source}: {{paths: {file}{', per: blank_line' if source == 'text' else ''}}}}}"
    assert train.train(write_recipe(tmp_path, documents, "bpe: {vocab_size: 400}", stratify="null")) == 0
    record = json.loads((tmp_path / "tok" / "recipe.json").read_text())
    assert record["corpus"]["documents"] == 30
    assert record["corpus"]["bytes"] == sum(len(page.encode()) for page in flat)
    assert record["recipe"]["documents"][source]["paths"] == str(file)


@pytest.mark.parametrize("path", sorted(RECIPES.glob("tokenizer-*.yaml")), ids=lambda path: path.stem)
def test_every_tokenizer_recipe_loads(path):
    recipe = train.read_recipe(str(path))
    assert recipe.scheme.vocab_size == 8000
    assert recipe.settings.output.startswith("build/tokenizers/")
