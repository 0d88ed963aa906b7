"""The command line: ``vfd`` and one file a sub-command, argument parsing only."""
