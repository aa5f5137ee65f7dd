"""Which tokens to train on: policies over what models say of tokens, and the loops that apply them."""
