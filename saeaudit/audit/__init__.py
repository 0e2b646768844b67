"""Records from dictionaries: a folder a subcommand, and the rooms that they share.

In each folder run.py yields typed records and knows no terminal and no file; inputs.py, where there
is one, reads the files that a run names.
"""
