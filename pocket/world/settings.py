"""How pocket is used, as documented: plain values, which graphs name without loading a model."""

GUIDANCE = 4.0
TEXT_WEIGHT, SILHOUETTE_WEIGHT, HALF_WEIGHT = 0.55, 0.5, 1.2  # of a picture beside text, a silhouette, another one
