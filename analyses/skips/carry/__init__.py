"""How much of the gradient comes along the skips rather than through the branches?"""
