"""One file per resource: what its addresses do."""
