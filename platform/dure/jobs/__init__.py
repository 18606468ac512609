"""Commands that run on by themselves, as jobs of a cluster of this machine that dure keeps for them."""
