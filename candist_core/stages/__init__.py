"""Each stage over a store: look for what is done, do the rest, write once, report.

A stage reads tables by `TableRef`, calls the core, writes its tables and last of all its done-marker. Its key holds
the content of its inputs and the settings that can change its output, so any later run with the same inputs finds it.
These functions are the whole product without an orchestrator; `tasks` makes them survive, `flows` puts them in order.
"""
