"""All exceptions that gristmill raises on purpose, and what the driver of a build does with each.

    GristmillError
    ├── UserError (ValueError)        the config, the input or the store is at fault; exit code 2, no traceback
    │   ├── ConfigError               a mistake in the YAML; carries the place
    │   ├── InputError                a file, glob or build that is not there or cannot be used
    │   ├── FormatError               the reader's: no manifest, another version, files missing or damaged
    │   ├── StoreRefused              an output store that cannot commit safely (no conditional put)
    │   └── Damaged                   what was committed is missing or not what it was; the driver has it computed again
    ├── StoreError (OSError)          infrastructure; the driver retries with backoff
    │   └── StoreFull                 no room left; the build stops and a rerun goes on
    ├── Stopped                       whom a stage asks does not answer, or must not be asked on; the build stops, exit code 3
    └── UnitFailed                    one unit of work could not be done; exit code 3 when others are finished

Whatever else a stage raises on a document is quarantined by the segment; whatever else it raises in `open()` fails
the unit. That holds for what does not derive from Exception, too (a panic in Rust), but for `ENDINGS`.

Mistakes in arguments of the reader (a negative sample number, a batch that the ranks cannot share) are plain ValueError.
"""

from __future__ import annotations

from gristmill.secrets import masked

# What ends a process or a generator is no error of a document, a stage or a node.
ENDINGS = (KeyboardInterrupt, SystemExit, GeneratorExit)


class GristmillError(Exception):
    """Base of all errors that are raised on purpose."""


class UserError(GristmillError, ValueError):
    """A mistake that only the user can mend; printed as one message, exit code 2."""


class ConfigError(UserError):
    """A mistake in a config; `place` is `file:line:column`, or empty when the config came from code."""

    def __init__(self, message: str, place: str = "") -> None:
        self.place = place
        super().__init__(f"{place}: {message}" if place else message)


class InputError(UserError):
    """An input that does not exist, is empty, or cannot be read."""


class FormatError(UserError):
    """A manifest or shard that is missing, damaged, or of a version that this reader does not know; its words hide secrets."""

    def __init__(self, message: str) -> None:
        super().__init__(masked(message))


class StoreRefused(UserError):
    """An output location that cannot commit atomically without overwriting."""


class Damaged(UserError):
    """Something that was committed is missing, or is not what was written: `what`; `record` names the record that it belongs to.

    While a build runs, the driver has the unit of that record computed again; whoever else reads it gets the message.
    """

    def __init__(self, what: str, record: str) -> None:
        self.what, self.record = what, record
        super().__init__(f"{what}; `python -m jobs build CONFIG --verify` puts it back")

    def __reduce__(self) -> tuple[type[Damaged], tuple[str, str]]:
        return type(self), (self.what, self.record)


class StoreError(GristmillError, OSError):
    """The store did not do what was asked after its own retries; the driver tries the unit again later."""


class StoreFull(StoreError):
    """No space left on the output (or scratch) device; nothing is lost, the build goes on when there is room."""


class Stopped(GristmillError):
    """A build cannot go on before a person has done something, and nothing is wrong with its data; what is done is kept."""


class UnitFailed(GristmillError):
    """A unit of work failed for a reason that trying again would not mend."""
