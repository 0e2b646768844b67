"""What people are shown at the end of a run: sentences made of records, and how they are laid out.

One file a command, whose functions are pure: records in, text out. `layout` fits text to a width.
"""
