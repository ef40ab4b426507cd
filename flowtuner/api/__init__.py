"""The HTTP door: what SimpleTuner's tutorial asks of a server, and a page for people."""
