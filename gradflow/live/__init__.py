"""Follows a run that is still training: rebuilds its report and serves it to a browser."""
