"""First steps: what a repository needs to be gated, made from what it already holds.

Reading and planning only; `adapterbot.commands.init` asks and writes.
"""

from adapterbot.init.files import WORKFLOW, Planned, Wanted, plan

__all__ = ["WORKFLOW", "Planned", "Wanted", "plan"]
