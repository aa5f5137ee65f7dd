"""Which documents stay, and why the others went."""
