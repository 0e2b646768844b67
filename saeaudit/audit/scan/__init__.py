"""Every duplicate, antipodal pair and dependent triple of a dictionary."""
