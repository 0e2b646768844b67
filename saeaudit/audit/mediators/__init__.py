"""Every other code of the same size that explains as well."""
