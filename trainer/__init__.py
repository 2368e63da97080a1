"""The trainer: `python -m trainer`. It comes next; see docs/architecture.md."""
