"""Which pixels do the predictions rest on?"""
