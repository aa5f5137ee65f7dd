"""What a config and the commands may say: shown by `stages`, written into docs/reference/."""
