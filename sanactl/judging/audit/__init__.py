"""How far a judge can be trusted: its verdicts against labels."""
