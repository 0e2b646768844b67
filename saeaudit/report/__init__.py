"""From records to one page for people."""
