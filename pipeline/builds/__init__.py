"""What is left when the work is done: the finished build, its account, and what no build needs."""
