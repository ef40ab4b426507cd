"""The commands: one file each, named like the command, with one function `run(argv) -> exit code`."""
