"""Which layers of a deep network differ from those like them?"""
