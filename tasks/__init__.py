"""Stages made to survive: one Prefect task a stage, thin."""
