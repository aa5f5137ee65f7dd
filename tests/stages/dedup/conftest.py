"""The texts of the example crawl, extracted once for all tests of deduplication."""

from __future__ import annotations

from pathlib import Path

import pytest
from fastwarc.warc import ArchiveIterator, WarcRecordType
from resiliparse.extract.html2text import extract_plain_text

CRAWL = Path(__file__).parents[3] / "examples" / "crawl"


@pytest.fixture(scope="session")
def crawl() -> list[str]:
    texts = []
    for path in sorted(CRAWL.glob("*.warc.gz")):
        with path.open("rb") as file:
            for record in ArchiveIterator(file, record_types=WarcRecordType.response):
                page = record.reader.read().decode("utf-8", "replace")
                texts.append(extract_plain_text(page, main_content=True))
    return texts
