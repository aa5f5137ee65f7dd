"""The stage: columns and what the manifest says of them, from shards that are counted apart, and mistakes with tokenizers."""

from __future__ import annotations

import hashlib
import json

import numpy as np
import pyarrow as pa
import pytest

from gristmill import StoredMask, TokenDataset, TokenLoader
from gristmill.errors import InputError
from gristmill.models.build_tokenizer import read
from gristmill.selection.histogram import starts_of
from gristmill.selection.policy import Cap, Policy, Term
from gristmill.selection.schemes import Scheme
from gristmill.selection.selection import Tokens, judge
from gristmill.tokenizer.files import save
from gristmill.tokenizer.token_names import unspell
from gristmill.tokenizer.vocabulary import Vocabulary
from stages.score.select import Select
from tests.contract.test_stages import met
from tests.gristmill.builds import documents, folder_of, manifest_of, publish

LETTERS = {chr(97 + i) * (i + 1): i for i in range(20)}
FILE = json.dumps(
    {"model": {"type": "BPE", "vocab": LETTERS, "merges": []}, "decoder": {"type": "ByteLevel"}, "added_tokens": []}
)
LOSS, OTHER = (Term(model="a"),), Term(model="b", weight=-1.0)


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory):
    """A folder with a tokenizer of 20 tokens; that of id i has i + 1 bytes."""
    folder = tmp_path_factory.mktemp("letters")
    (folder / "tokenizer.json").write_text(FILE)
    return folder


def scored(rng, file, tokenizer, count=60, longest=400):
    """Return the documents of an input file, as two models have scored them; some tokens lack the second's loss."""
    ids = [rng.integers(0, 20, length).tolist() for length in rng.integers(0, longest, count)]
    sha256 = hashlib.sha256((tokenizer / "tokenizer.json").read_bytes()).hexdigest()
    columns = {}
    for name, rate in (("ref_loss.a", 0), ("ref_loss.b", 0.01), ("entropy.a", 0)):
        columns[name] = [np.where(rng.random(len(row)) < rate, np.nan, rng.gamma(2.0, 1.5, len(row))) for row in ids]
        for row in columns[name]:
            row[:1] = np.nan
    return documents(ids, file=file, scores=columns, vocab_size=20, tokenizer=sha256)


@pytest.fixture(scope="module")
def shards(tokenizer):
    rng = np.random.default_rng(21)
    return [scored(rng, f"crawl-{number}.warc.gz", tokenizer) for number in range(3)]


def run(stage, shards):
    """Return the shards, counted in two tables each, with the columns of the stage."""
    apply = stage.apply(met(stage, [[shard.slice(0, 23), shard.slice(23)] for shard in shards]))
    return [apply(shard) for shard in shards]


def flat(tables, column):
    return np.concatenate([table[column].combine_chunks().values.to_numpy(zero_copy_only=False) for table in tables])


def about(table, column):
    return json.loads(table.schema.field(column).metadata[b"about"])


def tokens_of(shards):
    """Return all tokens as the pure functions take them."""
    names = {("a", "nll"): "ref_loss.a", ("b", "nll"): "ref_loss.b", ("a", "entropy"): "entropy.a"}
    bounds = np.append(0, np.cumsum(np.concatenate([shard["input_ids"].combine_chunks().value_lengths() for shard in shards])))
    starts = starts_of([name for shard in shards for name in shard["id"].to_pylist()])
    number = np.repeat(np.arange(len(shards), dtype=np.uint64), [shard.num_rows for shard in shards])
    return Tokens(
        {key: flat(shards, name) for key, name in names.items()}, bounds, starts, flat(shards, "input_ids") + np.int32(1), number
    )


POLICIES = {
    "all": Policy(score=(*LOSS, OTHER), direction="high", keep=0.6, unit="bytes"),
    "byte": Policy(score=(*LOSS, OTHER), direction="high", keep=0.6, unit="bytes", per="byte"),
    "file": Policy(score=LOSS, direction="low", keep=0.3, scope="shard"),
    "own": Policy(score=LOSS, direction="low", keep=0.5, scope="document", unit="bytes"),
    "piece": Policy(score=LOSS, direction="high", keep=0.5, scope="sequence", sequence_tokens=32),
    "fixed": Policy(score=(*LOSS, OTHER), direction="high", threshold=0.5),
    "capped": Policy(score=LOSS, direction="high", keep=0.4, cap=Cap(model="b", value=4.0)),
    "both": Scheme(scheme="self_reference", model="a"),
    "soft": Policy(score=LOSS, direction="low", keep=0.4, soft=0.5),
    "rho1": Scheme(scheme="rho1", reference="b", keep=0.7),
}


@pytest.fixture(scope="module")
def found(shards, tokenizer):
    return run(Select(policies=POLICIES, tokenizer=str(tokenizer)), shards)


def test_shards_counted_apart_are_selected_as_all_tokens_at_once(found, shards):
    tokens = tokens_of(shards)
    for name, given in POLICIES.items():
        if name == "rho1":
            continue
        policy = given.policy() if isinstance(given, Scheme) else given
        judged = judge(policy, tokens)
        if policy.weighs:
            np.testing.assert_array_equal(flat(found, f"weight.{name}"), judged.weight.astype(np.float16))
        else:
            np.testing.assert_array_equal(flat(found, f"selected.{name}"), judged.selected)
        if name == "both":
            assert "score.both" not in found[0].column_names
        else:
            np.testing.assert_array_equal(flat(found, f"score.{name}"), judged.scores[0].astype(np.float16))
    np.testing.assert_array_equal(flat(found, "score.rho1"), flat(shards, "ref_loss.b"))
    assert not {"selected.rho1", "weight.rho1", "selected.soft"} & set(found[0].column_names)


def test_the_manifest_says_what_is_kept(found, shards):
    """The same of all shards; shares within a tenth of a point of the columns', however a policy selects."""
    tokens = tokens_of(shards)
    lengths, firsts = tokens.lengths, np.unique(tokens.bounds[:-1][np.diff(tokens.bounds) > 0])
    for name, given in POLICIES.items():
        policy = given.policy() if isinstance(given, Scheme) else given
        column = {"soft": "weight.soft", "rho1": "score.rho1"}.get(name, f"selected.{name}")
        said = about(found[0], column)
        assert all(about(table, column) == said for table in found)
        missing = np.isnan(sum(tokens.signals[term.model, term.signal].astype(float) for term in policy.terms()))
        assert said["candidates"] == {"tokens": int((~missing).sum()), "bytes": int(lengths[~missing].sum())}
        assert said["missing"] == missing.sum() - len(firsts)
        assert said["policy"]["keep"] == policy.keep
        if name == "rho1":
            continue
        if name == "both":
            assert said["kept"] is None and len(said["gates"]) == 2
            assert all(abs(gate["kept"]["tokens"] - 0.7) < 1e-9 and gate["error"] < 0.005 for gate in said["gates"])
            assert said["scheme"] == {"name": "self_reference", "model": "a"}
            continue
        chosen = judge(policy, tokens).selected
        real = {"tokens": chosen[~missing].mean(), "bytes": lengths[chosen].sum() / lengths[~missing].sum()}
        assert said["kept"] == pytest.approx(real, abs=0.001), name
    assert about(found[0], "selected.all")["kept"]["bytes"] == pytest.approx(0.6, abs=1e-9)
    assert about(found[0], "selected.fixed")["gates"] == [{"threshold": 0.5}]
    scores = flat(found, "score.all")[flat(found, "selected.all")]
    assert about(found[0], "selected.all")["gates"][0]["threshold"] == pytest.approx(scores.min(), abs=0.001)
    edges = about(found[0], "selected.file")["gates"][0]
    assert edges["shards"] == 3 and edges["thresholds"][0] < edges["thresholds"][1]
    assert about(found[0], "score.byte") == {"unit": "nats a byte", "direction": "high"}


def test_each_shard_has_its_share(found):
    for table in found:
        scores, chosen = (table[name].combine_chunks().values for name in ("ref_loss.a", "selected.file"))
        scored = ~np.isnan(scores.to_numpy())
        assert abs(chosen.to_numpy(zero_copy_only=False)[scored].mean() - 0.3) < 0.001
        assert not chosen.to_numpy(zero_copy_only=False)[~scored].any()


def test_rho1_tells_the_reader_what_to_do(found):
    said = about(found[0], "score.rho1")
    assert said["reader"] == {"score": "loss of the model in training - score.rho1", "keep": 0.7, "scope": "batch"}
    assert said["scheme"] == {"name": "rho1", "reference": "b", "keep": 0.7} and "kept" not in said


def test_a_build_with_masks(shards, tokenizer, tmp_path):
    """Through the sink into the reader: sidecars by policy, the manifest with what is said of them, batches with the mask."""
    stage = Select(policies={"all": POLICIES["all"], "soft": POLICIES["soft"]}, tokenizer=str(tokenizer))
    tables = [table.drop_columns(["ref_loss.a", "ref_loss.b", "entropy.a"]) for table in run(stage, shards)]
    assembly = publish([[table] for table in tables], tmp_path)
    manifest = manifest_of(assembly)
    assert {name: side.columns for name, side in manifest.shards[0].sidecars.items()} == {
        "all": {"selected.all": "bool", "score.all": "float16"},
        "soft": {"weight.soft": "float16", "score.soft": "float16"},
    }
    assert manifest.about["all"]["selected.all"] == about(tables[0], "selected.all")
    assert list(manifest.about["soft"]) == ["score.soft", "weight.soft"]
    dataset = TokenDataset.open(folder_of(assembly, tmp_path), sequence_length=64)
    assert dataset.manifest().about == manifest.about
    loader = TokenLoader(dataset, 1, select=StoredMask(column="selected.all"))
    batches = [batch for _, batch in zip(range(len(dataset)), loader, strict=False)]
    assert sum(int(batch.loss_mask.sum()) for batch in batches) == pytest.approx(flat(tables, "selected.all").sum(), rel=0.01)


def test_scores_and_bytes_are_left_out_where_they_are_not_wanted(shards):
    stage = Select(policies={"x": Policy(score=LOSS, direction="high", keep=0.5), "r": POLICIES["rho1"]}, scores=False)
    assert (
        list(stage.adds()) == ["score.r", "selected.x"]
        and stage.files() == ()
        and stage.needs()[1:] == ("ref_loss.b", "ref_loss.a")
    )
    (table,) = run(stage, shards[:1])
    said = about(table, "selected.x")
    assert said["candidates"]["bytes"] is None and said["kept"]["bytes"] is None
    assert said["kept"]["tokens"] == pytest.approx(0.5) and said["gates"][0]["kept"]["bytes"] is None


def test_no_documents_at_all(shards, tokenizer):
    empty = [shard.slice(0, 0) for shard in shards]
    tables = run(Select(policies=POLICIES, tokenizer=str(tokenizer)), empty)
    assert all(table.num_rows == 0 for table in tables)
    said = about(tables[0], "selected.all")
    assert (said["kept"], said["gates"][0]["threshold"]) == ({"tokens": None, "bytes": None}, None)


def test_losses_of_any_float_type(shards):
    stage = Select(policies={"x": Policy(score=LOSS, direction="high", keep=0.5, scope="document")})
    wide = [
        shard.set_column(shard.column_names.index("ref_loss.a"), "ref_loss.a", shard["ref_loss.a"].cast(pa.list_(pa.float32())))
        for shard in shards
    ]
    one, other = (flat(run(stage, given), "selected.x") for given in (shards, wide))
    assert np.array_equal(one, other) and one.any()


def test_the_tokenizer_must_be_there_and_the_one_that_made_the_ids(shards, tokenizer, tmp_path):
    def stage(path):
        return Select(policies={"x": POLICIES["byte"]}, tokenizer=str(path))

    with pytest.raises(InputError, match=r"tokenizer '.*/none/tokenizer.json' does not exist; name the folder that `encode` has"):
        stage(tmp_path / "none").check()
    (tmp_path / "tokenizer.json").write_text(FILE + " ")
    stage(tmp_path).check()
    with pytest.raises(
        InputError, match=r"^select: tokenizer '.*tokenizer.json' has sha256 [0-9a-f]{64}, the tokens were made by"
    ):
        stage(tmp_path).open()(shards[0])
    (tmp_path / "tokenizer.json").write_text("{}")
    with pytest.raises(InputError, match=r"is not a tokenizer\.json"):
        stage(tmp_path).check()
    (tmp_path / "tokenizer.json").write_bytes(b"\xff\xfe")
    with pytest.raises(InputError, match="is not text"):
        stage(tmp_path).check()
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match=r"is neither a tokenizer.json nor a folder that holds one"):
        stage(tmp_path / "file").check()
    assert stage(tokenizer).files() == stage(tokenizer / "tokenizer.json").files() == (f"{tokenizer}/tokenizer.json",)


def test_the_tokenizer_may_be_of_the_form_that_no_tokenizer_json_can_say(shards, tokenizer, tmp_path):
    tokens = (*(unspell(letter) or b"" for letter in LETTERS), b"<|end|>")
    path = save(Vocabulary(tokens, special_tokens={"<|end|>": 20}, inference="longest_prefix"), tmp_path)
    made, standard = read(str(tmp_path)), read(str(tokenizer))
    assert (made.path, made.sha256) == (str(path), hashlib.sha256(path.read_bytes()).hexdigest())
    assert made.table.lengths.tolist() == [*standard.table.lengths.tolist(), 0]
    assert Select(policies={"x": POLICIES["byte"]}, tokenizer=str(tmp_path)).files() == (str(path),)


def test_an_input_file_in_which_no_token_has_a_score_has_none_selected(shards, tokenizer):
    sha256 = hashlib.sha256((tokenizer / "tokenizer.json").read_bytes()).hexdigest()
    lone = documents(
        [[3], [5], []], file="lone", scores={"ref_loss.a": [[np.nan], [np.nan], []]}, vocab_size=20, tokenizer=sha256
    )
    few = shards[0].select(lone.column_names)
    stage = Select(policies={name: Policy(score=LOSS, direction="low", keep=0.3, scope="shard", soft=soft) for name, soft in
                             (("hard", None), ("soft", 0.5))})  # fmt: skip
    both = run(stage, [few, lone])
    assert flat(both[:1], "selected.hard").any() and not flat(both[1:], "selected.hard").any()
    np.testing.assert_array_equal(flat(both[1:], "weight.soft"), 0)
