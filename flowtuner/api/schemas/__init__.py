"""One file per resource: what travels to and from its addresses."""
