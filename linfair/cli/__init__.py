"""The commands: each reads its options, calls one function of the package and prints what it returns."""
