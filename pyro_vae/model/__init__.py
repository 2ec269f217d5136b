"""Models: pairs of Pyro programs, and the VAE, whose sites are joined to such a pair."""
