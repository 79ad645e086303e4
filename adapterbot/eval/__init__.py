"""Evaluation: what is asked (`suite`), how an answer is judged (`scorers`), who answers (`engine`).

`suite` and the scorers' registry start without torch; import them by their full names.
"""
