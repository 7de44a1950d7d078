"""How much of the gradient comes along the skips, and how much through the branches?"""
