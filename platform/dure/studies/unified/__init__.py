"""The unified training: a sweep, a long training, sweet spots of its modules, and a crossover of them."""
