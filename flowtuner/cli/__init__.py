"""Door 2: the command line; it imports a command's module only when that command is given."""
