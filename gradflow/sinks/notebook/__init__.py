"""A picture of the training in a notebook, renewed as it goes on; a line of text elsewhere."""
