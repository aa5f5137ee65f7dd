"""Tokens out of memory: files mapped (mapping), their columns (column), windows of them (gather), one build (stream), rows."""
