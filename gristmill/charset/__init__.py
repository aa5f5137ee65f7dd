"""Bytes of the web to text: labels, declarations, guesses and decoders of the WHATWG Encoding standard."""
