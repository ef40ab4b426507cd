"""Outgoing webhooks: a run's log, told to addresses that somebody named."""
