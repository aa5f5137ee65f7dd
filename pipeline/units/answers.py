"""Answers kept in the store: the journal of a stage that asks, for one shard.

Reads and writes `answers/<subject>/<shard>/00000001.jsonl.gz`, …: chunks of answers, a line each, which nobody changes once they
are there. A chunk has the next free number, put by `put_new`, so all who write agree on one order, and of two answers to a
question the one in the earlier chunk is everybody's. Whoever loses a number reads the winner's chunk and goes on behind it.
`answers/<subject>/about.json` says what the subject is; the names of the empty files in `answers/<subject>/spent/` say what each
chunk took.

No name depends on a unit's fingerprint: a unit that is run again, after a kill or since another stage of it changed, finds its
answers here. Nothing of the machine removes them.
"""

from __future__ import annotations

import contextlib
import gzip
import json
import re
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor

from gristmill.errors import InputError
from gristmill.json_values import Plain
from gristmill.storage.store import Store
from pipeline.journal import Answer, Ask
from pipeline.planning.fingerprint import digest
from pipeline.records import READERS

FOLDER = "answers"
CHUNK = 256  # answers that are waited for before they are put
CHUNK_S = 10.0  # or the seconds since the first of them: what a killed process loses
LIFE_S = 10.0  # between two signs of life while answers are waited for

_CHUNK = re.compile(r"[0-9]{8}\.jsonl\.gz")
_SPENT = re.compile(r"[0-9a-f]{32}-[0-9]{8}((?:,[a-z0-9_]+=[0-9]+)*)")


def _alive() -> None:
    """Tell nobody."""


class StoredAnswers:
    """A `Journal` in a store, of one stage on one shard.

    Args:
        store: of the build's output.
        subject: of the stage, see `AskingMap.subject`.
        shard: the name of the input file.
        alive: called while answers are waited for.
        asking: False: nobody is asked, and what is not kept raises InputError (to look at a finished build).
    """

    def __init__(
        self,
        store: Store,
        subject: Mapping[str, Plain],
        shard: str,
        alive: Callable[[], None] = _alive,
        *,
        asking: bool = True,
    ) -> None:
        self._store, self._subject, self._alive, self._asking = store, subject, alive, asking
        self._root = f"{FOLDER}/{digest(subject)}"
        self._shard = digest(shard)
        self._kept: dict[str, Answer] = {}
        self._read: set[str] | None = None  # names of chunks; None: it has not been looked for any
        self._used: dict[str, Answer] = {}

    def answers(self, keys: Sequence[str], ask: Ask) -> Mapping[str, Answer]:
        """See `Journal.answers`. Raises InputError for a chunk that is damaged."""
        if self._read is None:
            self._read_all()
        missing = [key for key in dict.fromkeys(keys) if key not in self._kept]
        if missing and not self._asking:
            raise InputError(f"no answer is kept to {len(missing)} of {len(keys)} questions, and nobody is asked now")
        if missing:
            self._ask(missing, ask)
        found = {key: self._kept[key] for key in keys}
        self._used |= found
        return found

    def spent(self) -> Mapping[str, int]:
        """See `Journal.spent`: what chunks that were put say; a listing of one folder."""
        total = Counter[str]()
        for name in self._store.list(f"{self._root}/spent"):
            if match := _SPENT.fullmatch(name):
                total.update({key: int(value) for key, _, value in (pair.partition("=") for pair in match[1].split(",")[1:])})
        return total

    def account(self) -> dict[str, int]:
        """Return how many answers the unit has used, each once, and the sums of their counts."""
        return {"answers": len(self._used), **dict(sorted(_total(self._used.values()).items()))} if self._used else {}

    def _ask(self, missing: Sequence[str], ask: Ask) -> None:
        """Ask, and put answers as they come, also those before an error."""
        pending: dict[str, Answer] = {}
        begun = alive = time.monotonic()
        try:
            with contextlib.closing(ask(missing)) as batches:
                for batch in batches:
                    now = time.monotonic()
                    begun = begun if pending else now
                    pending |= batch
                    if now - alive >= LIFE_S:
                        self._alive()
                        alive = now
                    if pending and (len(pending) >= CHUNK or now - begun >= CHUNK_S):
                        self._put(pending)
                        pending = {}
        finally:
            self._put(pending)
        unanswered = [key for key in missing if key not in self._kept]
        assert not unanswered, f"{len(unanswered)} of {len(missing)} questions have no answer"

    def _put(self, pending: Mapping[str, Answer]) -> None:
        """Put answers as the next chunk; those to questions that another process has answered meanwhile give way."""
        assert self._read is not None
        while pending:
            number = max((int(name[:8]) for name in self._read), default=0) + 1
            if number == 1:
                self._store.put_new(f"{self._root}/about.json", json.dumps(self._subject, indent=1, ensure_ascii=False).encode())
            name = f"{number:08d}.jsonl.gz"
            if self._store.put_new(f"{self._root}/{self._shard}/{name}", _packed(pending)):
                self._take(name, pending)
                self._tell_spent(name, pending)
                return
            self._take(name, self._chunk(name))
            pending = {key: answer for key, answer in pending.items() if key not in self._kept}

    def _take(self, name: str, answers: Mapping[str, Answer]) -> None:
        """Keep the answers of a chunk, unless an earlier one has others."""
        assert self._read is not None
        self._read.add(name)
        for key, answer in answers.items():
            self._kept.setdefault(key, answer)

    def _read_all(self) -> None:
        names = [name for name in self._store.list(f"{self._root}/{self._shard}") if _CHUNK.fullmatch(name)]
        told = set(self._store.list(f"{self._root}/spent")) if names else set()
        self._read = set()
        with ThreadPoolExecutor(READERS) as pool:
            for name, chunk in zip(names, pool.map(self._chunk, names), strict=True):
                self._take(name, chunk)
                if self._asking and self._spent_name(name, chunk) not in told:
                    self._tell_spent(name, chunk)  # its writer was killed before it came to that

    def _tell_spent(self, name: str, answers: Mapping[str, Answer]) -> None:
        self._store.put_new(f"{self._root}/spent/{self._spent_name(name, answers)}", b"")

    def _spent_name(self, name: str, answers: Mapping[str, Answer]) -> str:
        counts = "".join(f",{key}={value}" for key, value in sorted(_total(answers.values()).items()))
        return f"{self._shard}-{name[:8]}{counts}"

    def _chunk(self, name: str) -> dict[str, Answer]:
        path = f"{self._root}/{self._shard}/{name}"
        try:
            lines = gzip.decompress(self._store.read(path)).splitlines()
            return {row["key"]: Answer(row["content"], row["counts"]) for row in map(json.loads, lines)}
        except (EOFError, OSError, ValueError, KeyError, TypeError) as error:
            if isinstance(error, OSError) and not isinstance(error, gzip.BadGzipFile):
                raise
            where = self._store.uri(path)
            raise InputError(f"{where} is damaged ({error}); delete it: what it answered is asked again") from error


def _total(answers: Iterable[Answer]) -> Counter[str]:
    total = Counter[str]()
    for answer in answers:
        total.update(answer.counts)
    return total


def _packed(answers: Mapping[str, Answer]) -> bytes:
    """Return a chunk; gzip has a checksum of its content."""
    rows = ({"key": key, "content": answer.content, "counts": dict(answer.counts)} for key, answer in answers.items())
    return gzip.compress("".join(json.dumps(row, ensure_ascii=True) + "\n" for row in rows).encode(), mtime=0)
