"""Why does one network reach another accuracy than the other?"""
