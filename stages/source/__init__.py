"""Where documents come from: one file a format, each yields tables of `pipeline.schema.DOCUMENT`."""
