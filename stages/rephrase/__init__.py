"""Documents written anew by a model behind an endpoint."""
