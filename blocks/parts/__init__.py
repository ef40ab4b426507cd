"""Parts that several destinations are made of; not destinations themselves."""
