"""Hot reload in place: the code is another one, the weights are the same."""
