"""What a tokenizer does to given texts, and what it was trained on."""
