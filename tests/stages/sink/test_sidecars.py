"""Columns added to a finished build by the machine: the `tokens` source, a map, the `sidecars` sink; on a disk and on S3."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from gristmill import TokenDataset
from gristmill.errors import ConfigError, FormatError, InputError
from gristmill.format import schema as fmt
from gristmill.format.build import open_build
from gristmill.format.sidecar import find_sidecars
from gristmill.storage.store import expand, open_store
from jobs.config import build_config
from pipeline.engines.drive import Options, Outcome, drive
from pipeline.engines.local import LocalEngine
from pipeline.planning.plan import make_plan
from pipeline.stage import Map, Stage, Stored, Transform
from stages.encode.encode import Encode
from stages.sink.shards import Shards
from stages.sink.sidecars import Sidecars
from stages.source.text import TextSource
from stages.source.tokens import TokensSource
from tests.s3_servers import BUCKET, moto, use

TEXTS = {"a.txt": "one line\nanother\n\nand one more\n", "b.txt": "of this file\nno document is good\n", "c.txt": "the last\n"}


@dataclass(frozen=True, kw_only=True)
class Squares(Map):
    """Add to each token the square of its id, modulo 100, and whether that is even; documents with too few tokens are errors."""

    name: str = "squares"
    times: int = 1
    least: int = 0

    def needs(self) -> tuple[str, ...]:
        return ("input_ids",)

    def adds(self) -> Mapping[str, pa.DataType]:
        return {f"ref_loss.{self.name}": pa.list_(pa.float16()), f"exact.{self.name}": pa.list_(pa.bool_())}

    def open(self) -> Transform:
        def add(docs: pa.Table) -> pa.Table:
            ids = docs["input_ids"].combine_chunks()
            losses = [self.times * squares(row) for row in ids.to_pylist()]
            facts = {"scheme": self.name, "unit": "nats", "about": json.dumps({"times": self.times})}
            for (name, kind), rows in zip(self.adds().items(), (losses, [row % 2 == 0 for row in losses]), strict=True):
                docs = docs.append_column(pa.field(name, kind, metadata=facts), pa.array(rows, kind))
            few = [None if len(row) >= self.least else f"has {len(row)} tokens" for row in ids.to_pylist()]
            return docs.append_column("error", pa.array(few, pa.string()))

        return add


def squares(ids: list[int]) -> np.ndarray:
    values = (np.array(ids, np.float64) ** 2 % 100).astype(np.float16)
    values[:1] = np.nan
    return values


def run(output: str, *stages: tuple[str, Stage]) -> Outcome:
    source = stages[0][1]
    plan = make_plan("t", list(stages), expand(source.patterns()))  # type: ignore[attr-defined]
    return drive(plan, lambda: LocalEngine(0), Options(output, batch_rows=2))


def build(tmp_path: Path, output: str, tokenizer: Path) -> str:
    for name, text in TEXTS.items():
        (tmp_path / name).write_text(text)
    encode = Encode(tokenizer=str(tokenizer))
    outcome = run(output, ("text", TextSource(paths=f"{tmp_path}/*.txt")), ("encode", encode), ("shards", Shards()))
    assert outcome.build is not None, outcome.failures
    return outcome.build


def with_squares(tmp_path: Path, tokenizer: Path) -> str:
    """Make a build of the first text that has columns of its own, and return its output."""
    output, encode = str(tmp_path / "squared"), Encode(tokenizer=str(tokenizer))
    source = TextSource(paths=f"{tmp_path}/a.txt")
    outcome = run(output, ("text", source), ("encode", encode), ("squares", Squares()), ("shards", Shards()))
    assert outcome.build is not None, outcome.failures
    return output


def add(output: str, *maps: Map, columns: tuple[str, ...] = ()) -> Outcome:
    named = [(f"map-{i}", each) for i, each in enumerate(maps)]
    return run(output, ("tokens", TokensSource(paths=output, columns=columns)), *named, ("sidecars", Sidecars(build=output)))


ANY_NAME = "q?x/br[1]/a*b/sp ace#%41/ünï[1]?"


@pytest.fixture(params=["disk", "s3"])
def output(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("GRISTMILL_CACHE", str(tmp_path / "cache"))
    with moto() if request.param == "s3" else contextlib.nullcontext(None) as port:
        if port is not None:
            use(monkeypatch, port)
        yield f"s3://{BUCKET}/{ANY_NAME}" if port is not None else f"{tmp_path}/{ANY_NAME}"


def test_columns_appear_beside_the_tokens_and_nothing_else_changes(output: str, tokenizer: Path, tmp_path: Path) -> None:
    made = build(tmp_path, output, tokenizer)
    store = open_store(output)
    before = {name: store.read(f"builds/{made}/{name}") for name in store.list(f"builds/{made}")}
    outcome = add(output, Squares())
    assert (outcome.build, outcome.manifest) == (made, store.uri(f"builds/{made}/manifest.json")), outcome.failures
    after = set(store.list(f"builds/{made}"))
    assert {name: store.read(f"builds/{made}/{name}") for name in before} == before
    assert len(after - set(before)) == 4 and "scores-squares.json" in after
    assert add(output, Squares()).reused
    row = TokenDataset.open(output, sequence_length=20, shuffle="none", columns=("ref_loss.squares", "exact.squares"))[0]
    assert len(row["input_ids"]) == 20
    assert np.array_equal(row["ref_loss.squares"] % 2 == 0, row["exact.squares"])
    check(output, Squares())


def check(output: str, *maps: Squares, lost: Callable[[list[int]], bool] = lambda ids: False) -> None:
    """Compare each file of columns with the ids, document by document."""
    manifest, place = open_build(output, fmt.TOKENS)
    store = open_store(output)
    folder = f"builds/{manifest.build}"
    for each in maps:
        added = find_sidecars(place)[each.name]
        for shard, side in zip(manifest.shards, added.files, strict=True):
            assert added.about == {column: {"times": each.times} for column in each.adds()}
            with store.open(f"{folder}/{shard.file}") as tokens, store.open(f"{folder}/{side.file}") as columns:
                ids, read = pa.ipc.open_file(tokens).read_all(), pa.ipc.open_file(columns).read_all()
                assert read["doc_id"].equals(ids["doc_id"])
                for row, losses, even in zip(*(t.to_pylist() for t in (ids["input_ids"], *read.columns[1:])), strict=True):
                    wanted = np.full(len(row), np.nan, np.float16) if lost(row) else each.times * squares(row)
                    np.testing.assert_array_equal(np.array(losses, np.float16), wanted)
                    assert even == list(wanted % 2 == 0)


def test_documents_that_failed_have_no_values_also_where_a_shard_lost_them_all(tokenizer: Path, tmp_path: Path) -> None:
    output = str(tmp_path / "out")
    build(tmp_path, output, tokenizer)
    manifest, _ = open_build(output, fmt.TOKENS)
    store = open_store(output)
    lengths = []
    for shard in manifest.shards:
        with store.open(f"builds/{manifest.build}/{shard.file}") as file:
            lengths.append(pa.ipc.open_file(file).read_all()["input_ids"].combine_chunks().value_lengths().to_pylist())
    least = max(min(each) for each in lengths) + 1
    assert any(max(each) < least for each in lengths) or any(min(each) < least <= max(each) for each in lengths)
    outcome = add(output, Squares(least=least))
    assert outcome.build == manifest.build
    check(output, Squares(), lost=lambda ids: len(ids) < least)
    record = json.loads(store.read(f"runs/{store.list('runs')[-1]}"))
    assert record["build"] == manifest.build
    with pytest.raises(InputError, match="none of the 6 documents"):
        add(output, Squares(name="none", least=1000))


def test_two_models_one_after_the_other_and_columns_that_are_read_are_not_written_again(tokenizer: Path, tmp_path: Path) -> None:
    output = str(tmp_path / "out")
    build(tmp_path, output, tokenizer)
    add(output, Squares(name="a"))
    add(output, Squares(name="b", times=2), Squares(name="c", times=3), columns=("ref_loss.a",))
    check(output, Squares(name="a"), Squares(name="b", times=2), Squares(name="c", times=3))
    assert set(find_sidecars(open_build(output, fmt.TOKENS)[1])) == {"a", "b", "c"}


def test_other_columns_under_a_name_that_is_taken_are_refused(tokenizer: Path, tmp_path: Path) -> None:
    output = str(tmp_path / "out")
    build(tmp_path, output, tokenizer)
    add(output, Squares())
    with pytest.raises(InputError, match=r"scores-squares\.json is there already and names other columns; give"):
        add(output, Squares(times=3))
    check(output, Squares())


def test_mistakes_are_told(tokenizer: Path, tmp_path: Path) -> None:
    output = str(tmp_path / "out")
    with pytest.raises(FormatError, match="no such"):
        TokensSource(paths=output).patterns()
    build(tmp_path, output, tokenizer)
    with pytest.raises(InputError, match=r"has no per-token column 'ref_loss\.x'; it has none"):
        TokensSource(paths=output, columns=("ref_loss.x",)).adds()
    outcome = add(output)
    assert [(failure.kind, "no stage added a per-token column" in failure.message) for *_, failure in outcome.failures] == [
        ("user", True)
    ] * 3
    copied = tmp_path / "copied"
    folder = next((tmp_path / "out/builds").iterdir())
    folder.rename(copied)
    with pytest.raises(InputError, match="is not in the output that it was built in"):
        Sidecars(build=str(copied)).home()


def test_shards_that_were_not_made_in_one_way_or_for_this_build_are_refused(tokenizer: Path, tmp_path: Path) -> None:
    output = str(tmp_path / "out")
    made = build(tmp_path, output, tokenizer)
    stats = {"name": "m", "build": made, "columns": {"x": "bool"}, "metadata": {"x": {}}}
    parts = [
        Stored(number, shard.file, "scores-m", 0, "data", "0" * 64, 1, 1, {**stats, "about": {"x": {"torch": str(number)}}})
        for number, shard in enumerate(open_build(output, fmt.TOKENS)[0].shards)
    ]
    with pytest.raises(InputError, match=r"columns of 'm' were not made in one way in all shards \(x: torch \"0\" and \"1\"\)"):
        Sidecars(build=output).assemble(parts, {})
    (tmp_path / "a.txt").write_text("a newer build\n")
    newer = run(
        output,
        ("text", TextSource(paths=f"{tmp_path}/a.txt")),
        ("encode", Encode(tokenizer=str(tokenizer))),
        ("shards", Shards()),
    )
    with pytest.raises(InputError, match=rf"were made for build {made}, '.*/out' is {newer.build} now; name"):
        Sidecars(build=output).assemble(parts, {})
    source = TokensSource(paths=f"{output}/builds/{made}")
    docs = (
        Squares().open()(next(t for t in source.open()(expand(source.patterns())[0], 256) if t.num_rows)).drop_columns(["error"])
    )
    with pytest.raises(InputError, match=r"tokens-00000\.arrow has other documents than the source has read"):
        Sidecars(build=output).open()(iter([docs]), tmp_path)
    with pytest.raises(InputError, match=r"has columns of 'squares' already, in .*; give another name to the model"):
        Sidecars(build=with_squares(tmp_path, tokenizer)).open()(iter([docs]), tmp_path)


@pytest.mark.parametrize("of", ["tokens-00001.arrow", "scores-squares-00001-*.arrow"])
def test_files_of_the_build_that_are_damaged_or_gone_are_named(of: str, tokenizer: Path, tmp_path: Path) -> None:
    output = str(tmp_path / "out")
    build(tmp_path, output, tokenizer)
    add(output, Squares())
    path = next((tmp_path / "out/builds").glob(f"*/{of}"))
    whole = path.read_bytes()
    source = TokensSource(paths=output, columns=("ref_loss.squares",))
    shard = expand(source.patterns())[1]
    flipped = bytes([whole[len(whole) // 2] ^ 1])
    for content, says in (
        (whole[: len(whole) // 2] + flipped + whole[len(whole) // 2 + 1 :], "damaged, sha256 is"),
        (whole[:-20], "damaged"),
        (None, "missing, though the build names it"),
    ):
        path.unlink()
        if content is not None:
            path.write_bytes(content)
        with pytest.raises(InputError, match=rf"{path.name}: {says}"):
            list(source.open()(shard, 256))


CONFIG = """\
name: t
output: {output}
source:
  {source}
stages:
  - {before}score_ngram: {{models: {{x: {{order: 2}}}}}}{more}
  - {sink}
"""


def test_a_config_adds_to_the_build_that_it_reads_and_gives_each_column_once(tokenizer: Path, tmp_path: Path) -> None:
    def load(source: str = "", sink: str = "", before: str = "", more: str = "") -> build_config.Build:
        text = {"source": source or f"tokens: {{paths: {output}}}", "sink": sink or f"sidecars: {{build: {output}}}"}
        path = tmp_path / "config.yaml"
        path.write_text(CONFIG.format(output=output, before=before, more=more, **text))
        return build_config.load(path)

    output, other = str(tmp_path / "out"), str(tmp_path / "other")
    first = build(tmp_path, output, tokenizer)
    load()
    for name in TEXTS:
        (tmp_path / name).write_text("something else\n")
    encode = Encode(tokenizer=str(tokenizer))
    second = run(other, ("text", TextSource(paths=f"{tmp_path}/*.txt")), ("encode", encode), ("shards", Shards())).build
    with pytest.raises(ConfigError, match=f"adds to build {first}, source 'tokens' reads build {second}; name the same"):
        load(source=f"tokens: {{paths: {other}}}")
    with pytest.raises(
        ConfigError, match=r"column 'text_bytes' itself, which source 'tokens' gives.*a stage that adds to that build"
    ):
        load(sink="shards: {}")
    with pytest.raises(ConfigError, match=r"gives the tokens of a finished build.*one that does \(sidecars\), found 'documents'"):
        load(sink="documents: {}")
    with pytest.raises(ConfigError, match=rf"adds to the finished build {first}.*must be one that does \(tokens\)"):
        load(source=f'text: {{paths: "{tmp_path}/*.txt"}}', before=f"encode: {{tokenizer: {tokenizer}}}\n  - ")
    with pytest.raises(
        ConfigError, match=r"needs column 'ref_loss\.y', .*; if the build has it, add it to the columns of source 'tokens'"
    ):
        load(more="\n  - select: {policies: {p: {scheme: eslm, model: y}}}")
    with pytest.raises(ConfigError, match=r"adds column 'ref_loss\.x', which stage 'score_ngram' gives already; give one"):
        load(more="\n  - score_ngram: {models: {x: {order: 3}}}")
