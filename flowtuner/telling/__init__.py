"""A run's log, told elsewhere: in the shape that clients read, to webhooks, and to the server that started it."""
