"""`measure-tokenizer` on whatever `encode` takes: normalizers, single digits, added tokens, other models than byte-level BPE."""

import json
from pathlib import Path

import pytest
from tokenizers import Tokenizer

from jobs.__main__ import main
from tests.gristmill.tokenizer.other_files import bert, llama2, t5
from tests.gristmill.tokenizer.published import trained
from tests.jobs.tokenizer.test_train import table, write_build

TEXTS = [
    "The cat sat on the mat, e\u0301te\u0301 1234 <tool> the hat.\n" * 8,
    "the cat on the mat " * 30,
    "Größe 日本語 и кошка " * 12,
]
KINDS = ("qwen", "smollm", "lower")
OTHERS = {"llama2": llama2, "t5": t5, "bert": bert}


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    folder = tmp_path_factory.mktemp("measured")
    texts = [f"{text}{i}" for i, text in enumerate(TEXTS * 3)]
    write_build(folder / "texts", [table(texts, ["en" if i % 3 else "de" for i in range(len(texts))])])
    for kind in KINDS:
        (folder / f"{kind}.json").write_text(trained(kind))
    for kind, make in OTHERS.items():
        (folder / f"{kind}.json").write_text(make().to_str())
    return folder


def test_all_kinds_stand_side_by_side(place, monkeypatch, capsys):
    monkeypatch.chdir(place)
    kinds = [*KINDS, *OTHERS]
    files = [f"{kind}.json" for kind in kinds]
    assert main(["measure-tokenizer", *files, "--on", "texts", "--mixture", "--json"]) == 0
    summary = json.loads(capsys.readouterr().out)
    texts = [f"{text}{i}" for i, text in enumerate(TEXTS * 3)]
    for kind, found in zip(kinds, summary["tokenizers"], strict=True):
        library = Tokenizer.from_file(f"{kind}.json")
        library.encode_special_tokens = True
        tokens = sum(len(library.encode(text, add_special_tokens=False).ids) for text in texts)
        assert found["tokens"] == tokens, kind
        assert found["vocab_size"] == max(library.get_vocab().values()) + 1
        assert found["bytes_per_token"] == pytest.approx(summary["bytes"] / tokens)
        assert ("has none" in found["mixture"].get("error", "")) == (kind in OTHERS)
    by_kind = dict(zip(kinds, summary["tokenizers"], strict=True))
    assert by_kind["smollm"]["round_trip"]["same"] == len(texts)
    assert by_kind["qwen"]["round_trip"]["same"] == len(texts) - 3  # NFC changes the others
    assert main(["measure-tokenizer", "qwen.json", "t5.json", "--on", "texts", "--page", "all.html"]) == 0
    page = Path("all.html").read_text()
    assert "qwen.json" in page and "t5.json" in page
