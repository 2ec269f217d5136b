"""Sites joined to Pyro programs."""
