"""The sections of the page of `measure-tokenizer`: figures side by side, languages, vocabulary, consistency, superwords, mixture.

Reads the summary that `measure_tokenizer.py` makes, returns markup.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from gristmill.tokenizer.measuring.consistency import WINDOW_TOKENS
from gristmill.tokenizer.measuring.measure import RARE, RENYI_ORDER
from jobs.html.markup import Html, data, join, percent, plural, tag

Summary = Mapping[str, Any]
Spelled = Mapping[int, tuple[str, int]]
Heat = Sequence[Mapping[str, Any]]

SHOWN = 300  # tokens of a list
COLOURS = 4
HEAT_STEPS = (1, 3, 5, 9, 14)  # bytes of a token from which on it has the next colour
VISIBLE = {" ": "␣", "\n": "↵", "\t": "⇥", "\r": "␍"}


def signed(share: float) -> str:
    """Return a change in percent with its sign."""
    return f"{100 * share:+.1f}%".replace("-", "−")


def visible(text: str) -> str:
    """Return a token's text with white space as signs."""
    return "".join(VISIBLE.get(letter, letter) for letter in text)


# Side by side


def overview(summary: Summary) -> Html:
    """Return the table of all tokenizers with what each figure means."""
    figures: list[tuple[str, str, Callable[[Mapping[str, Any]], Html | str]]] = [
        ("Tokens", "ids in all, special ones too", lambda t: data(t["vocab_size"])),
        ("Bytes per token", "bytes of UTF-8 / tokens: higher is shorter", lambda t: _shown(t["bytes_per_token"])),
        ("NSL", "tokens / tokens of the baseline: lower is shorter", lambda t: _shown(t["nsl"])),
        (
            "Rényi efficiency",
            f"how evenly tokens are used, order {RENYI_ORDER}, from 0 to 1",
            lambda t: _shown(t["renyi_efficiency"]),
        ),
        ("Never used", "of the tokens that text can become", lambda t: _part(t, "never")),
        ("Rarely used", f"fewer than {RARE} times in the sample", lambda t: _part(t, "rare")),
        (
            "Round trip",
            "documents that decode to their own text",
            lambda t: percent(t["round_trip"]["same"], t["round_trip"]["documents"]),
        ),
        (
            "Re-encoding",
            "windows of ids that encode to the same ids",
            lambda t: percent(t["reencoding"]["same"], t["reencoding"]["windows"]),
        ),
        ("Superwords", "tokens of more than one word", lambda t: data(t["superwords"]["tokens"])),
        ("Text in superwords", "share of all bytes", lambda t: percent(t["superwords"]["byte_share"], 1)),
    ]
    names = [tag("th", each["name"], class_="n", scope="col") for each in summary["tokenizers"]]
    rows = [
        tag(
            "tr",
            tag("td", tag("b", name), " ", tag("small", meaning)),
            [tag("td", cell(t), class_="n") for t in summary["tokenizers"]],
        )
        for name, meaning, cell in figures
    ]
    head = tag("thead", tag("tr", tag("th", "", scope="col"), names))
    return join(
        _lead(
            "Fewer tokens for the same text make training and serving cheaper; they do not by themselves make a better model. "
            "Figures are of this sample only."
        ),
        tag("div", tag("table", head, tag("tbody", rows)), class_="table"),
    )


def _part(tokenizer: Mapping[str, Any], key: str) -> Html:
    words = tokenizer["vocabulary"]
    return join(data(len(words[key])), " ", tag("small", percent(len(words[key]), words["tokens"])))


def _shown(value: float | None) -> Html | str:
    return "–" if value is None else data(value, f"{value:.3f}")


def _lead(*words: Html | str) -> Html:
    return tag("p", *words, class_="lead")


# By language


def languages(summary: Summary) -> Html:
    """Return a chart of bytes per token, grouped by language, with NSL and premium beside each bar."""
    reference = summary["reference"]
    most = max(facts["bytes_per_token"] or 0 for each in summary["tokenizers"] for facts in each["languages"].values())
    cells = [tag("span", head, class_=f"{place} headed") for place, head in (("group", "language"), ("n", "bytes/token"))]
    cells.append(tag("span", f"NSL · premium over {reference}", class_="note headed"))
    for name, held in summary["languages"].items():
        for number, each in enumerate(summary["tokenizers"]):
            facts = each["languages"][name]
            if facts["bytes_per_token"] is None:
                continue
            label = join(name, " ", tag("small", percent(held["bytes"], summary["bytes"]))) if number == 0 else ""
            hint = f"{each['name']}, {name}: {facts['bytes_per_token']:.3f} bytes per token"
            cells += [tag("span", label, class_="group"), _bar(facts["bytes_per_token"], most, number, hint)]
            cells.append(tag("span", _shown(facts["bytes_per_token"]), class_="n"))
            cells.append(tag("span", f"{facts['nsl']:.3f} · {facts['premium']:.2f}×", class_="note"))
        cells.append(tag("span", class_="gap"))
    return join(
        _lead(
            f"The premium is tokens per byte of a language over those of {reference} with the same tokenizer. The documents "
            "are no translations of each other, so it compares the same number of bytes, not the same content: scripts "
            "of two or three bytes a character pay more for the same content than this shows; code or "
            "English inside the documents counts too."
        ),
        _key(summary),
        tag("div", cells, class_="compare"),
    )


def _bar(part: float, whole: float, number: int, hint: str) -> Html:
    width = f"width:{100 * part / whole if whole else 0:.3f}%"
    return tag("span", tag("i", class_=f"t{number % COLOURS}", style=width), class_="meter", title=hint)


def _key(summary: Summary) -> Html:
    entries = [
        tag("span", tag("i", class_=f"t{number % COLOURS}"), each["name"]) for number, each in enumerate(summary["tokenizers"])
    ]
    return tag("p", entries, class_="key")


# The vocabulary


def vocabulary(summary: Summary, spelled: Sequence[Spelled]) -> Html:
    """Return the lists of tokens that are never or rarely used."""
    blocks = []
    for each, tokens in zip(summary["tokenizers"], spelled, strict=True):
        words = each["vocabulary"]
        lists = [
            _tokens("Never used", words["never"], tokens, counted=False),
            _tokens(f"Used fewer than {RARE} times", words["rare"], tokens, counted=True),
            _tokens("Do not encode to themselves", words["unreachable"], tokens, counted=True),
        ]
        special = plural(words["special"], "special token")
        apart = f"{plural(words['tokens'], 'token')} that text can become; apart from them {special}"
        gaps = f" and {plural(words['gaps'], 'unused id')}" if words["gaps"] else ""
        blocks.append(tag("div", tag("h3", each["name"]), tag("p", apart, gaps, ".", class_="more"), lists, class_="reasons"))
    return join(
        _lead(
            "A token that training hardly meets stays as it was initialised, and a prompt that has it gets nonsense: candidates "
            "for being under-trained. What is rare in this sample may be common elsewhere: a small sample "
            "shows many that are none."
        ),
        blocks,
    )


def _tokens(title: str, ids: Sequence[int], tokens: Spelled, *, counted: bool) -> Html:
    if not ids:
        return tag(
            "details", tag("summary", tag("b", title), tag("span", " 0", class_="count")), tag("p", "None.", class_="empty")
        )
    more = tag("p", f"and {len(ids) - SHOWN:,} more; --json has all.", class_="more") if len(ids) > SHOWN else None
    return tag(
        "details",
        tag("summary", tag("b", title), tag("span", " ", data(len(ids)), class_="count")),
        tag("ul", [_token(i, tokens, counted) for i in ids[:SHOWN]], class_="tokens"),
        more,
    )


def _token(i: int, tokens: Spelled, counted: bool) -> Html:
    text, count = tokens[i]
    return tag("li", tag("code", visible(text)), tag("small", f"{count:,}×") if counted else None, title=f"id {i}")


# There and back


def consistency(summary: Summary, spelled: Sequence[Spelled]) -> Html:
    """Return the rates of decode(encode(text)) == text and encode(decode(ids)) == ids, and examples of the second failing."""
    rows = []
    for each in summary["tokenizers"]:
        trip, again = each["round_trip"], each["reencoding"]
        cells = [
            percent(trip["same"], trip["documents"]),
            data(trip["documents"]),
            percent(again["same"], again["windows"]),
            data(again["windows"]),
            percent(again["other_tokens"], again["tokens"]),
            data(again["split"]),
        ]
        rows.append(tag("tr", tag("td", tag("b", each["name"])), [tag("td", cell, class_="n") for cell in cells]))
    heads = ("", "text comes back", "documents", "ids come back", "windows", "tokens that differ", "cut inside a character")
    head = tag("thead", tag("tr", [tag("th", h, scope="col", class_="n" if h else None) for h in heads]))
    examples = [
        _examples(each["name"], each["reencoding"]["examples"], tokens)
        for each, tokens in zip(summary["tokenizers"], spelled, strict=True)
        if each["reencoding"]["examples"]
    ]
    return join(
        _lead(
            f"Windows of up to {WINDOW_TOKENS} tokens are cut from documents at token boundaries, as training sequences are, "
            "decoded and encoded again. Where other ids come back, a model sees sequences in training that it never meets in "
            "use. A window that begins or ends inside a character is no text and is counted apart."
        ),
        tag("div", tag("table", head, tag("tbody", rows)), class_="table"),
        examples,
    )


def _examples(name: str, examples: Sequence[Mapping[str, Any]], tokens: Spelled) -> Html:
    rows = [
        tag(
            "tr",
            [
                tag("td", [tag("code", visible(tokens[i][0]), title=f"id {i}") for i in e[k]], class_="lists")
                for k in ("given", "encoded")
            ],
        )
        for e in examples
    ]
    head = tag("thead", tag("tr", tag("th", "ids in the window", scope="col"), tag("th", "ids of the same text", scope="col")))
    return join(tag("h3", name), tag("div", tag("table", head, tag("tbody", rows)), class_="table"))


# Superwords


def superwords(summary: Summary, spelled: Sequence[Spelled]) -> Html:
    """Return the longest and the most used tokens of more than one word."""
    blocks = []
    for each, tokens in zip(summary["tokenizers"], spelled, strict=True):
        found = each["superwords"]
        if not found["tokens"]:
            blocks.append(tag("div", tag("h3", each["name"]), tag("p", "No token holds more than one word.", class_="empty")))
            continue
        by_words = ", ".join(f"{count:,} of {number} words" for number, count in found["words"].items())
        facts = f"{found['tokens']:,} superwords ({by_words}): {percent(found['token_share'], 1)} of all tokens in the sample, "
        facts += f"{percent(found['byte_share'], 1)} of its bytes."
        lists = [
            tag("div", tag("h4", title), tag("ul", [_token(i, tokens, True) for i in found[key]], class_="tokens"))
            for title, key in (("Most used", "most_used"), ("Longest", "longest"))
        ]
        blocks.append(tag("div", tag("h3", each["name"]), tag("p", facts, class_="more"), tag("div", lists, class_="side")))
    return join(
        _lead(
            "Tokens with letters or digits on both sides of white space. Scripts that put no space between words have none by "
            "this definition, however long their tokens are. Long ones that are hardly used are boilerplate of the training text."
        ),
        blocks,
    )


# A text by token


def texts(summary: Summary, heat: Sequence[Heat]) -> Html:
    """Return the same texts, cut into the tokens of each tokenizer: the longer a token, the stronger its colour."""
    blocks = []
    for number, first in enumerate(heat[0]):
        columns = []
        for each, shown in zip(summary["tokenizers"], heat, strict=True):
            tokens = shown[number]["tokens"]
            columns.append(
                tag(
                    "div",
                    tag("h4", f"{each['name']}: {plural(len(tokens), 'token')}"),
                    tag("div", map(_span, tokens), class_="heat", dir="auto"),
                )
            )
        blocks.append(tag("div", tag("h3", first["language"]), tag("div", columns, class_="side")))
    return join(
        _lead(
            "The longer a token, the stronger its colour; superwords are underlined. A token that ends inside a character is ",
            tag("b", "·"),
            ", the one that completes it shows the character. Point at a token for its id and how often the sample has it.",
        ),
        blocks,
    )


def _span(token: tuple[str, int, int, int, bool]) -> Html:
    text, i, count, size, superword = token
    heat = sum(size >= step for step in HEAT_STEPS)
    hint = f"id {i} · {count:,}× in the sample · {plural(size, 'byte')}"
    return tag("span", text or tag("b", "·"), class_=f"h{heat} w" if superword else f"h{heat}", title=hint)


# The mixture


def mixture(summary: Summary) -> Html:
    """Return the inferred shares of the languages in the training text of each tokenizer."""
    found = [each for each in summary["tokenizers"] if "shares" in each.get("mixture", {})]
    most = max((share for each in found for share in each["mixture"]["shares"].values()), default=0)
    cells = []
    for name in summary["languages"]:
        for number, each in enumerate(summary["tokenizers"]):
            if each in found:
                share = each["mixture"]["shares"][name]
                hint = f"{each['name']}: {percent(share, 1)} {name}"
                label = name if each is found[0] else ""
                cells += [
                    tag("span", label, class_="group"),
                    _bar(share, most, number, hint),
                    tag("span", percent(share, 1), class_="n"),
                ]
        cells.append(tag("span", class_="gap"))
    notes = [_note(each) for each in summary["tokenizers"] if "mixture" in each]
    return join(
        _lead(
            "A trainer merges the most frequent pair again and again, so the order of merges says which pairs were frequent in "
            "its text. From the counts of pairs in this sample, a linear program finds the shares of the languages that fit that "
            "order best (Hayase et al. 2024, arXiv 2407.16607). It is an estimate: it holds as far as each language here is "
            "written like there, with as much code and English inside it. Languages and kinds of text that the sample does not "
            "have, such as code, count as those that are most like them; shares of close relatives are less certain."
        ),
        _key(summary),
        tag("div", cells, class_="compare") if found else None,
        tag("ul", notes),
    )


def _note(each: Mapping[str, Any]) -> Html:
    facts = each["mixture"]
    if "error" in facts:
        return tag("li", tag("b", each["name"]), f": not inferred. {facts['error']}")
    words = f": from the first {facts['merges']:,} merges, {facts['seen']:,} of them of pairs that the sample has; "
    return tag(
        "li",
        tag("b", each["name"]),
        words,
        f"{percent(facts['slack'], 1)} of their counts had to be allowed for (less is better).",
    )
