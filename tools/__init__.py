"""The repository's own tools: a ComfyUI and its page, models of random weights, the graphs of workflows/."""
