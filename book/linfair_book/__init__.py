"""What only the book's pages need: a file for each notebook, their figures, the claims, the explorer and the build."""
