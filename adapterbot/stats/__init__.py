"""The statistics under `delta` and `verdict`: numpy and the standard library, nothing else.

Everything here speaks of *harm*: a paired difference oriented so that positive is worse. No
module here knows of records, suites or policies. scipy and statsmodels are the oracles in the
tests and are never imported on this path (`import scipy.stats` alone costs 1.7 s).
"""
