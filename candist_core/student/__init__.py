"""The student: the only home of torch and transformers."""
