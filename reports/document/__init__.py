"""The one `Document` that every format lays out: its texts, numbers and figures."""
