"""Where does the gradient flow: a drawing of each network."""
