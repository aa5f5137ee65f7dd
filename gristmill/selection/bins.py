"""The bins of scores: numbers that the histograms and the compiled loops share."""

FINE = 12  # bits of a float's mantissa that a bin goes by: 4096 bins an octave
DROPPED = 23 - FINE
OCTAVES = 44  # from 2^-24 up, the least and more than the highest of float16
MOST = OCTAVES << FINE
BASE = (127 - 24) << FINE
