"""What the server remembers: users, keys, jobs and events, in SQLite or PostgreSQL."""
