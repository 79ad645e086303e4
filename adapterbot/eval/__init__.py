"""Evaluation: what is asked (`suite`), how an answer is judged (`scorers`), who answers (`engine`).

`suite` and the scorers' registry start without torch; import them by their full names.
"""

import os

# Threads that spin while they wait starve each other on a shared runner: the example took 16 s
# beside other jobs, 3 s with this. OpenMP reads it once, when torch is loaded.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
