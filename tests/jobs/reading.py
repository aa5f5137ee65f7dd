"""What the tests of the report share: a strict reader of pages, and the parts of a ledger's summary."""

from html.parser import HTMLParser

import pyarrow as pa

from pipeline.units.ledger import Measure


def measure(values, kind):
    made = Measure("number")
    made.add(pa.chunked_array([pa.array(values, kind)]))
    return {"kind": "number", "count": made.count, "sum": made.total, "min": made.low, "max": made.high, "bins": made.bins()}


def stage(name, taken, dropped=None, quarantined=None, **parameters):
    lost = sum((dropped or {}).values()) + sum((quarantined or {}).values())
    seconds = 0.25 + taken / 90
    return {
        "stage": name,
        "parameters": parameters,
        "version": 2 if parameters else 1,
        "in": taken,
        "kept": taken - lost,
        "dropped": dropped or {},
        "quarantined": quarantined or {},
        "cpu_s": seconds,
        "wall_s": seconds * 1.1,
    }


def sample(number, text, url):
    return {"id": f"{number:032x}", "url": url, "file": "docs-00000.warc.gz", "offset": 70_001 + number, "text": text}


class Reader(HTMLParser):
    """Checks nesting while it reads; keeps elements, the text of scripts and styles, and `<data>` by section."""

    VOID = frozenset({"meta", "input", "wbr"})

    def __init__(self, text):
        super().__init__(convert_charrefs=True)
        self.open, self.elements, self.raw, self.words, self.section, self.figures = [], [], {}, [], "", {}
        self.feed(text)
        self.close()
        assert not self.open, f"never closed: {self.open}"

    def handle_starttag(self, name, attributes):
        found = dict(attributes)
        assert len(found) == len(attributes), f"an attribute twice in <{name}>"
        self.elements.append((name, found))
        if name == "section":
            self.section = found.get("id", "headline")
        if name == "data":
            self.figures.setdefault(self.section, []).append(float(found["value"]))
        if name not in self.VOID:
            self.open.append(name)

    def handle_endtag(self, name):
        assert self.open and self.open.pop() == name, f"</{name}> closes nothing"

    def handle_data(self, text):
        if self.open and self.open[-1] in ("script", "style"):
            self.raw.setdefault(self.open[-1], []).append(text)
        else:
            self.words.append(text)

    @property
    def text(self):
        return "".join(self.words)

    def attributes(self, name):
        return [(element, found[name]) for element, found in self.elements if name in found]
