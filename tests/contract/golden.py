"""A hash of what each stage makes of fixed inputs, kept beside the version that made it: `golden/outputs.json`.

    python -m tests.contract.golden --update            write hashes of stages that are new, or whose version or libraries moved
    python -m tests.contract.golden --update encode     the same, of these stages alone
    python -m tests.contract.golden --inputs            make the inputs anew, of the small crawl's pages as they come out now

The inputs are files in `golden/`, not what other stages make now, so a stage's hash is its own. Tables are hashed by their values
and types, the files of sinks by their bytes. What a causal model says differs in its last bits from machine to machine, so of it
means are kept.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import shutil
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from gristmill.models.causal_lm.parameters import CausalLm
from gristmill.storage.store import expand
from gristmill.tokenizer.bpe import Bpe
from gristmill.tokenizer.files import save
from gristmill.tokenizer.training.corpus import make_corpus
from pipeline.planning.fingerprint import describe
from pipeline.stage import AskingMap, Barrier, Exchange, Filter, Fit, FlatMap, Map, Save, Sink, Source, Stage
from pipeline.units.exchange import apply_verdicts
from stages import STAGES
from stages.extract.html import ExtractHtml
from stages.score.lm import ScoreLm
from stages.source.tokens import TokensSource
from stages.source.warc import WarcSource
from tests.conftest import write_crawl
from tests.contract.running import Canned, emitted, met
from tests.contract.stage_cases import CASES
from tests.contract.world import World, state
from tests.jobs.byte_builds import byte_documents, publish_bytes

FOLDER = Path(__file__).with_name("golden")
OUTPUTS = FOLDER / "outputs.json"
COMMAND = "python -m tests.contract.golden --update"


@dataclass(frozen=True)
class Golden:
    """What is kept of a stage: its version, the libraries that its hashes were made with, and these by the number of the case."""

    version: int
    libraries: Mapping[str, str]
    outputs: Mapping[str, Any]


@dataclass(frozen=True)
class Inputs:
    """The fixed documents, and a folder with the files of the sources and a build of tokens."""

    world: World
    folder: Path

    @staticmethod
    def make(folder: Path) -> Inputs:
        pages, encoded = (pa.ipc.open_file(FOLDER / f"{name}.arrow").read_all() for name in ("pages", "encoded"))
        (folder / "tokenizer").mkdir()
        shutil.copy(FOLDER / "tokenizer.json", folder / "tokenizer/tokenizer.json")
        named = encoded.drop_columns(["input_ids"])
        texts = named.drop_columns([name for name in named.column_names if name.startswith("language")])
        write_crawl(folder / "warc")
        lines = [json.dumps(row, ensure_ascii=False) for row in texts.select(["url", "text"]).to_pylist()]
        contents = {"jsonl": "\n".join(lines), "text": "\n\n".join(texts["text"].to_pylist())}
        for name, text in contents.items():
            (folder / name).mkdir()
            (folder / name / f"in.{name}").write_bytes(text.encode())
        (folder / "parquet").mkdir()
        pq.write_table(texts.select(["url", "date", "text"]), folder / "parquet/in.parquet")
        quality = (0.5, None, 1.0)
        publish_bytes(
            [byte_documents(["the mill grinds", "slow and fine", ""], file="a.txt", quality=quality)], folder / "tokens"
        )
        return Inputs(World.around(pages, texts, named, encoded, folder / "tokenizer"), folder)

    def stage(self, name: str, index: int) -> Stage:
        if name == "tokens":
            return STAGES[name](paths=str(self.folder / "tokens"))  # type: ignore[call-arg]
        if name == "sidecars":
            return STAGES[name](build=str(self.folder / "tokens"))  # type: ignore[call-arg]
        return self.world.stage(name, index)


def cases(name: str) -> int:
    """Return how many sets of parameters a stage is run with."""
    return len(CASES[name].one) if name in CASES else 1


def measured(name: str, inputs: Inputs) -> Golden:
    """Run a stage with each of its sets of parameters."""
    libraries, outputs = dict[str, str](), dict[str, Any]()
    for index in range(cases(name)):
        stage = inputs.stage(name, index)
        libraries |= describe(stage).get("libraries", {})
        outputs[str(index)] = _output(stage, name, inputs)
    return Golden(STAGES[name].version, libraries, outputs)


def _output(stage: Stage, name: str, inputs: Inputs) -> Any:
    if isinstance(stage, Source):
        return state(pa.concat_tables(_tokens(inputs) if isinstance(stage, TokensSource) else _read(stage, inputs.folder / name)))
    if isinstance(stage, Sink):
        return _written(stage, _scored(inputs) if name != "sidecars" else _with_losses(inputs))
    if isinstance(stage, Save):
        return "nothing is done"
    docs = inputs.world.input(stage)
    if isinstance(stage, Barrier):
        return _barrier(stage, docs)
    if isinstance(stage, AskingMap):
        return state(stage.open()(docs, Canned()))
    assert isinstance(stage, Map | FlatMap | Filter)
    made = stage.open()(docs)
    return _signals(made, stage) if isinstance(stage, ScoreLm) else state(made)


def _read(source: Source, folder: Path) -> Iterator[pa.Table]:
    for file in expand(str(folder / "*")):
        yield from source.open()(file, 7)


def _tokens(inputs: Inputs) -> Iterator[pa.Table]:
    source = TokensSource(paths=str(inputs.folder / "tokens"), columns=("quality",))
    for file in expand(source.patterns()):
        yield from source.open()(file, 7)


def _barrier(stage: Barrier, docs: pa.Table) -> dict[str, str]:
    """Return hashes of the rows, of what they reduce to, of what is settled, and of the documents after it."""
    assert isinstance(stage, Exchange | Fit)
    halves = [[docs.slice(0, 15)], [docs.slice(15)]]
    rows = pa.concat_tables(emitted(stage, halves))
    rows = rows.take(pa.array(np.argsort(rows["key"].to_numpy(), kind="stable"))).combine_chunks()
    settled = met(stage, halves)
    if isinstance(stage, Fit):
        applied = stage.apply(settled)(docs)
    else:
        applied = apply_verdicts(halves[1][0], 0, settled.filter(pc.equal(settled["shard"], 1)), stage.defaults())
    found = {"rows": rows, "reduced": stage.reduce()(rows), "settled": settled, "applied": applied}
    return {step: state(table) for step, table in found.items()}


def _scored(inputs: Inputs) -> pa.Table:
    """Return documents as they come to the sink of token shards, with a column a token that no stage has made."""
    ids = inputs.world.encoded["input_ids"].combine_chunks()
    losses = pa.ListArray.from_arrays(ids.offsets, pa.array((ids.values.to_numpy() % 31 / 4).astype(np.float16)))
    field = pa.field("ref_loss.base", losses.type, metadata={"scheme": "base", "unit": "nats", "about": "{}"})
    return inputs.world.encoded.append_column(field, losses)


def _with_losses(inputs: Inputs) -> pa.Table:
    docs = pa.concat_tables(_tokens(inputs)).combine_chunks()
    ids = docs["input_ids"].combine_chunks()
    losses = pa.ListArray.from_arrays(ids.offsets, pa.array((ids.values.to_numpy() % 7).astype(np.float16)))
    field = pa.field("ref_loss.new", losses.type, metadata={"scheme": "new", "unit": "nats", "about": "{}"})
    return docs.append_column(field, losses)


def _written(sink: Sink, docs: pa.Table) -> str:
    """Return a hash of the parts: kinds, numbers, rows, figures and bytes."""
    total = hashlib.sha256()
    with tempfile.TemporaryDirectory() as folder:
        for part in sink.open()(iter([docs]), Path(folder)):
            about = [part.kind, part.number, part.rows, dict(part.stats)]
            total.update(json.dumps(about, sort_keys=True).encode() + hashlib.sha256(part.path.read_bytes()).digest())
    return total.hexdigest()


def _signals(docs: pa.Table, stage: ScoreLm) -> dict[str, str]:
    """Return a hash of each column without its metadata (the model's path is there); of a causal model's numbers the mean."""
    found = {}
    for name, kind in stage.adds().items():
        values = docs[name].combine_chunks().flatten()
        if isinstance(stage.model, CausalLm) and kind.value_type == pa.float16():
            found[name] = f"{np.nanmean(values.to_numpy(zero_copy_only=False).astype(np.float64)):.3f} of {len(values)}"
        else:
            found[name] = state(docs[name])
    return found


def read() -> dict[str, Golden]:
    """Return what is kept."""
    return {name: Golden(**kept) for name, kept in json.loads(OUTPUTS.read_text()).items()} if OUTPUTS.is_file() else {}


def fault(name: str, kept: Golden | None, found: Golden) -> str | None:
    """Say what is wrong with a stage's version or hashes, and what to do; None when nothing is."""
    if kept is None:
        return f"{name!r} has no golden hash; run `{COMMAND}`"
    if found.version != kept.version:
        return f"{name!r} is of version {found.version} and its golden hash of version {kept.version}; run `{COMMAND}`"
    changed = [index for index, output in found.outputs.items() if index in kept.outputs and kept.outputs[index] != output]
    libraries = ((each, kept.libraries.get(each, version), version) for each, version in found.libraries.items())
    moved = [f"{each} {old} → {new}" for each, old, new in libraries if old != new]
    if changed and moved:
        return f"{name!r} gives other output with {', '.join(moved)}; if that is right, run `{COMMAND}`"
    if changed:
        return (
            f"{name!r} gives other output with the parameters number {', '.join(changed)} of its case, and is still of version "
            f"{found.version}; mend it, or raise `version` and run `{COMMAND}`"
        )
    if found.outputs.keys() != kept.outputs.keys():
        return f"{name!r} has other cases than golden hashes; run `{COMMAND}`"
    return None


def update(kept: Mapping[str, Golden], found: Mapping[str, Golden]) -> tuple[dict[str, Golden], list[str]]:
    """Return what to keep from now on, and what is wrong with the stages whose hashes may not be replaced."""
    new, wrong = dict[str, Golden](), list[str]()
    for name, each in found.items():
        said = fault(name, kept.get(name), each)
        if said is not None and "is still of version" in said:
            wrong.append(said)
            new[name] = kept[name]
        else:
            new[name] = kept[name] if said is None else each
    return new, wrong


def _inputs(folder: Path) -> list[str]:
    """Write the inputs: pages and texts of the small crawl, and a tokenizer of 600 tokens trained on them."""
    write_crawl(folder / "warc")
    tables = [table for file in expand(str(folder / "warc/*")) for table in WarcSource(paths="").open()(file, 100)]
    pages = pa.concat_tables(tables).drop_columns(["drop", "error"]).combine_chunks()
    docs = ExtractHtml().open()(pages)
    texts = docs.filter(pc.is_null(docs["drop"])).drop_columns(["drop"]).combine_chunks()
    (folder / "tokenizer").mkdir()
    save(Bpe(vocab_size=600).train(make_corpus(texts["text"].to_pylist())), folder / "tokenizer")
    world = World.of(pages, texts, folder / "tokenizer")
    FOLDER.mkdir(exist_ok=True)
    for name, table in (("pages", world.pages), ("encoded", world.encoded)):
        with pa.ipc.new_file(FOLDER / f"{name}.arrow", table.schema, options=pa.ipc.IpcWriteOptions(compression="zstd")) as out:
            out.write_table(table)
    shutil.copy(folder / "tokenizer/tokenizer.json", FOLDER / "tokenizer.json")
    return []


def _update(folder: Path, names: Sequence[str]) -> list[str]:
    inputs, kept = Inputs.make(folder), read()
    # What is not measured stays as it is; a stage that is gone goes.
    found = {name: measured(name, inputs) if name in names or name not in kept else kept[name] for name in STAGES}
    new, wrong = update(kept, found)
    OUTPUTS.write_text(json.dumps({name: vars(each) for name, each in new.items()}, indent=1) + "\n")
    return wrong


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.contract.golden", description=__doc__)
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--update", nargs="*", metavar="STAGE")
    what.add_argument("--inputs", action="store_true")
    asked = parser.parse_args(argv)
    with tempfile.TemporaryDirectory() as folder:
        wrong = _inputs(Path(folder)) if asked.inputs else _update(Path(folder), asked.update or list(STAGES))
    sys.stderr.writelines(f"{line}\n" for line in wrong)
    return 2 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
