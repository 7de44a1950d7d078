"""What each term of the loss asks of the layers, and where terms pull against each other."""
