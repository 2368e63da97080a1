"""A real ComfyUI with this pack, and a first picture from it: `make demo`."""
