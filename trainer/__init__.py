"""The trainer: `python -m trainer`; docs/training.md is its manual, docs/architecture.md its plan."""
