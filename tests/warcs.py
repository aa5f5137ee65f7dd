"""WARC files for the tests: real members of the example crawl, pages of our own, and damage."""

from __future__ import annotations

import gzip
import zlib
from pathlib import Path

CRAWL = Path(__file__).parent.parent / "examples" / "crawl"


def members(path: Path) -> list[bytes]:
    """Return the gzip members of a file, byte for byte; in our crawl each is one record."""
    data = path.read_bytes()
    found = []
    while data:
        unpacker = zlib.decompressobj(wbits=31)
        unpacker.decompress(data)
        assert unpacker.eof
        size = len(data) - len(unpacker.unused_data)
        found.append(data[:size])
        data = data[size:]
    return found


def real_pages(count: int, file: int = 0, skip: int = 0) -> bytes:
    """Return `count` responses of the crawl, with the request records between them."""
    kept = []
    seen = 0
    for member in members(CRAWL / f"docs-0000{file}.warc.gz"):
        if b"WARC-Type: response" in gzip.decompress(member)[:400]:
            seen += 1
            if seen > skip + count:
                break
        if seen > skip or not seen:
            kept.append(member)
    return b"".join(kept)


def record(url: str, body: bytes, content_type: str = "text/html; charset=utf-8", lie: int = 0) -> bytes:
    """Return one uncompressed response record; `lie` is added to its WARC Content-Length."""
    http = b"HTTP/1.1 200 OK\r\nContent-Type: " + content_type.encode() + b"\r\n"
    http += b"Content-Length: " + str(len(body)).encode() + b"\r\n\r\n" + body
    head = [
        "WARC/1.0",
        "WARC-Type: response",
        f"WARC-Target-URI: {url}",
        "WARC-Date: 2026-01-02T03:04:05Z",
        "Content-Type: application/http;msgtype=response",
        f"Content-Length: {len(http) + lie}",
    ]
    return "\r\n".join(head).encode() + b"\r\n\r\n" + http + b"\r\n\r\n"


def page(text: str) -> bytes:
    """Return an HTML page whose main content is `text`, long enough to be extracted."""
    filler = " ".join(f"Sentence number {i} of this page says what the page is about." for i in range(12))
    html = f"<html><head><title>t</title></head><body><main><h1>{text}</h1><p>{text} {filler}</p></main></body></html>"
    return html.encode()


def packed(*records: bytes) -> bytes:
    """Return records as a gzip member each, the same bytes at any time."""
    return b"".join(gzip.compress(each, mtime=0) for each in records)


def damaged_crawl(folder: Path) -> None:
    """Write a small crawl with every kind of damage, among good pages."""
    folder.mkdir(parents=True, exist_ok=True)
    good = real_pages(25)
    (folder / "00-good.warc.gz").write_bytes(good)
    (folder / "01-truncated.warc.gz").write_bytes(real_pages(15, 1)[:-3000])
    (folder / "02-empty.warc.gz").write_bytes(b"")
    url = "http://test.example"
    mixed = [
        record(f"{url}/plain", page("a plain page")),
        record(f"{url}/not-utf8", b"<html><body><p>" + b"\x81\x8d broken \xff\x9d " * 40 + b"</p></body></html>"),
        record(f"{url}/raises", page("this one says boom aloud")),
        record(f"{url}/crashes", page("this one says crash aloud")),
        record(f"{url}/grows", page("this one says grow aloud")),
        record(f"{url}/latin1", page("café déjà vu").decode().encode("latin-1"), "text/html; charset=iso-8859-1"),
        record(f"{url}/copy", page("a plain page")),
    ]
    (folder / "03-mixed.warc.gz").write_bytes(packed(*mixed))
    lying = packed(record(f"{url}/before", page("before the lie")), record(f"{url}/lies", page("the lie"), lie=5000))
    (folder / "04-lying.warc.gz").write_bytes(lying + packed(record(f"{url}/after", page("after the lie"))))
    short = packed(record(f"{url}/short", page("too short a length"), lie=-200), record(f"{url}/next", page("the next page")))
    (folder / "05-short.warc.gz").write_bytes(short)
    (folder / "06-no-warc.warc.gz").write_bytes(b"this is not a web archive " * 50)
    (folder / "07-more.warc.gz").write_bytes(real_pages(20, 1, skip=30))
