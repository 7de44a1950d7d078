"""Which classes does each network tell apart, and which does it confuse?"""
