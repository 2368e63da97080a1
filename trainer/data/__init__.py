"""Pictures and captions: where they come from, in which order, and as what they reach the loop."""
