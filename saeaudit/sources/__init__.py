"""Where weights come from: targets that a user types, resolved to files."""
