"""HTML that is escaped by construction, and charts without a script."""
