"""Adapter pull requests as documents: read from files, checked, written as Markdown or JSON.

Nothing here talks to GitHub; `adapterbot.gh.pulls` opens what is written here.
"""
