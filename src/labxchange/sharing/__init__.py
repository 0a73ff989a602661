"""What is offered to whom under which terms, what each side signs on the way, and the one place that decides. Pure."""
