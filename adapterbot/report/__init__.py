"""`adapterbot report`: a report as one page that needs nothing else, every sample in it."""

from adapterbot.report.document import Beside, html

__all__ = ["Beside", "html"]
