"""Tokenizers made on top of others keep what these have; what training tried and chose is told."""

import json
import unicodedata

import pytest
from tokenizers import Tokenizer

from gristmill.errors import InputError
from gristmill.tokenizer import SCHEMES, SuperBpe
from gristmill.tokenizer.training.corpus import make_corpus
from gristmill.tokenizer.vocabulary import to_json
from tests.gristmill.tokenizer.published import trained, with_template
from tests.gristmill.tokenizer.slow import TINY, crawl_texts


@pytest.mark.parametrize("scheme", ["superbpe", "mwt"])
def test_what_a_base_has_besides_its_merges_stays(tmp_path, scheme):
    """Its normalizer, the tokens beside the model with their flags, post-processor and decoder: ids of one text begin alike."""
    kind = with_template(trained("qwen"), "<|im|>")
    (tmp_path / "tokenizer.json").write_text(kind)
    texts = [*TINY, *crawl_texts(20)]
    made = SCHEMES[scheme](vocab_size=1000, base=str(tmp_path), eos_token="<|im|>").train(make_corpus(texts))
    before, after = json.loads(kind), json.loads(to_json(made))
    for key in ("normalizer", "post_processor", "decoder", "added_tokens"):
        assert after[key] == before[key]
    for token, i in before["model"]["vocab"].items():
        assert after["model"]["vocab"][token] == i
    theirs, ours = Tokenizer.from_str(kind), Tokenizer.from_str(to_json(made))
    text = "e\u0301 of the cat <tool>the</tool>"
    assert ours.encode(text).ids[0] == theirs.encode(text).ids[0] == ours.token_to_id("<|im|>")
    assert ours.token_to_id("<tool>") in ours.encode(text).ids
    assert ours.decode(ours.encode(text).ids) == unicodedata.normalize("NFC", text)
    assert len(ours.get_vocab()) > len(theirs.get_vocab()) and len(ours.encode(texts[-1]).ids) < len(theirs.encode(texts[-1]).ids)
    with pytest.raises(InputError, match=r"eos_token '<x>' is no special token of base .*it has <\|endoftext\|>, <\|im\|>"):
        SCHEMES[scheme](vocab_size=1000, base=str(tmp_path), eos_token="<x>").train(make_corpus(texts))


def test_a_transition_that_is_chosen_says_what_was_tried():
    notes = {}
    texts = crawl_texts(60)
    made = SuperBpe(vocab_size=500, transition="auto").train(make_corpus(texts), note=notes.__setitem__)
    found = notes["transition"]
    assert str(found["chosen"]) in found["tried"] and len(found["tried"]) > 1
    tokens = {int(size): one["held_out_tokens"] for size, one in found["tried"].items()}
    assert found["chosen"] == min(tokens, key=lambda size: (tokens[size], size))
    assert 0 < found["held_out_documents"] < len(texts) and found["held_out_bytes"] > max(tokens.values())
    assert to_json(SuperBpe(vocab_size=500, transition=found["chosen"]).train(make_corpus(texts))) == to_json(made)
