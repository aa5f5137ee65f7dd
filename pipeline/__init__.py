"""The machine: plans, runs, commits and accounts for stages it knows nothing about."""
