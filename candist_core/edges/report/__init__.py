"""The report of a version: one HTML file that holds all it needs and asks the network for nothing."""
