"""The thesis's tables and figures as declarations: each expands, for a profile, into runs.

The notebook, the command line and a sweep all use these; what a run is and how it is recorded says ``lab.runs``.
"""
