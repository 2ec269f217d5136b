"""Functions of Pyro programs compiled to one graph, which is checked against the function."""
