"""What several tests use: a real ComfyUI, models of random weights, oracles, runs of the trainer."""
