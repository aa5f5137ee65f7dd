"""Text to pre-tokens: split patterns made into tables (`classes`, `regex`, `automaton`) and a compiled scan (`cutter`)."""
