"""What a training says of itself: the end token, texts held out, the transition that was chosen, what came of a quota."""

import json

import pytest

from gristmill.tokenizer import Bpe, SuperBpe
from gristmill.tokenizer.vocabulary import Vocabulary
from jobs.tokenizer import train
from jobs.tokenizer.corpus import Sample
from jobs.tokenizer.record import decided, end_token, lines, transformers_config
from tests.gristmill.tokenizer.slow import crawl_texts
from tests.jobs.tokenizer.test_train import table, write_build, write_recipe

BYTES = tuple(bytes([byte]) for byte in range(256))


@pytest.fixture(scope="module")
def build(tmp_path_factory):
    texts = crawl_texts(60)
    folder = tmp_path_factory.mktemp("documents")
    write_build(folder / "texts", [table(texts, ["de" if i % 4 == 0 else "en" for i in range(len(texts))])])
    return folder / "texts"


def trained(folder, build, scheme, capsys, **settings):
    """Return the record, the config for transformers, and what was said."""
    assert train.train(write_recipe(folder, build, scheme, **settings)) == 0
    read = [json.loads((folder / "tok" / name).read_text()) for name in ("recipe.json", "tokenizer_config.json")]
    return (*read, capsys.readouterr().err)


@pytest.mark.parametrize(
    ("more", "end"),
    [
        ("special_tokens: [<s>, </s>]", None),
        ("special_tokens: [<s>, </s>], eos_token: </s>", "</s>"),
        ("special_tokens: [<pad>, <|endoftext|>]", "<|endoftext|>"),
        ("special_tokens: []", None),
    ],
)
def test_the_end_token_is_named_not_the_first(tmp_path, build, capsys, more, end):
    record, config, said = trained(tmp_path, build, f"bpe: {{vocab_size: 300, {more}}}", capsys)
    assert config["eos_token"] == record["tokenizer"]["eos_token"] == end
    assert ("no end token is named" in said) == (end is None)


@pytest.mark.parametrize("end", ["</s>", {"content": "</s>", "lstrip": False}], ids=["name", "token"])
def test_a_base_names_its_end_token_and_what_it_has_for_chat(tmp_path, end):
    (tmp_path / "tokenizer.json").write_text("{}")
    given = {"eos_token": end, "bos_token": "<s>", "chat_template": "{{ x }}", "tokenizer_class": "Slow", "add_bos_token": True}
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(given))
    held = Vocabulary((b"<s>", b"</s>", *BYTES), special_tokens={"<s>": 0, "</s>": 1})
    config = transformers_config(SuperBpe(vocab_size=300, base=str(tmp_path)), held)
    assert (config["eos_token"], config["bos_token"], config["chat_template"]) == ("</s>", "<s>", "{{ x }}")
    assert config["tokenizer_class"] == "PreTrainedTokenizerFast"
    assert end_token(SuperBpe(vocab_size=300, base=str(tmp_path), eos_token="<s>"), held) == "<s>"
    assert end_token(Bpe(vocab_size=300), held) is None


def test_texts_are_held_out_by_their_bytes(tmp_path, build, capsys):
    record, _, said = trained(tmp_path, build, "bpe: {vocab_size: 300}", capsys, held_out_bytes=20000)
    facts = record["tokenizer"]
    assert facts["held_out_bytes"] >= 20_000 and facts["held_out_enough"]
    assert "too little" not in said
    each = facts["held_out_by_stratum"].values()
    assert sum(one["bytes"] for one in each) == facts["held_out_bytes"]
    assert sum(one["documents"] for one in each) == facts["held_out_documents"]
    assert facts["bytes_per_token"] == round(facts["held_out_bytes"] / sum(one["tokens"] for one in each), 4)


def test_too_little_text_is_no_measurement_and_that_is_said(tmp_path, build, capsys):
    record, _, said = trained(tmp_path, build, "bpe: {vocab_size: 300}", capsys, held_out_bytes=10**9)
    facts = record["tokenizer"]
    assert not facts["held_out_enough"] and facts["held_out_bytes"] <= record["corpus"]["bytes"] / 10
    assert "fewer than held_out_bytes, 1,000,000,000: too little for a measurement" in said


def test_another_measure_is_another_recipe(tmp_path, build, capsys):
    trained(tmp_path, build, "bpe: {vocab_size: 300}", capsys)
    with pytest.raises(ValueError, match="made from another scheme"):
        train.train(write_recipe(tmp_path, build, "bpe: {vocab_size: 300}", held_out_bytes=1))


@pytest.mark.parametrize(
    ("share", "least", "most", "held"),
    [(0.1, 0, 1.0, 1), (0.1, 25, 1.0, 3), (0.1, 25, 0.2, 2), (0.1, 10**6, 1.0, 9), (0.5, 0, 0.1, 5)],
)
def test_documents_held_out_of_a_sample(share, least, most, held):
    whole = Sample(tuple("abcdefghij"), (b"x" * 10,) * 10, ("",) * 10)
    training, apart = whole.split(share, least, most)
    assert (len(training), len(apart)) == (10 - held, held)
    assert training.ids + apart.ids == whole.ids


def test_a_language_of_which_nothing_is_held_out_has_no_outcome():
    held = Vocabulary(BYTES)
    notes = {"plain": held}
    scheme = SuperBpe(vocab_size=300, transition=280, max_loss=0.1)
    found = decided(scheme, held, notes, Sample(("a",), (b"some text",), ("en",)), ["de", "en"])
    assert found["quota"]["by_stratum"] == {
        "de": {"tokens": 0, "plain_tokens": 0, "loss": None, "holds": None},
        "en": {"tokens": 9, "plain_tokens": 9, "loss": 0.0, "holds": True},
    }
    facts = {"eos_token": "x", "held_out_documents": 1, "held_out_bytes": 9, "bytes_per_token": 1.0, "held_out_enough": True}
    said = list(lines({"training": found, "tokenizer": facts}, 0))
    assert said[0] == "quota of de: unknown, as no document of it is held out" and said[1].startswith(
        "quota of en: +0.00% tokens"
    )


def test_what_came_of_a_transition_and_of_a_quota_is_recorded_and_said(tmp_path, build, capsys):
    scheme = "superbpe: {vocab_size: 500, transition: auto, max_loss: -0.01}"
    record, _, said = trained(tmp_path, build, scheme, capsys)
    transition, quota = record["training"]["transition"], record["training"]["quota"]
    assert f"transition at {transition['chosen']} tokens: " in said and said.count("chosen") == 1
    assert len(transition["tried"]) == sum(line.startswith("transition at") for line in said.splitlines())
    assert quota["max_loss"] == -0.01 and set(quota["by_stratum"]) == {"de", "en"}
    for name, one in quota["by_stratum"].items():
        assert one["loss"] == round(one["tokens"] / one["plain_tokens"] - 1, 4)
        assert one["holds"] == (one["loss"] <= -0.01)
        assert one["tokens"] == record["tokenizer"]["held_out_by_stratum"][name]["tokens"]
        assert f"quota of {name}: {one['loss']:+.2%} tokens" in said
