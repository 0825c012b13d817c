"""Experiments about the method itself: what candidate sets, trainers and label models are worth on recorded replies."""
