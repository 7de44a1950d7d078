"""The run folder: what is recorded (`schema`), how it is written (`writer`) and read (`reader`)."""
