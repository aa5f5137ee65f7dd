"""`train-tokenizer` and `measure-tokenizer`."""
