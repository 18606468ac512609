"""Running studies on Ray Tune: one adapter, and the strategies."""
