"""How often the analyses are right, on data of which the truth is known: `make eval`."""
