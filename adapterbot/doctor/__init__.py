"""What a machine, a repository and a token lack of what the gate needs, and how to get it."""

from adapterbot.doctor.finding import Finding, Status, exit_code

__all__ = ["Finding", "Status", "exit_code"]
