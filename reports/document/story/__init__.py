"""The first page's story: the reader's question, and the answer in a few sentences."""
