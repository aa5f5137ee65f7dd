"""The exceptions of the reader.

    FormatError (ValueError)    a build that cannot be read: not a manifest, another version, files missing or damaged

Mistakes in arguments (a negative sample number, a batch that the ranks cannot share) are plain ValueError.
"""

from gristmill.secrets import masked


class FormatError(ValueError):
    """A manifest or shard that is missing, damaged, or of a version that this reader does not know; its words hide secrets."""

    def __init__(self, message: str) -> None:
        super().__init__(masked(message))
