"""Parts that several families are made of; not families themselves."""
