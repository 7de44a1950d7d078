"""How figures are drawn as pictures, and how findings show themselves in a notebook."""
