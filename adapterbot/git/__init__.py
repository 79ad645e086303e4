"""A repository's commits and objects, asked of Git itself: nothing is checked out."""
