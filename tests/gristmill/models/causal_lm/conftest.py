"""A saved model that several files of tests open."""

from __future__ import annotations

from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def llama(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that tests copy and spoil."""
    import transformers

    from tests.gristmill.models.causal_lm.saved_models import SIZES, made

    folder = tmp_path_factory.mktemp("models") / "llama"
    made(transformers.LlamaConfig(**SIZES)).save_pretrained(folder)
    return folder
