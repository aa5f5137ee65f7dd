"""Texts of the example crawl, extracted once for all tests of the filters."""

from __future__ import annotations

from pathlib import Path

import pytest
from fastwarc.warc import ArchiveIterator, WarcRecordType
from resiliparse.extract.html2text import extract_plain_text

CRAWL = Path(__file__).parents[3] / "examples" / "crawl"


@pytest.fixture(scope="session")
def crawl_texts() -> list[str]:
    """Every fifth page, 168 in all, in five languages."""
    texts = []
    for path in sorted(CRAWL.glob("*.warc.gz")):
        with path.open("rb") as file:
            for number, record in enumerate(ArchiveIterator(file, record_types=WarcRecordType.response)):
                if number % 5 == 0:
                    page = record.reader.read().decode("utf-8", "replace")
                    texts.append(extract_plain_text(page, main_content=True, preserve_formatting=True))
    return texts
