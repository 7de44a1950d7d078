"""Says a report in other languages than English, from one catalogue a language."""
