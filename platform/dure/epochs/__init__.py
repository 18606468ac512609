"""Sweet spots, crossover, and the unified pipeline of both."""
