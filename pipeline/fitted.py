"""A Fit whose model is an artifact: a map with that model, so nothing is counted and no documents meet.

Reads the artifact's files where the stage is opened; the machine takes it as the Map that it is.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import pyarrow as pa

from pipeline.artifact import NAME, Artifact, table_of
from pipeline.finding import Finding
from pipeline.resources import Resources
from pipeline.stage import ASIDE, Fit, Map, Stage, Transform


@dataclass(frozen=True, kw_only=True)
class Fitted(Map):
    """Apply what a Fit of another build settled on; what the stage says of itself is what the Fit says.

    `folder`: where the artifact lies, which leaves no trace: its content does.
    """

    fit: Fit
    artifact: Artifact
    folder: str = field(metadata=ASIDE)

    def needs(self) -> tuple[str, ...]:
        """See `Stage.needs`."""
        return self.fit.needs()

    def adds(self) -> Mapping[str, pa.DataType]:
        """See `Stage.adds`."""
        return self.fit.adds()

    def replaces(self) -> tuple[str, ...]:
        """See `Stage.replaces`."""
        return self.fit.replaces()

    def measures(self) -> tuple[str | tuple[str, ...], ...]:
        """See `Stage.measures`."""
        return self.fit.measures()

    def files(self) -> tuple[str, ...]:
        """Return those of the Fit and the artifact's."""
        return (*self.fit.files(), *(f"{self.folder.rstrip('/')}/{name}" for name in (NAME, self.artifact.model)))

    def libraries(self) -> tuple[str, ...]:
        """See `Stage.libraries`."""
        return self.fit.libraries()

    def attachments(self) -> Mapping[str, str]:
        """See `Stage.attachments`."""
        return self.fit.attachments()

    def resources(self) -> Resources | None:
        """See `Stage.resources`."""
        return self.fit.resources()

    def check(self) -> None:
        """Raise UserError where the parameters or the artifact cannot be used."""
        self.fit.check()
        table_of(self.artifact, self.folder)

    def open(self) -> Transform:
        """Read the model and return f(docs) → docs. Raises InputError where it is missing or damaged."""
        return self.fit.apply(table_of(self.artifact, self.folder))

    def explain(self, before: pa.Table, after: pa.Table) -> Sequence[Finding]:
        """Return what the Fit says of the document, and which model decided."""
        return (*self.fit.explain(before, after), Finding("from", f"{self.artifact.name} ({self.artifact.id})"))


def working(stage: Stage) -> Stage:
    """Return the stage whose code works: of one with an artifact the Fit, else itself."""
    return stage.fit if isinstance(stage, Fitted) else stage
