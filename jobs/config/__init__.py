"""YAML to validated builds and recipes."""
