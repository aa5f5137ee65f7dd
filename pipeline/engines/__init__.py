"""What runs the units of a plan: this process, child processes, or Ray."""
