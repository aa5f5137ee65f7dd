"""The bytes of tokens from a `tokenizer.json`: those of the vocabulary that is parsed from the same file."""

from __future__ import annotations

import json

from gristmill.tokenizer.parsing import parse
from gristmill.tokenizer.token_bytes import make_token_bytes, parse_token_bytes
from gristmill.tokenizer.token_names import alphabet
from gristmill.tokenizer.vocabulary import Vocabulary, to_json


def test_added_tokens_have_the_ids_that_the_library_gives_them(caplog) -> None:
    data = json.loads(to_json(Vocabulary(tuple(alphabet()))))
    flags = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False}
    listed = [(400, "<e>", True), (402, "<t>", False)]
    data["added_tokens"] = [{"id": i, "content": name, "special": special} | flags for i, name, special in listed]
    text = json.dumps(data)
    table, vocabulary = parse_token_bytes(text, "x"), parse(text, "x")
    assert [token.id for token in vocabulary.added] == [256, 257]
    assert table.lengths.tolist() == [*[1] * 256, 0, 3] and table.size == vocabulary.size
    assert table.data.tobytes() == make_token_bytes(vocabulary.of_text()).data.tobytes() == b"".join(alphabet()) + b"<t>"
    assert "gives '<e>' the id 400, the Hugging Face library 256" in caplog.text
