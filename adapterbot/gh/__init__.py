"""Everything between us and GitHub. The only package that may import PyGithub.

Importing this package is free; `client` and `comments` cost PyGithub's half second.
"""
