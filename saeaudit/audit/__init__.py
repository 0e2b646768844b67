"""Records from dictionaries: a folder a subcommand, and the rooms that they share.

Generators of typed records that know no terminal and no file.
"""
