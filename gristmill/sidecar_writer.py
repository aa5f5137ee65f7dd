"""Adding per-token columns to a finished build: the name under which others import it."""

from gristmill.format.sidecar_writer import SidecarWriter, write_sidecar

__all__ = ["SidecarWriter", "write_sidecar"]
