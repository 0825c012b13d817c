"""Order: the flows, the command line, and where they run."""
