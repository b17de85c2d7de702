"""One module a scenario: what is set up, what is measured, what is printed."""
