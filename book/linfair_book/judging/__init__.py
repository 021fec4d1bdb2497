"""Claims judged by rules: `book/rules.toml` says by what, the committed rows and noted numbers say how it came out."""
