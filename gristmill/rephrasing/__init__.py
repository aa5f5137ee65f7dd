"""Texts written anew by a model behind an endpoint: prompts, segments that fit them, requests that outlast trouble, guards."""
