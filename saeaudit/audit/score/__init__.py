"""Description lengths, the canonical choice and disagreement."""
