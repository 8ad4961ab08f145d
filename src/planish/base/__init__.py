"""Words that every room shares: dtypes, sizes, expressions, layouts, errors, knobs."""
